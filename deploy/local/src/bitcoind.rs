//! A bitcoind in regtest, and a faucet with coins of its first blocks.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use base64::{Engine, prelude::BASE64_STANDARD};
use bitcoin::{
    Address, Amount, CompressedPublicKey, EcdsaSighashType, Network, OutPoint, PrivateKey, ScriptBuf, Sequence,
    Transaction, TxIn, TxOut, Txid, Witness,
    absolute::LockTime,
    consensus::encode::{deserialize_hex, serialize_hex},
    hashes::{Hash, HashEngine, Hmac, HmacEngine, sha256},
    secp256k1::{Message, Secp256k1, SecretKey},
    sighash::SighashCache,
    transaction::Version,
};
use lightning_block_sync::{
    http::{HttpEndpoint, JsonResponse},
    rpc::RpcClient,
};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    files,
    ports::Port,
    process::{Launch, Process},
    wait::{Probe, wait_for},
};

const NETWORK: Network = Network::Regtest;
const RPC_USER: &str = "holdfast";
const START: Duration = Duration::from_secs(60);
/// Depth at which a coinbase may be spent (consensus).
const MATURITY: u32 = 100;

#[derive(Debug)]
pub struct Bitcoind {
    process: Process,
    rpc_port: Port,
    _peer_port: Port,
    data: PathBuf,
    password: String,
    faucet: Faucet,
}

impl Bitcoind {
    /// Starts one in `<folder>/bitcoind` and gives the faucet its coins.
    pub(crate) async fn create(folder: &Path, logs: &Path) -> Result<Self> {
        let data = folder.join("bitcoind");
        fs::create_dir(&data)?;
        let (rpc_port, peer_port) = (Port::lease()?, Port::lease()?);
        let password = files::random_hex();
        let configuration = format!(
            "regtest=1\nserver=1\ndaemon=0\nprinttoconsole=1\ndnsseed=0\nfixedseeds=0\nlisten=0\n\
             rpcauth={}\nshrinkdebugfile=0\nnodebuglogfile=1\nlogtimemicros=1\n\
             [regtest]\nport={}\nrpcport={}\nrpcbind=127.0.0.1\nrpcallowip=127.0.0.1\n",
            rpc_auth(RPC_USER, &password),
            peer_port.number(),
            rpc_port.number()
        );
        let configuration_file = data.join("bitcoin.conf");
        files::write_secret(&configuration_file, &configuration)?;
        let launch = Launch::new(
            program()?,
            [format!("-datadir={}", data.display()), format!("-conf={}", configuration_file.display())],
        );
        let process = Process::new("bitcoind", launch, logs);
        let bitcoind = Self { process, rpc_port, _peer_port: peer_port, data, password, faucet: Faucet::new() };
        bitcoind.start().await?;
        bitcoind.fill_faucet().await?;
        Ok(bitcoind)
    }

    /// `host:port` of the RPC.
    pub fn url(&self) -> String {
        self.rpc_port.address().to_string()
    }

    /// Written anew at each start.
    pub fn cookie_file(&self) -> PathBuf {
        self.data.join("regtest/.cookie")
    }

    pub fn rpc_port(&self) -> u16 {
        self.rpc_port.number()
    }

    /// User and password that stay the same over restarts.
    pub fn rpc_credentials(&self) -> (&str, &str) {
        (RPC_USER, &self.password)
    }

    pub fn process(&self) -> &Process {
        &self.process
    }

    pub async fn start(&self) -> Result<()> {
        self.process.start()?;
        wait_for("bitcoind to answer", START, async || match self.height().await {
            Ok(_) => Ok(Probe::Ready(())),
            Err(error) if self.process.is_running() => Ok(Probe::Waiting(format!("{error:#}"))),
            Err(error) => Ok(Probe::Hopeless(format!("it ended: {error:#}\n{}", self.process.log_tail(10)))),
        })
        .await
    }

    /// Takes it away in an orderly manner: killed, it would forget blocks that it had not yet written, and regtest has
    /// nobody to ask for them again.
    pub fn stop(&self) -> Result<()> {
        self.process.stop(Signal::TERM, Duration::from_secs(20))
    }

    pub async fn height(&self) -> Result<u32> {
        self.rpc("getblockcount", &[]).await?.as_u64().and_then(|n| n.try_into().ok()).context("a block count")
    }

    /// Mines blocks whose rewards nobody uses.
    pub async fn mine(&self, blocks: u32) -> Result<()> {
        self.mine_to(blocks, &burn_address()).await
    }

    pub async fn mempool(&self) -> Result<Vec<Txid>> {
        Ok(serde_json::from_value(self.rpc("getrawmempool", &[]).await?)?)
    }

