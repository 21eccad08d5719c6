//! bitcoind's RPC, with deadlines, and with credentials that are read again when bitcoind has made new ones.

use std::{
    future::Future,
    io,
    path::PathBuf,
    sync::{Arc, RwLock},
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use bitcoin::{
    BlockHash, OutPoint, Transaction, Txid,
    consensus::encode::{deserialize_hex, serialize_hex},
};
use lightning_block_sync::{
    AsyncBlockSourceResult, BlockData, BlockHeaderData, BlockSource, BlockSourceError,
    gossip::UtxoSource,
    http::HttpEndpoint,
    rpc::{RpcClient, RpcError},
};
use serde_json::{Value, json};
use zeroize::Zeroizing;

/// How long one call may take before it counts as failed. A block of 4 MB over a slow link fits.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);

/// Where the RPC's user and password come from. Both kinds are files, read when needed and never kept in a config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BitcoindAuth {
    /// bitcoind's own `.cookie`: new at each of its starts.
    Cookie(PathBuf),
    Password {
        user: String,
        file: PathBuf,
    },
}

/// A client of one bitcoind.
pub struct Bitcoind {
    host: String,
    port: u16,
    auth: BitcoindAuth,
    client: RwLock<Option<Arc<RpcClient>>>,
}

/// What became of a transaction handed to bitcoind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sent {
    /// In its mempool or in a block, now or before.
    Accepted,
    /// Refused for good as things stand, with bitcoind's words.
    Rejected(String),
}

impl Bitcoind {
    /// `url` is `host:port`. Connects at the first call, not here.
    pub fn new(url: &str, auth: BitcoindAuth) -> io::Result<Self> {
        let bad = || io::Error::new(io::ErrorKind::InvalidInput, format!("`{url}` is not of the form host:port"));
        let (host, port) = url.rsplit_once(':').ok_or_else(bad)?;
        let port = port.parse().map_err(|_| bad())?;
        Ok(Self { host: host.to_owned(), port, auth, client: RwLock::new(None) })
    }

    /// A client of the same one with a connection of its own, which lives on the runtime that makes the first call.
    pub fn another(&self) -> Self {
        Self { host: self.host.clone(), port: self.port, auth: self.auth.clone(), client: RwLock::new(None) }
    }

    /// The genesis block's hash, to make sure that bitcoind is on our network.
    pub async fn genesis(&self) -> io::Result<BlockHash> {
        self.block_hash(0).await
    }

    pub async fn block_hash(&self, height: u32) -> io::Result<BlockHash> {
        let hash = self.call("getblockhash", &[json!(height)]).await?;
        text(&hash)?.parse().map_err(invalid)
    }

    /// Height of the best chain.
    pub async fn height(&self) -> io::Result<u32> {
        let answer = self.call("getblockcount", &[]).await?;
        let height = answer.as_u64().and_then(|height| u32::try_from(height).ok());
        height.ok_or_else(|| invalid("getblockcount gives no height"))
    }

    /// Fee rate for confirmation within `blocks`, in satoshi per 1000 weight units; `None` if bitcoind has no estimate.
    pub async fn estimate_fee(&self, blocks: u16, conservative: bool) -> io::Result<Option<u32>> {
        let mode = if conservative { "CONSERVATIVE" } else { "ECONOMICAL" };
        let answer = self.call("estimatesmartfee", &[json!(blocks), json!(mode)]).await?;
        Ok(answer.get("feerate").and_then(Value::as_f64).map(btc_per_kvb_to_sat_per_kw))
    }

    /// The rate below which bitcoind does not accept a transaction now, in satoshi per 1000 weight units.
    pub async fn mempool_min_fee(&self) -> io::Result<u32> {
        let answer = self.call("getmempoolinfo", &[]).await?;
        let rate = answer.get("mempoolminfee").and_then(Value::as_f64);
        rate.map(btc_per_kvb_to_sat_per_kw).ok_or_else(|| invalid("getmempoolinfo without mempoolminfee"))
    }

    /// Hands over one transaction. An error means that nothing is known of its fate.
    pub async fn send(&self, tx: &Transaction) -> io::Result<Sent> {
        match self.call("sendrawtransaction", &[json!(serialize_hex(tx))]).await {
            Ok(_) => Ok(Sent::Accepted),
            Err(e) => match rpc_error(&e) {
                // RPC_VERIFY_ALREADY_IN_UTXO_SET
                Some(RpcError { code: -27, .. }) => Ok(Sent::Accepted),
                Some(RpcError { message, .. }) if message.contains("txn-already-in-mempool") => Ok(Sent::Accepted),
                // RPC_TRANSACTION_ERROR, RPC_TRANSACTION_REJECTED, RPC_DESERIALIZATION_ERROR
                Some(RpcError { code: -25 | -26 | -22, message }) => Ok(Sent::Rejected(message.clone())),
                _ => Err(e),
            },
        }
    }

