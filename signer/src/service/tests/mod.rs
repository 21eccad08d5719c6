//! Two signers that hold the two sides of a channel, and what each of them refuses.

mod away;
mod dance;
mod network;
mod refusals;

use std::sync::Arc;

use bitcoin::{
    Amount, Network, ScriptBuf, Txid,
    hashes::{Hash, sha256},
};
use holdfast_proto::{
    error::Error,
    identity::{Identity, Role},
    lightning::{CommitmentFields, parameters_to_ldk},
    signer::v1,
};
use lightning::ln::chan_utils::{ChannelTransactionParameters, CommitmentTransaction};
use zeroize::Zeroizing;

use super::SignerCore;
use crate::{
    custody::{Custody, CustodyError, NodeIdentity, Seed},
    guard::{EmbeddedStore, GuardStore},
    keys::{SeedIdentity, secp},
    rules::RulesConfig,
};

/// Custody without a place: the seed is in the test.
struct TestCustody {
    seed: [u8; 32],
    identity: Arc<SeedIdentity>,
}

impl Custody for TestCustody {
    fn backend(&self) -> &'static str {
        "file"
    }

    fn identity(&self) -> Arc<dyn NodeIdentity> {
        Arc::clone(&self.identity) as Arc<dyn NodeIdentity>
    }

    fn identity_in_token(&self) -> bool {
        false
    }

    fn unseal(&self) -> Result<Seed, CustodyError> {
        Ok(Zeroizing::new(self.seed))
    }

    fn self_test(&self) -> Result<(), CustodyError> {
        Ok(())
    }
}

fn core(seed: u8, store: Arc<dyn GuardStore>) -> SignerCore {
    let identity = Arc::new(SeedIdentity::new(&Zeroizing::new([seed; 32])).unwrap());
    let custody = TestCustody { seed: [seed; 32], identity };
    SignerCore::new(Arc::new(custody), Network::Regtest, store, RulesConfig::default()).unwrap()
}

fn caller(role: Role) -> Identity {
    Identity::new("test", role, "one").unwrap()
}

/// One side of a channel: a signer, and what its replica would know.
struct Side {
    core: SignerCore,
    store: Arc<dyn GuardStore>,
    seed: u8,
    caller: Identity,
    term: u64,
    of: v1::ChannelRef,
}

const KEYS_ID: [u8; 32] = [5; 32];
const CHANNEL_SAT: u64 = 1_000_000;

fn htlc(offered: bool, sat: u64, preimage: u8) -> v1::Htlc {
    v1::Htlc {
        offered,
        amount_msat: sat * 1000,
        cltv_expiry: 500,
        payment_hash: sha256::Hash::hash(&[preimage; 32]).to_byte_array().to_vec(),
    }
}

impl Side {
    fn new(seed: u8) -> Self {
        Self::over(seed, Arc::new(EmbeddedStore::in_memory().unwrap()))
    }

    fn over(seed: u8, store: Arc<dyn GuardStore>) -> Self {
        let side = Self {
            core: core(seed, Arc::clone(&store)),
            store,
            seed,
            caller: caller(Role::Replica),
            term: 1,
            of: v1::ChannelRef {
                channel_keys_id: KEYS_ID.to_vec(),
                funding_outpoint: Some(v1::OutPoint { txid: vec![7; 32], vout: 0 }),
            },
        };
        side.core.announce_term(&side.caller, v1::AnnounceTermRequest { term: 1 }).unwrap();
        side
    }

    /// The signer's process ends and another starts.
    fn restart(&mut self) {
        self.core = core(self.seed, Arc::clone(&self.store));
    }

    fn channel(&self) -> Option<v1::ChannelRef> {
        Some(self.of.clone())
    }

    fn public_keys(&self) -> v1::ChannelPublicKeys {
        let request = v1::GetChannelPublicKeysRequest {
            term: self.term,
            channel_keys_id: KEYS_ID.to_vec(),
            splice_parent_funding_txid: None,
        };
        self.core.get_channel_public_keys(&self.caller, request).unwrap()
    }

