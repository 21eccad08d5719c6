//! LDK's functional tests with `RemoteKeys` in the place of LDK's own keys: 139 stories of payments, closes, breaches and
//! splices, each transaction of which is checked by Bitcoin's script interpreter.
//!
//! What they prove is the cryptography and the words of the contract: every request goes through the wire's messages, and
//! what is signed is what LDK expected. They prove nothing of the signer's state rules, and cannot: LDK's test signer does
//! not pass on the two validating calls, and some tests sign revoked states on purpose. So the calls that the guard
//! decides are answered here by the signer's keys alone ([`Unguarded`]); all others by the signer as it is.
//!
//! `LDK_TEST=<name>` runs one of them and shows its log.

use std::{
    any::Any,
    panic::{self, AssertUnwindSafe},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use bitcoin::{
    Network, ScriptBuf, Transaction, TxOut, Txid,
    absolute::LockTime,
    consensus::deserialize,
    secp256k1::{
        All, PublicKey, Scalar, Secp256k1, SecretKey,
        ecdh::SharedSecret,
        ecdsa::{RecoverableSignature, Signature},
        schnorr,
    },
};
use holdfast_proto::{
    identity::{Identity, Role},
    lightning::{ChannelRef, CommitmentFields, CommitmentNumber, htlc_to_ldk, parameters_to_ldk, parse},
};
use holdfast_signer::{
    custody::{Custody, CustodyError, NodeIdentity, Seed},
    guard::EmbeddedStore,
    keys::{ChannelKeys, HolderHtlc, NodeKeys, SeedIdentity},
    rules::{Blocks, RulesConfig},
    service::SignerCore,
};
use holdfast_signer_client::{
    Destinations, Error, Options, RemoteChannelSigner, RemoteKeys, Transport, for_each_call, v1,
};
use lightning::{
    ln::{
        chan_utils::{
            ChannelPublicKeys, ChannelTransactionParameters, ClosingTransaction, CommitmentTransaction,
            HTLCOutputInCommitment, HolderCommitmentTransaction,
        },
        inbound_payment::ExpandedKey,
        msgs::{UnsignedChannelAnnouncement, UnsignedGossipMessage},
        script::ShutdownScript,
    },
    offers::invoice::UnsignedBolt12Invoice,
    sign::{
        ChannelSigner, EntropySource, HTLCDescriptor, NodeSigner, OutputSpender, PeerStorageKey, PhantomKeysManager,
        ReceiveAuthKey, Recipient, SignerProvider, SpendableOutputDescriptor, ecdsa::EcdsaChannelSigner,
    },
    types::payment::PaymentPreimage,
    util::{
        dyn_signer::{DynKeysInterfaceTrait, DynSigner, DynSignerTrait, InnerSign},
        test_utils::{SIGNER_FACTORY, TestSignerFactory},
    },
};
use lightning_invoice::RawBolt11Invoice;
use zeroize::Zeroizing;

/// How many tests `lightning` 0.2.7 ships. Fewer would mean that they are not found any more.
const SHIPPED: usize = 139;

/// Tests that must fail, because Holdfast refuses what they do.
const REFUSED: [(&str, &str); 1] = [(
    "test_multiple_package_conflicts",
    "its second half opens a channel with zero-fee commitments, a type that the contract has no name for",
)];

#[test]
fn ldks_functional_tests_pass_on_the_signers_keys() {
    SIGNER_FACTORY.set(Arc::new(Factory));
    let tests = lightning::get_xtests();
    assert_eq!(tests.len(), SHIPPED);

    let only = std::env::var("LDK_TEST").ok();
    let chosen: Vec<_> = tests.iter().filter(|test| only.as_ref().is_none_or(|name| test.test_name == *name)).collect();
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(Vec::new());
    if only.is_none() {
        // Tests that must panic would fill the screen with backtraces.
        panic::set_hook(Box::new(|_| {}));
    }
    let started = Instant::now();
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(2, |n| n.get()) {
            scope.spawn(|| {
                while let Some(test) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let refused = REFUSED.iter().find(|(name, _)| *name == test.test_name);
                    let panicked = panic::catch_unwind(AssertUnwindSafe(test.test_fn)).err();
                    if panicked.is_some() != (test.should_panic || refused.is_some()) {
                        let unexpected = refused.map_or("it should have panicked", |(_, why)| why);
                        let why = panicked.map_or_else(|| format!("passed: {unexpected}"), message);
                        failed.lock().unwrap().push(format!("{}: {why}", test.test_name));
                    }
                }
            });
        }
    });
    drop(panic::take_hook());
    let failed = failed.into_inner().unwrap();
    println!("{} of {} passed in {:?}", chosen.len() - failed.len(), chosen.len(), started.elapsed());
    assert!(failed.is_empty(), "{} failed:\n{}", failed.len(), failed.join("\n"));
}