    /// Replaces the newest `blocks` blocks by one more, all of them empty: what the old ones confirmed is in the mempool
    /// again, unless it had to wait for a height that the chain no longer has.
    pub async fn reorganise(&self, blocks: u32) -> Result<()> {
        let fork = self.height().await? - blocks;
        let first = self.rpc("getblockhash", &[json!(fork + 1)]).await?;
        self.rpc("invalidateblock", &[first]).await?;
        // To another address each time, so that no block comes out as one that was just declared invalid.
        let program = sha256::Hash::hash(files::random_hex().as_bytes());
        let elsewhere = ScriptBuf::new_p2wsh(&bitcoin::WScriptHash::from_byte_array(program.to_byte_array()));
        let elsewhere = Address::from_script(&elsewhere, NETWORK).context("P2WSH has an address")?.to_string();
        for _ in 0..=blocks {
            self.rpc("generateblock", &[json!(elsewhere), json!([])]).await?;
        }
        Ok(())
    }

    /// Loses all that waits, as a mempool may.
    pub async fn forget_mempool(&self) -> Result<()> {
        self.stop()?;
        fs::remove_file(self.data.join("regtest/mempool.dat"))?;
        self.start().await
    }

    /// The block at a height, whole.
    pub async fn block(&self, height: u32) -> Result<bitcoin::Block> {
        let hash = self.rpc("getblockhash", &[json!(height)]).await?;
        let block = self.rpc("getblock", &[hash, json!(0)]).await?;
        Ok(deserialize_hex(block.as_str().context("a block")?)?)
    }

    /// Whether the output is in the best chain and no block spends it.
    pub async fn is_unspent(&self, outpoint: OutPoint) -> Result<bool> {
        let (txid, vout) = (json!(outpoint.txid.to_string()), json!(outpoint.vout));
        Ok(!self.rpc("gettxout", &[txid, vout, json!(false)]).await?.is_null())
    }

    /// A transaction that waits in the mempool.
    pub async fn unconfirmed(&self, txid: Txid) -> Result<Transaction> {
        let raw = self.rpc("getrawtransaction", &[json!(txid.to_string())]).await?;
        Ok(deserialize_hex(raw.as_str().context("a transaction")?)?)
    }

    pub async fn transactions_in_block(&self, height: u32) -> Result<Vec<Txid>> {
        let hash = self.rpc("getblockhash", &[json!(height)]).await?;
        let block = self.rpc("getblock", &[hash, json!(1)]).await?;
        Ok(serde_json::from_value(block["tx"].clone())?)
    }

    /// Pays all of `payments` in one transaction. It waits in the mempool: mine a block to confirm it.
    pub async fn pay(&self, payments: &[(Address, Amount)]) -> Result<Txid> {
        let transaction = self.faucet.pay(payments)?;
        self.rpc("sendrawtransaction", &[json!(serialize_hex(&transaction))]).await?;
        Ok(transaction.compute_txid())
    }

    /// Any RPC of Bitcoin Core.
    pub async fn rpc(&self, method: &str, parameters: &[Value]) -> Result<Value> {
        let credentials = BASE64_STANDARD.encode(format!("{RPC_USER}:{}", self.password));
        let endpoint = HttpEndpoint::for_host("127.0.0.1".into()).with_port(self.rpc_port());
        let answer = RpcClient::new(&credentials, endpoint).call_method::<Json>(method, parameters).await;
        Ok(answer.with_context(|| format!("bitcoind's {method}"))?.0)
    }

    async fn mine_to(&self, blocks: u32, address: &Address) -> Result<()> {
        self.rpc("generatetoaddress", &[json!(blocks), json!(address.to_string())]).await?;
        Ok(())
    }

    async fn fill_faucet(&self) -> Result<()> {
        const COINS: u32 = 4;
        self.mine_to(COINS, &self.faucet.address).await?;
        self.mine(MATURITY).await?;
        for height in 1..=COINS {
            self.faucet.add(&self.block(height).await?.txdata[0]);
        }
        Ok(())
    }
}

/// A key of its own and the coins it holds; every payment leaves one change output.
#[derive(Debug)]
struct Faucet {
    key: PrivateKey,
    address: Address,
    script: ScriptBuf,
    coins: Mutex<Vec<(OutPoint, TxOut)>>,
}

impl Faucet {
    fn new() -> Self {
        // Regtest coins are worth nothing: a fixed key is a key as good as any.
        let secret = SecretKey::from_slice(&[0x46; 32]).expect("a number below the curve's order");
        let key = PrivateKey::new(secret, NETWORK);
        let public = CompressedPublicKey::from_private_key(&Secp256k1::new(), &key).expect("the key is compressed");
        let address = Address::p2wpkh(&public, NETWORK);
        let script = address.script_pubkey();
        Self { key, address, script, coins: Mutex::default() }
    }

    fn add(&self, transaction: &Transaction) {
        let txid = transaction.compute_txid();
        let mut coins = self.coins.lock().unwrap_or_else(PoisonError::into_inner);
        for (vout, output) in (0..).zip(&transaction.output) {
            if output.script_pubkey == self.script {
                coins.push((OutPoint { txid, vout }, output.clone()));
            }
        }
    }

