//! The node's side: identity, randomness, destinations, and the maker of channel signers.

use std::sync::Arc;

use bitcoin::{
    Psbt, ScriptBuf, Transaction, TxOut, Witness,
    absolute::LockTime,
    consensus::{Decodable, serialize},
    secp256k1::{
        All, PublicKey, Scalar, Secp256k1,
        ecdh::SharedSecret,
        ecdsa::{RecoverableSignature, RecoveryId, Signature},
        schnorr,
    },
};
use holdfast_proto::{
    error::Error,
    lightning::{parameters_to_ldk, parse, spendable_to_wire},
    signer::v1::{self, sign_gossip_request::Message as Gossip},
    tls::Credentials,
};
use lightning::{
    ln::{
        chan_utils::ChannelTransactionParameters, inbound_payment::ExpandedKey, msgs::UnsignedGossipMessage,
        script::ShutdownScript,
    },
    offers::invoice::UnsignedBolt12Invoice,
    sign::{
        EntropySource, NodeSigner, OutputSpender, PeerStorageKey, ReceiveAuthKey, Recipient, SignerProvider,
        SpendableOutputDescriptor,
    },
    util::ser::Writeable,
};
use lightning_invoice::RawBolt11Invoice;
use zeroize::Zeroizing;

use crate::{
    channel::{RemoteChannelSigner, without_witnesses},
    ecdh::{Ahead, Promise},
    grpc::Grpc,
    metrics::Metrics,
    points::Channels,
    session::{ClientConfig, Options, Session, not_ours},
    transport::Transport,
};

/// A node's keys, which are in a signer. Cheap to clone.
#[derive(Clone)]
pub struct RemoteKeys(Arc<Inner>);

struct Inner {
    session: Arc<Session>,
    info: v1::GetNodeInfoResponse,
    node_id: PublicKey,
    inbound_payment_key: ExpandedKey,
    peer_storage_key: PeerStorageKey,
    receive_auth_key: ReceiveAuthKey,
    destination_script: ScriptBuf,
    shutdown_script: ShutdownScript,
    destinations: Destinations,
    channels: Channels,
    ahead: Arc<Ahead>,
}

/// Where money that comes back from channels goes.
#[derive(Clone)]
pub enum Destinations {
    /// To the two scripts that LDK's `KeysManager` would use, whose keys the signer has. `spend_spendable_outputs` can
    /// spend them.
    Signer,
    /// To scripts of a wallet, which the signer must know to be ours.
    Source(Arc<dyn DestinationSource>),
}

/// A wallet that gives out scripts to pay to. An `Err` is what LDK makes of it: the channel does not open, or not close.
#[allow(clippy::result_unit_err)] // LDK's traits, which these answers go to, know no other error.
pub trait DestinationSource: Send + Sync {
    fn destination_script(&self, channel_keys_id: [u8; 32]) -> Result<ScriptBuf, ()>;
    fn shutdown_script(&self) -> Result<ShutdownScript, ()>;
}

impl<D: DestinationSource + 'static> From<Arc<D>> for Destinations {
    fn from(source: Arc<D>) -> Self {
        Self::Source(source)
    }
}

impl From<Arc<dyn DestinationSource>> for Destinations {
    fn from(source: Arc<dyn DestinationSource>) -> Self {
        Self::Source(source)
    }
}

impl RemoteKeys {
    /// Connects to the first signer that answers, and asks who it is. `term` stands in every request: the leader's, which
    /// was announced before. Blocks, at most until the config's deadline.
    pub fn connect(
        config: ClientConfig,
        credentials: Credentials,
        term: u64,
        destinations: impl Into<Destinations>,
    ) -> Result<Self, Error> {
        let grpc = Grpc::new(&config.endpoints, &credentials)?;
        Self::over(Arc::new(grpc), config.options(), term, destinations)
    }

    /// As [`Self::connect`], over a transport that is there already: one that a standby kept warm, or a test's.
    pub fn over(
        transport: Arc<dyn Transport>,
        options: Options,
        term: u64,
        destinations: impl Into<Destinations>,
    ) -> Result<Self, Error> {
        let session = Session::new(transport, options, term);
        let info = session.attempt("get_node_info", |signer| signer.get_node_info(v1::GetNodeInfoRequest {}))?;
        let request = v1::GetReplicaSecretsRequest { term };
        let secrets = session.attempt("get_replica_secrets", |signer| signer.get_replica_secrets(request))?;
        let inner = Inner::new(session, info, secrets, destinations.into()).map_err(not_ours)?;
        Ok(Self(Arc::new(inner)))
    }