fn message(panic: Box<dyn Any + Send>) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string())).unwrap_or_default()
}

struct Factory;

impl TestSignerFactory for Factory {
    fn make_signer(
        &self,
        seed: &[u8; 32],
        now: Duration,
        v2_remote_key_derivation: bool,
    ) -> Box<dyn DynKeysInterfaceTrait<EcdsaSigner = DynSigner>> {
        let (secs, nanos) = (now.as_secs(), now.subsec_nanos());
        let local = PhantomKeysManager::new(seed, secs, nanos, seed, v2_remote_key_derivation);
        let options = Options { deadline: Duration::from_secs(1), on_fatal: Arc::new(|fatal| panic!("{fatal}")) };
        let remote = RemoteKeys::over(Arc::new(Unguarded::new(*seed)), options, 1, Destinations::Signer).unwrap();
        Box::new(Keys { remote, local })
    }
}

/// The signer, but for its guard.
struct Unguarded {
    core: SignerCore,
    keys: NodeKeys,
    caller: Identity,
    fundings: Mutex<Vec<(v1::ChannelRef, v1::ChannelParameters)>>,
}

impl Unguarded {
    fn new(seed: [u8; 32]) -> Self {
        let custody = Arc::new(Known(seed, Arc::new(SeedIdentity::new(&Zeroizing::new(seed)).unwrap())));
        let any = Blocks { min: 0, max: u16::MAX };
        let rules = RulesConfig { holder_contest_delay: any, counterparty_contest_delay: any, ..Default::default() };
        let guard = Arc::new(EmbeddedStore::in_memory().unwrap());
        let core = SignerCore::new(custody, Network::Testnet, guard, rules).unwrap();
        let caller = Identity::new("test", Role::Replica, "ldk").unwrap();
        core.announce_term(&caller, v1::AnnounceTermRequest { term: 1 }).unwrap();
        let keys = NodeKeys::new(Zeroizing::new(seed), Network::Testnet).unwrap();
        Self { core, keys, caller, fundings: Mutex::default() }
    }

    fn channel(
        &self,
        wire: &Option<v1::ChannelRef>,
    ) -> Result<(ChannelKeys, ChannelTransactionParameters, ChannelRef), Error> {
        let wire = parse::required("channel", wire)?;
        let of = ChannelRef::from_wire("channel", wire)?;
        let fundings = self.fundings.lock().unwrap();
        let known = fundings.iter().find(|(channel, _)| channel == wire);
        let (_, parameters) = known.ok_or_else(|| Error::misuse("channel", "is not registered"))?;
        Ok((self.keys.channel(&of.keys_id), parameters_to_ldk("parameters", parameters, of.funding)?, of))
    }
}