    /// Whether the mempool would take the transaction now. It goes to nobody else.
    pub async fn would_accept(&self, tx: &Transaction) -> io::Result<Sent> {
        let answer = self.call("testmempoolaccept", &[json!([serialize_hex(tx)])]).await?;
        let verdict = answer.get(0).ok_or_else(|| invalid("testmempoolaccept without a verdict"))?;
        if verdict.get("allowed").and_then(Value::as_bool) == Some(true) {
            return Ok(Sent::Accepted);
        }
        let why =
            ["reject-details", "reject-reason", "package-error"].iter().find_map(|key| verdict.get(key)?.as_str());
        Ok(Sent::Rejected(why.unwrap_or("it gives no reason").to_owned()))
    }

    /// Hands over a parent and the child that pays for it together.
    pub async fn send_package(&self, package: &[Transaction]) -> io::Result<Sent> {
        let raw: Vec<String> = package.iter().map(serialize_hex).collect();
        match self.call("submitpackage", &[json!(raw)]).await {
            Ok(answer) => match answer.get("package_msg").and_then(Value::as_str) {
                Some("success") => Ok(Sent::Accepted),
                other => Ok(Sent::Rejected(other.unwrap_or("no package_msg").to_owned())),
            },
            Err(e) => match rpc_error(&e) {
                Some(RpcError { message, .. }) => Ok(Sent::Rejected(message.clone())),
                None => Err(e),
            },
        }
    }

    /// Whether the mempool holds the transaction.
    pub async fn in_mempool(&self, txid: Txid) -> io::Result<bool> {
        match self.call("getmempoolentry", &[json!(txid.to_string())]).await {
            Ok(_) => Ok(true),
            Err(e) => match rpc_error(&e) {
                Some(RpcError { code: -5, .. }) => Ok(false),
                _ => Err(e),
            },
        }
    }

    /// What waits in the mempool.
    pub async fn mempool(&self) -> io::Result<Vec<Txid>> {
        let ids = self.call("getrawmempool", &[]).await?;
        serde_json::from_value(ids).map_err(invalid)
    }

    /// A transaction of the mempool; none if it has left it.
    pub async fn unconfirmed(&self, txid: Txid) -> io::Result<Option<Transaction>> {
        match self.call("getrawtransaction", &[json!(txid.to_string())]).await {
            Ok(raw) => deserialize_hex(text(&raw)?).map(Some).map_err(invalid),
            Err(e) => match rpc_error(&e) {
                // RPC_INVALID_ADDRESS_OR_KEY
                Some(RpcError { code: -5, .. }) => Ok(None),
                _ => Err(e),
            },
        }
    }

    async fn call(&self, method: &str, params: &[Value]) -> io::Result<Value> {
        self.with_client(|client| async move { client.call_method::<Value>(method, params).await }).await
    }

    /// Runs one call; after "401 Unauthorized" once more, with the credentials read again.
    async fn with_client<T, F, Fut>(&self, call: F) -> io::Result<T>
    where
        F: Fn(Arc<RpcClient>) -> Fut,
        Fut: Future<Output = io::Result<T>>,
    {
        let mut again = true;
        loop {
            let client = self.client()?;
            let answer = match tokio::time::timeout(CALL_TIMEOUT, call(client)).await {
                Ok(answer) => answer,
                Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "bitcoind did not answer in time")),
            };
            match answer {
                Err(e) if again && is_unauthorized(&e) => {
                    again = false;
                    self.forget_client();
                }
                Err(e) => {
                    if rpc_error(&e).is_none() {
                        // The next call starts on a fresh connection, and with fresh credentials.
                        self.forget_client();
                    }
                    return Err(e);
                }
                ok => return ok,
            }
        }
    }

    fn client(&self) -> io::Result<Arc<RpcClient>> {
        if let Some(client) = &*self.client.read().unwrap_or_else(|e| e.into_inner()) {
            return Ok(client.clone());
        }
        let pair = match &self.auth {
            BitcoindAuth::Cookie(path) => read_secret(path)?,
            BitcoindAuth::Password { user, file } => {
                let password = read_secret(file)?;
                Zeroizing::new(format!("{user}:{}", password.as_str()))
            }
        };
        let credentials = Zeroizing::new(BASE64_STANDARD.encode(pair.as_bytes()));
        let endpoint = HttpEndpoint::for_host(self.host.clone()).with_port(self.port);
        let client = Arc::new(RpcClient::new(&credentials, endpoint));
        *self.client.write().unwrap_or_else(|e| e.into_inner()) = Some(client.clone());
        Ok(client)
    }

    fn forget_client(&self) {
        *self.client.write().unwrap_or_else(|e| e.into_inner()) = None;
    }
}