    fn point(&self, number: u64) -> Vec<u8> {
        let request = v1::GetPerCommitmentPointsRequest {
            term: self.term,
            channel_keys_id: KEYS_ID.to_vec(),
            first_number: number,
            count: 1,
        };
        self.core.get_per_commitment_points(&self.caller, request).unwrap().points.remove(0)
    }

    fn parameters(&self, other: &Side, outbound: bool, channel_type: v1::ChannelType) -> v1::ChannelParameters {
        v1::ChannelParameters {
            holder_pubkeys: Some(self.public_keys()),
            holder_selected_contest_delay: 144,
            is_outbound_from_holder: outbound,
            counterparty_pubkeys: Some(other.public_keys()),
            counterparty_selected_contest_delay: 144,
            splice_parent_funding_txid: None,
            channel_type: channel_type.into(),
            channel_value_sat: CHANNEL_SAT,
        }
    }

    fn register(&self, parameters: v1::ChannelParameters) -> Result<(), Error> {
        let request =
            v1::RegisterFundingRequest { term: self.term, channel: self.channel(), parameters: Some(parameters) };
        self.core.register_funding(&self.caller, request).map(drop)
    }

    /// A commitment of this side, in which it has `mine_sat`.
    fn commitment(&self, number: u64, mine_sat: u64, htlcs: &[v1::Htlc]) -> v1::Commitment {
        let pending: u64 = htlcs.iter().map(|htlc| htlc.amount_msat / 1000).sum();
        v1::Commitment {
            number,
            per_commitment_point: self.point(number),
            to_broadcaster_sat: mine_sat,
            to_countersignatory_sat: CHANNEL_SAT - mine_sat - pending - 10_000,
            feerate_sat_per_kw: 1000,
            htlcs: htlcs.to_vec(),
        }
    }

    fn sign(&self, of_other: v1::Commitment) -> Result<v1::SignCounterpartyCommitmentResponse, Error> {
        let request = v1::SignCounterpartyCommitmentRequest {
            term: self.term,
            channel: self.channel(),
            commitment: Some(of_other),
            ..Default::default()
        };
        self.core.sign_counterparty_commitment(&self.caller, request)
    }

    fn validate(&self, mine: v1::Commitment, signed: v1::SignCounterpartyCommitmentResponse) -> Result<(), Error> {
        let request = v1::ValidateHolderCommitmentRequest {
            term: self.term,
            channel: self.channel(),
            commitment: Some(mine),
            counterparty_signature: signed.signature,
            counterparty_htlc_signatures: signed.htlc_signatures,
            outbound_htlc_preimages: vec![],
        };
        self.core.validate_holder_commitment(&self.caller, request).map(drop)
    }

    fn release(&self, number: u64) -> Result<Vec<u8>, Error> {
        let request = v1::ReleaseCommitmentSecretRequest { term: self.term, channel_keys_id: KEYS_ID.to_vec(), number };
        self.core.release_commitment_secret(&self.caller, request).map(|response| response.secret)
    }

    fn hear(&self, number: u64, secret: Vec<u8>) -> Result<(), Error> {
        let request = v1::ValidateCounterpartyRevocationRequest {
            term: self.term,
            channel_keys_id: KEYS_ID.to_vec(),
            number,
            secret,
        };
        self.core.validate_counterparty_revocation(&self.caller, request).map(drop)
    }

    fn sign_holder(&self, mine: v1::Commitment) -> Result<Vec<u8>, Error> {
        let request =
            v1::SignHolderCommitmentRequest { term: self.term, channel: self.channel(), commitment: Some(mine) };
        self.core.sign_holder_commitment(&self.caller, request).map(|response| response.signature)
    }

    fn close(&self, to_holder_sat: u64, to_counterparty_sat: u64) -> Result<Vec<u8>, Error> {
        self.close_to(self.core.keys.shutdown_script(), to_holder_sat, to_counterparty_sat)
    }