/// Calls that the guard decides are answered by the keys; the others by the signer.
macro_rules! answer {
    ($self:ident, register_funding, $request:ident) => {{
        let registered = ($request.channel.clone().unwrap(), $request.parameters.clone().unwrap());
        $self.fundings.lock().unwrap().push(registered);
        Ok(v1::RegisterFundingResponse {})
    }};
    ($self:ident, sign_counterparty_commitment, $request:ident) => {{
        let (keys, parameters, _) = $self.channel(&$request.channel)?;
        let fields = CommitmentFields::from_wire("commitment", parse::required("commitment", &$request.commitment)?)?;
        let built = fields.build(&parameters.as_counterparty_broadcastable(), &Secp256k1::new())?;
        let signed = keys.sign_counterparty_commitment(&parameters, &built)?;
        Ok(v1::SignCounterpartyCommitmentResponse {
            signature: signed.commitment.serialize_compact().to_vec(),
            htlc_signatures: signed.htlcs.iter().map(|htlc| htlc.serialize_compact().to_vec()).collect(),
        })
    }};
    ($self:ident, release_commitment_secret, $request:ident) => {{
        let keys = $self.keys.channel(&parse::array("channel_keys_id", &$request.channel_keys_id)?);
        let number = CommitmentNumber::new("number", $request.number)?;
        Ok(v1::ReleaseCommitmentSecretResponse { secret: keys.per_commitment_secret(number).to_vec() })
    }};
    ($self:ident, sign_holder_commitment, $request:ident) => {{
        let (keys, parameters, _) = $self.channel(&$request.channel)?;
        let fields = CommitmentFields::from_wire("commitment", parse::required("commitment", &$request.commitment)?)?;
        let built = fields.build(&parameters.as_holder_broadcastable(), &Secp256k1::new())?;
        answered(keys.sign_holder_commitment(&parameters, &built)?)
    }};
    ($self:ident, sign_holder_htlc, $request:ident) => {{
        let (keys, parameters, _) = $self.channel(&$request.channel)?;
        let request = HolderHtlc {
            transaction: &transaction(&$request.transaction),
            input: $request.input_index as usize,
            number: CommitmentNumber::new("commitment_number", $request.commitment_number)?,
            commitment_txid: parse::txid("commitment_txid", &$request.commitment_txid)?,
            feerate_sat_per_kw: $request.feerate_sat_per_kw,
            htlc: htlc_to_ldk("htlc", parse::required("htlc", &$request.htlc)?)?,
        };
        answered(keys.sign_holder_htlc(&parameters, &request)?)
    }};
    ($self:ident, sign_counterparty_htlc, $request:ident) => {{
        let (keys, parameters, _) = $self.channel(&$request.channel)?;
        let point = parse::public_key("per_commitment_point", &$request.per_commitment_point)?;
        let htlc = htlc_to_ldk("htlc", parse::required("htlc", &$request.htlc)?)?;
        let amount = parse::amount("amount_sat", $request.amount_sat)?;
        let (transaction, input) = (transaction(&$request.transaction), $request.input_index as usize);
        answered(keys.sign_counterparty_htlc(&parameters, &transaction, input, amount, &point, &htlc)?)
    }};
    ($self:ident, sign_justice, $request:ident) => {{
        let (keys, parameters, _) = $self.channel(&$request.channel)?;
        let secret = parse::secret_key("per_commitment_secret", &$request.per_commitment_secret)?;
        let htlc = $request.htlc.as_ref().map(|htlc| htlc_to_ldk("htlc", htlc)).transpose()?;
        let amount = parse::amount("amount_sat", $request.amount_sat)?;
        let (transaction, input) = (transaction(&$request.transaction), $request.input_index as usize);
        let secret = holdfast_signer::keys::Secret::new(secret);
        answered(keys.sign_justice(&parameters, &transaction, input, amount, &secret, htlc.as_ref())?)
    }};
    ($self:ident, sign_holder_anchor, $request:ident) => {{
        let (keys, parameters, _) = $self.channel(&$request.channel)?;
        let transaction = transaction(&$request.transaction);
        answered(keys.sign_anchor(&parameters, &transaction, $request.input_index as usize)?)
    }};
    ($self:ident, sign_closing, $request:ident) => {{
        let (keys, parameters, _) = $self.channel(&$request.channel)?;
        answered(keys.sign_closing(&parameters, &holdfast_proto::lightning::closing_to_ldk(&$request, &parameters)?)?)
    }};
    ($self:ident, sign_splice_input, $request:ident) => {{
        let (keys, parameters, _) = $self.channel(&$request.channel)?;
        let transaction = transaction(&$request.transaction);
        answered(keys.sign_splice_input(&parameters, &transaction, $request.input_index as usize)?)
    }};
    ($self:ident, sign_channel_announcement, $request:ident) => {{
        // The signer wants to know the channel; the guard of this one is asked for nothing else.
        let (_, _, of) = $self.channel(&$request.channel)?;
        let fundings = $self.fundings.lock().unwrap();
        let known = fundings.iter().find(|(channel, _)| *channel == of.to_wire());
        let parameters = known.map(|(_, parameters)| parameters.clone());
        let register = v1::RegisterFundingRequest { term: 1, channel: Some(of.to_wire()), parameters };
        $self.core.register_funding(&$self.caller, register)?;
        $self.core.sign_channel_announcement(&$self.caller, $request)
    }};
    ($self:ident, $call:ident, $request:ident) => {
        $self.core.$call(&$self.caller, $request)
    };
}