impl BlockSource for Bitcoind {
    fn get_header<'a>(
        &'a self,
        hash: &'a BlockHash,
        height: Option<u32>,
    ) -> AsyncBlockSourceResult<'a, BlockHeaderData> {
        Box::pin(async move {
            self.with_client(|client| async move { client.get_header(hash, height).await.map_err(into_io) })
                .await
                .map_err(BlockSourceError::transient)
        })
    }

    fn get_block<'a>(&'a self, hash: &'a BlockHash) -> AsyncBlockSourceResult<'a, BlockData> {
        Box::pin(async move {
            self.with_client(|client| async move { client.get_block(hash).await.map_err(into_io) })
                .await
                .map_err(BlockSourceError::transient)
        })
    }

    fn get_best_block(&self) -> AsyncBlockSourceResult<'_, (BlockHash, Option<u32>)> {
        Box::pin(async move {
            self.with_client(|client| async move { client.get_best_block().await.map_err(into_io) })
                .await
                .map_err(BlockSourceError::transient)
        })
    }
}

impl UtxoSource for Bitcoind {
    fn get_block_hash_by_height<'a>(&'a self, height: u32) -> AsyncBlockSourceResult<'a, BlockHash> {
        Box::pin(async move { self.block_hash(height).await.map_err(BlockSourceError::transient) })
    }

    fn is_output_unspent<'a>(&'a self, outpoint: OutPoint) -> AsyncBlockSourceResult<'a, bool> {
        Box::pin(async move {
            let params = [json!(outpoint.txid.to_string()), json!(outpoint.vout), json!(false)];
            let output = self.call("gettxout", &params).await.map_err(BlockSourceError::transient)?;
            Ok(!output.is_null())
        })
    }
}

fn read_secret(path: &std::path::Path) -> io::Result<Zeroizing<String>> {
    let text = std::fs::read_to_string(path)
        .map(Zeroizing::new)
        .map_err(|e| io::Error::new(e.kind(), format!("cannot read {}: {e}", path.display())))?;
    Ok(Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned()))
}

/// The block source's errors box the IO error that caused them.
fn into_io(error: BlockSourceError) -> io::Error {
    match error.into_inner().downcast::<io::Error>() {
        Ok(io) => *io,
        Err(other) => io::Error::other(other),
    }
}

fn rpc_error(error: &io::Error) -> Option<&RpcError> {
    error.get_ref()?.downcast_ref()
}

/// The client's type for HTTP errors is private; its words begin with the status.
fn is_unauthorized(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Other && error.to_string().starts_with("status_code: 401")
}

fn text(value: &Value) -> io::Result<&str> {
    value.as_str().ok_or_else(|| invalid("expected a string"))
}

fn invalid(e: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, e)
}

/// bitcoind speaks of BTC per 1000 virtual bytes; a virtual byte is four weight units.
fn btc_per_kvb_to_sat_per_kw(rate: f64) -> u32 {
    let sat_per_kw = (rate * 100_000_000.0 / 4.0).round();
    // Saturating by the language's definition of float-to-int casts.
    sat_per_kw as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fee_rates_convert() {
        assert_eq!(btc_per_kvb_to_sat_per_kw(0.00001), 250);
        assert_eq!(btc_per_kvb_to_sat_per_kw(0.001), 25_000);
        assert_eq!(btc_per_kvb_to_sat_per_kw(-1.0), 0);
    }

    #[test]
    fn an_url_without_port_is_an_error() {
        let auth = || BitcoindAuth::Cookie("cookie".into());
        assert!(Bitcoind::new("localhost", auth()).is_err());
        assert!(Bitcoind::new("localhost:x", auth()).is_err());
        assert!(Bitcoind::new("127.0.0.1:18443", auth()).is_ok());
    }

    #[tokio::test]
    async fn a_missing_cookie_is_an_error_that_names_it() {
        let bitcoind = Bitcoind::new("127.0.0.1:1", BitcoindAuth::Cookie("/nowhere/cookie".into())).unwrap();
        let error = bitcoind.genesis().await.unwrap_err();
        assert!(error.to_string().contains("/nowhere/cookie"), "{error}");
    }
}