    fn pay(&self, payments: &[(Address, Amount)]) -> Result<Transaction> {
        const FEE: Amount = Amount::from_sat(10_000);
        let wanted: Amount = payments.iter().map(|(_, amount)| *amount).sum::<Amount>() + FEE;
        let mut taken = Vec::new();
        {
            let mut coins = self.coins.lock().unwrap_or_else(PoisonError::into_inner);
            while sum(&taken) < wanted {
                match coins.pop() {
                    Some(coin) => taken.push(coin),
                    None => bail!("the faucet has {} left and cannot pay {wanted}", sum(&taken)),
                }
            }
        }
        let mut output: Vec<TxOut> = payments
            .iter()
            .map(|(address, value)| TxOut { value: *value, script_pubkey: address.script_pubkey() })
            .collect();
        output.push(TxOut { value: sum(&taken) - wanted, script_pubkey: self.script.clone() });
        let input = taken
            .iter()
            .map(|(outpoint, _)| TxIn {
                previous_output: *outpoint,
                script_sig: ScriptBuf::new(),
                sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
                witness: Witness::new(),
            })
            .collect();
        let mut transaction = Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input, output };

        let secp = Secp256k1::new();
        let mut cache = SighashCache::new(&mut transaction);
        for (index, (_, spent)) in taken.iter().enumerate() {
            let hash = cache.p2wpkh_signature_hash(index, &self.script, spent.value, EcdsaSighashType::All)?;
            let signature = bitcoin::ecdsa::Signature::sighash_all(
                secp.sign_ecdsa(&Message::from_digest(hash.to_byte_array()), &self.key.inner),
            );
            let witness = Witness::p2wpkh(&signature, &self.key.inner.public_key(&secp));
            *cache.witness_mut(index).context("an input of this transaction")? = witness;
        }
        self.add(&transaction);
        Ok(transaction)
    }
}

fn sum(coins: &[(OutPoint, TxOut)]) -> Amount {
    coins.iter().map(|(_, output)| output.value).sum()
}

/// The RPC client's own conversion wants this.
struct Json(Value);

impl TryInto<Json> for JsonResponse {
    type Error = std::io::Error;

    fn try_into(self) -> Result<Json, Self::Error> {
        Ok(Json(self.0))
    }
}

/// A witness program that nobody can spend from.
fn burn_address() -> Address {
    let script = ScriptBuf::new_p2wsh(&bitcoin::WScriptHash::from_byte_array([0x42; 32]));
    Address::from_script(&script, NETWORK).expect("P2WSH has an address")
}

/// A line for `rpcauth=`, as Bitcoin Core's share/rpcauth/rpcauth.py makes it.
fn rpc_auth(user: &str, password: &str) -> String {
    let salt = files::random_hex();
    let mut engine = HmacEngine::<sha256::Hash>::new(salt.as_bytes());
    engine.input(password.as_bytes());
    format!("{user}:{salt}${}", Hmac::<sha256::Hash>::from_engine(engine))
}

/// What scripts/bitcoind.sh finds, or builds once.
fn program() -> Result<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/bitcoind.sh");
    let output = Command::new(&script)
        .stderr(std::process::Stdio::inherit())
        .output()
        .with_context(|| format!("running {}", script.display()))?;
    ensure!(output.status.success(), "{} found no bitcoind", script.display());
    Ok(PathBuf::from(String::from_utf8(output.stdout)?.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_faucet_pays_and_its_payments_confirm() {
        let folder = tempfile::tempdir().unwrap();
        let bitcoind = Bitcoind::create(folder.path(), folder.path()).await.unwrap();
        let height = bitcoind.height().await.unwrap();
        for round in 1..=3 {
            let payment = (burn_address(), Amount::from_sat(1_000_000));
            let txid = bitcoind.pay(&[payment.clone(), payment]).await.unwrap();
            assert_eq!(bitcoind.mempool().await.unwrap(), [txid]);
            bitcoind.mine(1).await.unwrap();
            assert_eq!(bitcoind.height().await.unwrap(), height + round);
            assert!(bitcoind.transactions_in_block(height + round).await.unwrap().contains(&txid));
        }
        bitcoind.stop().unwrap();
        assert!(bitcoind.height().await.is_err());
        bitcoind.start().await.unwrap();
        assert_eq!(bitcoind.height().await.unwrap(), height + 3);

        let third = bitcoind.block(height + 3).await.unwrap().txdata[1].compute_txid();
        bitcoind.reorganise(1).await.unwrap();
        assert_eq!(bitcoind.height().await.unwrap(), height + 4);
        assert_eq!(bitcoind.mempool().await.unwrap(), [third], "what was confirmed waits again");
    }
}