macro_rules! unguarded {
    ($($call:ident($request:ident) -> $response:ident;)*) => {
        impl Transport for Unguarded {
            $(fn $call(&self, request: v1::$request) -> Result<v1::$response, Error> {
                answer!(self, $call, request)
            })*
        }
    };
}

for_each_call!(unguarded);

fn answered(signature: Signature) -> Result<v1::SignatureResponse, Error> {
    Ok(v1::SignatureResponse { signature: signature.serialize_compact().to_vec() })
}

fn transaction(bytes: &[u8]) -> Transaction {
    deserialize(bytes).unwrap()
}

/// Custody of a seed that the test knows.
struct Known([u8; 32], Arc<SeedIdentity>);

impl Custody for Known {
    fn backend(&self) -> &'static str {
        "file"
    }
    fn identity(&self) -> Arc<dyn NodeIdentity> {
        self.1.clone()
    }
    fn identity_in_token(&self) -> bool {
        false
    }
    fn unseal(&self) -> Result<Seed, CustodyError> {
        Ok(Zeroizing::new(self.0))
    }
    fn self_test(&self) -> Result<(), CustodyError> {
        Ok(())
    }
}

/// `RemoteKeys`, with LDK's own for what Holdfast does not do: phantom nodes (which bring their own payment key), BOLT 12
/// invoices by the node's key, and the tests' repeatable randomness.
struct Keys {
    remote: RemoteKeys,
    local: PhantomKeysManager,
}

impl DynKeysInterfaceTrait for Keys {}

impl EntropySource for Keys {
    fn get_secure_random_bytes(&self) -> [u8; 32] {
        self.local.get_secure_random_bytes()
    }
}