    pub fn node_id(&self) -> PublicKey {
        self.0.node_id
    }

    /// What the signer said of itself when we connected.
    pub fn info(&self) -> &v1::GetNodeInfoResponse {
        &self.0.info
    }

    /// The scripts, beside the node's own, that the signer lets a cooperative close pay to. Asked anew, for they are the
    /// signer's configuration. Blocks.
    pub fn close_destinations(&self) -> Result<Vec<ScriptBuf>, Error> {
        let ask = |signer: &dyn Transport| signer.get_node_info(v1::GetNodeInfoRequest {});
        let info = self.attempt("get_node_info", ask)?;
        Ok(info.close_destinations.into_iter().map(ScriptBuf::from_bytes).collect())
    }

    pub fn metrics(&self) -> &Metrics {
        &self.0.session.metrics
    }

    /// Has the signer sign those inputs of the PSBT that are the wallet's. Blocks.
    pub fn sign_wallet_psbt(&self, psbt: &Psbt) -> Result<Psbt, Error> {
        let request = v1::SignWalletPsbtRequest { term: self.0.session.term, psbt: psbt.serialize() };
        self.attempt("sign_wallet_psbt", |signer| {
            let answer = signer.sign_wallet_psbt(request.clone())?;
            let signed = Psbt::deserialize(&answer.psbt).map_err(|e| Error::Internal(format!("signed PSBT: {e}")))?;
            if signed.unsigned_tx != psbt.unsigned_tx {
                return Err(Error::Internal("the signed PSBT is of another transaction".into()));
            }
            Ok(signed)
        })
    }

    /// What the signer's guard knows of a channel. Blocks.
    pub fn channel_state(&self, channel_keys_id: [u8; 32]) -> Result<v1::GetChannelStateResponse, Error> {
        let request = v1::GetChannelStateRequest { channel_keys_id: channel_keys_id.to_vec(), with_parameters: false };
        self.attempt("get_channel_state", |signer| signer.get_channel_state(request.clone()))
    }

    /// The parameters that the signer's guard has of a channel's funding outputs: none if it has no record of it. Blocks.
    pub fn recorded_parameters(&self, channel_keys_id: [u8; 32]) -> Result<Vec<ChannelTransactionParameters>, Error> {
        let request = v1::GetChannelStateRequest { channel_keys_id: channel_keys_id.to_vec(), with_parameters: true };
        let state = self.attempt("get_channel_state", |signer| signer.get_channel_state(request.clone()))?;
        let funding = |of: &v1::RegisteredFunding| {
            let outpoint = parse::outpoint("outpoint", parse::required("outpoint", &of.outpoint)?)?;
            parameters_to_ldk("parameters", parse::required("parameters", &of.parameters)?, outpoint)
        };
        state.fundings.iter().map(funding).collect::<Result<_, _>>().map_err(not_ours)
    }

    /// Asks for the shared secrets of points that LDK will ask for soon: the onions of HTLCs that just arrived. Does not
    /// wait.
    pub fn prefetch_ecdh(&self, points: impl IntoIterator<Item = PublicKey>) {
        for point in points {
            if !self.0.ahead.note(point) {
                continue;
            }
            let promise = Promise::new(self.0.ahead.clone(), point);
            let request = self.ecdh_request(&point, None);
            let keep = move |answer: Result<v1::EcdhResponse, Error>| {
                promise.keep(answer.and_then(|answer| shared_secret(answer.shared_secret)).ok());
            };
            self.0.session.transport().ecdh_ahead(request, Box::new(keep));
        }
    }

    /// A call of our own. Its failure is the caller's to handle, but for the end of our term.
    fn attempt<T>(&self, call: &'static str, attempt: impl Fn(&dyn Transport) -> Result<T, Error>) -> Result<T, Error> {
        match self.0.session.attempt(call, attempt) {
            Err(Error::StaleTerm { newest }) => self.0.session.end(crate::Fatal::StaleTerm { newest }),
            other => other,
        }
    }

    fn ecdh_request(&self, point: &PublicKey, tweak: Option<&Scalar>) -> v1::EcdhRequest {
        v1::EcdhRequest {
            term: self.0.session.term,
            point: point.serialize().to_vec(),
            tweak: tweak.map(|tweak| tweak.to_be_bytes().to_vec()),
        }
    }
}