    fn close_to(&self, script: ScriptBuf, to_holder_sat: u64, to_counterparty_sat: u64) -> Result<Vec<u8>, Error> {
        let request = v1::SignClosingRequest {
            term: self.term,
            channel: self.channel(),
            to_holder_sat,
            to_counterparty_sat,
            to_holder_script: script.into_bytes(),
            to_counterparty_script: ScriptBuf::new_op_return([2; 4]).into_bytes(),
        };
        self.core.sign_closing(&self.caller, request).map(|response| response.signature)
    }

    fn state(&self) -> v1::GetChannelStateResponse {
        let request = v1::GetChannelStateRequest { channel_keys_id: KEYS_ID.to_vec(), with_parameters: false };
        self.core.get_channel_state(&self.caller, request).unwrap()
    }
}

/// The transaction of a commitment, as anybody with the parameters builds it.
fn build(parameters: &ChannelTransactionParameters, mine: &v1::Commitment) -> CommitmentTransaction {
    let fields = CommitmentFields::from_wire("commitment", mine).unwrap();
    fields.build(&parameters.as_holder_broadcastable(), secp()).unwrap()
}

/// Two sides with a funded channel, commitment 0 exchanged.
struct Pair {
    opener: Side,
    acceptor: Side,
    parameters: ChannelTransactionParameters,
}

impl Pair {
    fn open(channel_type: v1::ChannelType) -> Self {
        let (opener, acceptor) = (Side::new(1), Side::new(2));
        let wire = opener.parameters(&acceptor, true, channel_type);
        let funding = lightning::chain::transaction::OutPoint { txid: Txid::from_byte_array([7; 32]), index: 0 };
        let parameters = parameters_to_ldk("parameters", &wire, funding).unwrap();
        opener.register(wire).unwrap();

        // As LDK does it: the acceptor sees its own first commitment before it has parameters to show.
        let pair = Self { opener, acceptor, parameters };
        let (opener, acceptor) = (&pair.opener, &pair.acceptor);
        let theirs = acceptor.commitment(0, 0, &[]);
        acceptor.validate(theirs.clone(), opener.sign(theirs).unwrap()).unwrap();
        assert_eq!(acceptor.state().holder_number, None, "nothing counts yet");
        acceptor.register(acceptor.parameters(opener, false, channel_type)).unwrap();
        assert_eq!(acceptor.state().holder_number, Some(0));
        let ours = opener.commitment(0, 900_000, &[]);
        opener.validate(ours.clone(), acceptor.sign(ours).unwrap()).unwrap();
        pair
    }

    /// Both sides move on to commitment `number`, in which the opener's has these HTLCs.
    fn round(&self, number: u64, opener_sat: u64, htlcs: &[v1::Htlc]) {
        let mirrored: Vec<_> = htlcs.iter().map(|htlc| v1::Htlc { offered: !htlc.offered, ..htlc.clone() }).collect();
        let pending: u64 = htlcs.iter().map(|htlc| htlc.amount_msat / 1000).sum();
        let acceptor_sat = CHANNEL_SAT - 10_000 - pending - opener_sat;
        step(&self.opener, &self.acceptor, self.acceptor.commitment(number, acceptor_sat, &mirrored));
        step(&self.acceptor, &self.opener, self.opener.commitment(number, opener_sat, htlcs));
    }
}

/// `signer` signs the next commitment of `owner`, which validates it and revokes the one before.
fn step(signer: &Side, owner: &Side, commitment: v1::Commitment) {
    let number = commitment.number;
    owner.validate(commitment.clone(), signer.sign(commitment).unwrap()).unwrap();
    signer.hear(number - 1, owner.release(number - 1).unwrap()).unwrap();
}

fn refused<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    match result {
        Err(Error::Refused { rule, .. }) => rule,
        other => panic!("{other:?} is not a refusal"),
    }
}

fn misused<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    match result {
        Err(Error::Misuse { field, .. }) => field,
        other => panic!("{other:?} is not misuse"),
    }
}

const TYPES: [v1::ChannelType; 2] = [v1::ChannelType::StaticRemoteKey, v1::ChannelType::AnchorsZeroFeeHtlc];

fn sat(amount: u64) -> Amount {
    Amount::from_sat(amount)
}