impl NodeSigner for Keys {
    fn get_expanded_key(&self) -> ExpandedKey {
        self.local.get_expanded_key()
    }
    fn get_peer_storage_key(&self) -> PeerStorageKey {
        self.remote.get_peer_storage_key()
    }
    fn get_receive_auth_key(&self) -> ReceiveAuthKey {
        self.remote.get_receive_auth_key()
    }
    fn get_node_id(&self, recipient: Recipient) -> Result<PublicKey, ()> {
        self.remote.get_node_id(recipient).or_else(|()| self.local.get_node_id(recipient))
    }
    fn ecdh(&self, recipient: Recipient, other_key: &PublicKey, tweak: Option<&Scalar>) -> Result<SharedSecret, ()> {
        self.remote.ecdh(recipient, other_key, tweak).or_else(|()| self.local.ecdh(recipient, other_key, tweak))
    }
    fn sign_invoice(&self, invoice: &RawBolt11Invoice, recipient: Recipient) -> Result<RecoverableSignature, ()> {
        match recipient {
            Recipient::Node => self.remote.sign_invoice(invoice, recipient),
            Recipient::PhantomNode => self.local.sign_invoice(invoice, recipient),
        }
    }
    fn sign_bolt12_invoice(&self, invoice: &UnsignedBolt12Invoice) -> Result<schnorr::Signature, ()> {
        self.local.sign_bolt12_invoice(invoice)
    }
    fn sign_gossip_message(&self, message: UnsignedGossipMessage) -> Result<Signature, ()> {
        self.remote.sign_gossip_message(message)
    }
    fn sign_message(&self, message: &[u8]) -> Result<String, ()> {
        self.remote.sign_message(message)
    }
}

impl SignerProvider for Keys {
    type EcdsaSigner = DynSigner;

    fn generate_channel_keys_id(&self, inbound: bool, user_channel_id: u128) -> [u8; 32] {
        self.local.generate_channel_keys_id(inbound, user_channel_id)
    }
    fn derive_channel_signer(&self, channel_keys_id: [u8; 32]) -> DynSigner {
        DynSigner::new(Remote(self.remote.derive_channel_signer(channel_keys_id)))
    }
    fn get_destination_script(&self, channel_keys_id: [u8; 32]) -> Result<ScriptBuf, ()> {
        self.remote.get_destination_script(channel_keys_id)
    }
    fn get_shutdown_scriptpubkey(&self) -> Result<ShutdownScript, ()> {
        self.remote.get_shutdown_scriptpubkey()
    }
}

impl OutputSpender for Keys {
    fn spend_spendable_outputs(
        &self,
        descriptors: &[&SpendableOutputDescriptor],
        outputs: Vec<TxOut>,
        change: ScriptBuf,
        feerate: u32,
        locktime: Option<LockTime>,
        secp: &Secp256k1<All>,
    ) -> Result<Transaction, ()> {
        self.remote.spend_spendable_outputs(descriptors, outputs, change, feerate, locktime, secp)
    }
}

/// A newtype, because LDK's test traits are not ours to implement for another crate's type.
#[derive(Clone)]
struct Remote(RemoteChannelSigner);

impl DynSignerTrait for Remote {}