impl Inner {
    fn new(
        session: Session,
        info: v1::GetNodeInfoResponse,
        secrets: v1::GetReplicaSecretsResponse,
        destinations: Destinations,
    ) -> Result<Self, Error> {
        let secret = |field: &str, bytes: Vec<u8>| {
            let bytes = Zeroizing::new(bytes);
            parse::array::<32>(field, &bytes)
        };
        let shutdown = parse::script("shutdown_script", &info.shutdown_script)?;
        Ok(Self {
            node_id: parse::public_key("node_id", &info.node_id)?,
            inbound_payment_key: ExpandedKey::new(secret("inbound_payment_key", secrets.inbound_payment_key)?),
            peer_storage_key: PeerStorageKey { inner: secret("peer_storage_key", secrets.peer_storage_key)? },
            receive_auth_key: ReceiveAuthKey(secret("receive_auth_key", secrets.receive_auth_key)?),
            destination_script: parse::script("destination_script", &info.destination_script)?,
            shutdown_script: ShutdownScript::try_from(shutdown)
                .map_err(|_| Error::misuse("shutdown_script", "is not one of BOLT 2's forms"))?,
            destinations,
            channels: Channels::default(),
            ahead: Arc::default(),
            info,
            session: Arc::new(session),
        })
    }
}

impl EntropySource for RemoteKeys {
    fn get_secure_random_bytes(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        // Linux's getrandom cannot fail once the machine has booted; and without it nothing may go on.
        getrandom::fill(&mut bytes).expect("the kernel has randomness");
        bytes
    }
}

impl NodeSigner for RemoteKeys {
    fn get_expanded_key(&self) -> ExpandedKey {
        self.0.inbound_payment_key
    }

    fn get_peer_storage_key(&self) -> PeerStorageKey {
        self.0.peer_storage_key
    }

    fn get_receive_auth_key(&self) -> ReceiveAuthKey {
        self.0.receive_auth_key
    }

    fn get_node_id(&self, recipient: Recipient) -> Result<PublicKey, ()> {
        ours(recipient)?;
        Ok(self.0.node_id)
    }

    /// LDK panics on an `Err` while it peels onions, so there is none.
    fn ecdh(&self, recipient: Recipient, other_key: &PublicKey, tweak: Option<&Scalar>) -> Result<SharedSecret, ()> {
        ours(recipient)?;
        if tweak.is_none()
            && let Some(secret) = self.0.ahead.get(other_key)
        {
            self.metrics().ecdh_was_ahead();
            return Ok(SharedSecret::from_bytes(*secret));
        }
        let request = self.ecdh_request(other_key, tweak);
        let secret = self.0.session.demand("ecdh", |signer| shared_secret(signer.ecdh(request.clone())?.shared_secret));
        Ok(SharedSecret::from_bytes(*secret))
    }

    fn sign_invoice(&self, invoice: &RawBolt11Invoice, recipient: Recipient) -> Result<RecoverableSignature, ()> {
        ours(recipient)?;
        let unsigned = RecoveryId::from_i32(0).and_then(|id| RecoverableSignature::from_compact(&[0; 64], id));
        let text = invoice.clone().sign(|_| unsigned).map_err(|_| ())?.to_string();
        let request = v1::SignInvoiceRequest { term: self.0.session.term, invoice: text };
        let signed = self.0.session.ask("sign_invoice", |signer| {
            let answer = signer.sign_invoice(request.clone())?;
            let recovery_id = i32::try_from(answer.recovery_id).unwrap_or(-1);
            RecoveryId::from_i32(recovery_id)
                .and_then(|id| RecoverableSignature::from_compact(&answer.signature, id))
                .map_err(|e| Error::Internal(format!("the invoice's signature: {e}")))
        });
        signed.map_err(|_| ())
    }

    /// An invoice for an offer with the node's own id needs a Schnorr signature, which no HSM makes with this curve. LDK's
    /// offers use keys derived for each, which need no signer; this is reached only for offers made otherwise.
    fn sign_bolt12_invoice(&self, _invoice: &UnsignedBolt12Invoice) -> Result<schnorr::Signature, ()> {
        tracing::error!("refused to sign a BOLT 12 invoice with the node's key: make offers with derived keys");
        Err(())
    }

    fn sign_gossip_message(&self, message: UnsignedGossipMessage) -> Result<Signature, ()> {
        let (cannot_be_refused, message) = match &message {
            UnsignedGossipMessage::ChannelAnnouncement(of) => (false, Gossip::ChannelAnnouncement(of.encode())),
            // LDK panics on an Err here.
            UnsignedGossipMessage::ChannelUpdate(of) => (true, Gossip::ChannelUpdate(of.encode())),
            UnsignedGossipMessage::NodeAnnouncement(of) => (false, Gossip::NodeAnnouncement(of.encode())),
        };
        let request = v1::SignGossipRequest { term: self.0.session.term, message: Some(message) };
        let sign = |signer: &dyn Transport| signature(signer.sign_gossip(request.clone())?);
        if cannot_be_refused {
            Ok(self.0.session.demand("sign_gossip", sign))
        } else {
            self.0.session.ask("sign_gossip", sign).map_err(|_| ())
        }
    }