impl InnerSign for Remote {
    fn box_clone(&self) -> Box<dyn InnerSign> {
        Box::new(self.clone())
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl ChannelSigner for Remote {
    fn get_per_commitment_point(&self, idx: u64, secp: &Secp256k1<All>) -> Result<PublicKey, ()> {
        self.0.get_per_commitment_point(idx, secp)
    }
    fn release_commitment_secret(&self, idx: u64) -> Result<[u8; 32], ()> {
        self.0.release_commitment_secret(idx)
    }
    fn validate_holder_commitment(
        &self,
        holder_tx: &HolderCommitmentTransaction,
        preimages: Vec<PaymentPreimage>,
    ) -> Result<(), ()> {
        self.0.validate_holder_commitment(holder_tx, preimages)
    }
    fn validate_counterparty_revocation(&self, idx: u64, secret: &SecretKey) -> Result<(), ()> {
        self.0.validate_counterparty_revocation(idx, secret)
    }
    fn pubkeys(&self, secp: &Secp256k1<All>) -> ChannelPublicKeys {
        self.0.pubkeys(secp)
    }
    fn new_funding_pubkey(&self, splice_parent_funding_txid: Txid, secp: &Secp256k1<All>) -> PublicKey {
        self.0.new_funding_pubkey(splice_parent_funding_txid, secp)
    }
    fn channel_keys_id(&self) -> [u8; 32] {
        self.0.channel_keys_id()
    }
}

type Parameters = ChannelTransactionParameters;

impl EcdsaChannelSigner for Remote {
    fn sign_counterparty_commitment(
        &self,
        parameters: &Parameters,
        commitment: &CommitmentTransaction,
        inbound: Vec<PaymentPreimage>,
        outbound: Vec<PaymentPreimage>,
        secp: &Secp256k1<All>,
    ) -> Result<(Signature, Vec<Signature>), ()> {
        self.0.sign_counterparty_commitment(parameters, commitment, inbound, outbound, secp)
    }
    fn sign_holder_commitment(
        &self,
        parameters: &Parameters,
        commitment: &HolderCommitmentTransaction,
        secp: &Secp256k1<All>,
    ) -> Result<Signature, ()> {
        self.0.sign_holder_commitment(parameters, commitment, secp)
    }
    fn unsafe_sign_holder_commitment(
        &self,
        parameters: &Parameters,
        commitment: &HolderCommitmentTransaction,
        secp: &Secp256k1<All>,
    ) -> Result<Signature, ()> {
        self.0.sign_holder_commitment(parameters, commitment, secp)
    }
    fn sign_justice_revoked_output(
        &self,
        parameters: &Parameters,
        tx: &Transaction,
        input: usize,
        amount: u64,
        secret: &SecretKey,
        secp: &Secp256k1<All>,
    ) -> Result<Signature, ()> {
        self.0.sign_justice_revoked_output(parameters, tx, input, amount, secret, secp)
    }
    fn sign_justice_revoked_htlc(
        &self,
        parameters: &Parameters,
        tx: &Transaction,
        input: usize,
        amount: u64,
        secret: &SecretKey,
        htlc: &HTLCOutputInCommitment,
        secp: &Secp256k1<All>,
    ) -> Result<Signature, ()> {
        self.0.sign_justice_revoked_htlc(parameters, tx, input, amount, secret, htlc, secp)
    }
    fn sign_holder_htlc_transaction(
        &self,
        tx: &Transaction,
        input: usize,
        descriptor: &HTLCDescriptor,
        secp: &Secp256k1<All>,
    ) -> Result<Signature, ()> {
        self.0.sign_holder_htlc_transaction(tx, input, descriptor, secp)
    }
    fn sign_counterparty_htlc_transaction(
        &self,
        parameters: &Parameters,
        tx: &Transaction,
        input: usize,
        amount: u64,
        point: &PublicKey,
        htlc: &HTLCOutputInCommitment,
        secp: &Secp256k1<All>,
    ) -> Result<Signature, ()> {
        self.0.sign_counterparty_htlc_transaction(parameters, tx, input, amount, point, htlc, secp)
    }
    fn sign_closing_transaction(
        &self,
        parameters: &Parameters,
        closing: &ClosingTransaction,
        secp: &Secp256k1<All>,
    ) -> Result<Signature, ()> {
        self.0.sign_closing_transaction(parameters, closing, secp)
    }
    fn sign_holder_keyed_anchor_input(
        &self,
        parameters: &Parameters,
        tx: &Transaction,
        input: usize,
        secp: &Secp256k1<All>,
    ) -> Result<Signature, ()> {
        self.0.sign_holder_keyed_anchor_input(parameters, tx, input, secp)
    }
    fn sign_channel_announcement_with_funding_key(
        &self,
        parameters: &Parameters,
        message: &UnsignedChannelAnnouncement,
        secp: &Secp256k1<All>,
    ) -> Result<Signature, ()> {
        self.0.sign_channel_announcement_with_funding_key(parameters, message, secp)
    }
    fn sign_splice_shared_input(
        &self,
        parameters: &Parameters,
        tx: &Transaction,
        input: usize,
        secp: &Secp256k1<All>,
    ) -> Signature {
        self.0.sign_splice_shared_input(parameters, tx, input, secp)
    }
}