    fn sign_message(&self, message: &[u8]) -> Result<String, ()> {
        let request = v1::SignMessageRequest { term: self.0.session.term, message: message.to_vec() };
        let signed = self.0.session.ask("sign_message", |signer| signer.sign_message(request.clone()));
        signed.map(|answer| answer.signature).map_err(|_| ())
    }
}

impl SignerProvider for RemoteKeys {
    type EcdsaSigner = RemoteChannelSigner;

    /// Random: the signer refuses an id that was used before, so no counter has to survive a restart.
    fn generate_channel_keys_id(&self, _inbound: bool, _user_channel_id: u128) -> [u8; 32] {
        self.get_secure_random_bytes()
    }

    /// A handle: nothing is asked of the signer until LDK uses it.
    fn derive_channel_signer(&self, channel_keys_id: [u8; 32]) -> RemoteChannelSigner {
        let known = self.0.channels.of(channel_keys_id);
        RemoteChannelSigner::new(self.0.session.clone(), known, channel_keys_id)
    }

    fn get_destination_script(&self, channel_keys_id: [u8; 32]) -> Result<ScriptBuf, ()> {
        match &self.0.destinations {
            Destinations::Signer => Ok(self.0.destination_script.clone()),
            Destinations::Source(source) => source.destination_script(channel_keys_id),
        }
    }

    fn get_shutdown_scriptpubkey(&self) -> Result<ShutdownScript, ()> {
        match &self.0.destinations {
            Destinations::Signer => Ok(self.0.shutdown_script.clone()),
            Destinations::Source(source) => source.shutdown_script(),
        }
    }
}

impl OutputSpender for RemoteKeys {
    fn spend_spendable_outputs(
        &self,
        descriptors: &[&SpendableOutputDescriptor],
        outputs: Vec<TxOut>,
        change_destination_script: ScriptBuf,
        feerate_sat_per_1000_weight: u32,
        locktime: Option<LockTime>,
        secp: &Secp256k1<All>,
    ) -> Result<Transaction, ()> {
        let (psbt, _) = SpendableOutputDescriptor::create_spendable_outputs_psbt(
            secp,
            descriptors,
            outputs,
            change_destination_script,
            feerate_sat_per_1000_weight,
            locktime,
        )?;
        let mut transaction = psbt.unsigned_tx;
        let spent = descriptors.iter().map(|descriptor| spendable_to_wire(descriptor)).collect::<Result<Vec<_>, _>>();
        let request = v1::SignSpendableOutputsRequest {
            term: self.0.session.term,
            outputs: spent.map_err(|error| tracing::error!(%error, "an output cannot be swept"))?,
            transaction: serialize(&without_witnesses(&transaction)),
        };
        let witnesses = self.0.session.ask("sign_spendable_outputs", |signer| {
            let answer = signer.sign_spendable_outputs(request.clone())?;
            if answer.witnesses.len() != descriptors.len() {
                return Err(Error::Internal("the sweep's witnesses are not as many as its inputs".into()));
            }
            let witness = |bytes: &Vec<u8>| {
                Witness::consensus_decode(&mut bytes.as_slice())
                    .map_err(|e| Error::Internal(format!("a sweep's witness: {e}")))
            };
            answer.witnesses.iter().map(witness).collect::<Result<Vec<_>, _>>()
        });
        // LDK's PSBT spends the descriptors in their order.
        for (input, witness) in transaction.input.iter_mut().zip(witnesses.map_err(|_| ())?) {
            input.witness = witness;
        }
        Ok(transaction)
    }
}

/// There is no phantom node here.
fn ours(recipient: Recipient) -> Result<(), ()> {
    match recipient {
        Recipient::Node => Ok(()),
        Recipient::PhantomNode => Err(()),
    }
}

fn shared_secret(bytes: Vec<u8>) -> Result<Zeroizing<[u8; 32]>, Error> {
    let bytes = Zeroizing::new(bytes);
    parse::array("shared_secret", &bytes).map(Zeroizing::new).map_err(not_ours)
}

/// The signer's answer, which is wrong through no fault of ours if it is not a signature.
pub(crate) fn signature(answer: v1::SignatureResponse) -> Result<Signature, Error> {
    parse::signature("signature", &answer.signature).map_err(not_ours)
}
