//! A channel, as the remote signer and as LDK's own have it.

use bitcoin::{
    Amount, EcdsaSighashType, OutPoint as BitcoinOutPoint, Script, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid,
    Witness,
    absolute::LockTime,
    hashes::Hash,
    secp256k1::{All, Message, PublicKey, Secp256k1, SecretKey, ecdsa::Signature},
    sighash::SighashCache,
    transaction::Version,
};
use holdfast_signer_client::{RemoteChannelSigner, RemoteKeys};
use lightning::{
    chain::transaction::OutPoint,
    ln::chan_utils::{
        ChannelTransactionParameters, CommitmentTransaction, CounterpartyChannelTransactionParameters,
        HTLCOutputInCommitment, HolderCommitmentTransaction,
    },
    sign::{ChannelSigner, InMemorySigner, KeysManager, SignerProvider, ecdsa::EcdsaChannelSigner},
    types::{
        features::ChannelTypeFeatures,
        payment::{PaymentHash, PaymentPreimage},
    },
};

use crate::signer::{InProcess, SEED, keys};

pub(super) const VALUE: u64 = 1_000_000;
pub(super) const FEERATE: u32 = 1_000;
pub(super) const DELAY: u16 = 144;
pub(super) const PREIMAGE: PaymentPreimage = PaymentPreimage([8; 32]);

/// A channel of ours, as the remote signer and as LDK's signer of the same seed, and the counterparty's end of it.
pub(super) struct Channel {
    pub(super) secp: Secp256k1<All>,
    pub(super) remote: RemoteChannelSigner,
    pub(super) local: InMemorySigner,
    pub(super) theirs: InMemorySigner,
    pub(super) parameters: ChannelTransactionParameters,
    pub(super) their_parameters: ChannelTransactionParameters,
    pub(super) keys_id: [u8; 32],
}

impl Channel {
    pub(super) fn new(keys: &RemoteKeys, id: u8, channel_type: ChannelTypeFeatures) -> Self {
        let secp = Secp256k1::new();
        let keys_id = [id; 32];
        let remote = keys.derive_channel_signer(keys_id);
        let local = ldk().derive_channel_signer(keys_id);
        let theirs = KeysManager::new(&[9; 32], 0, 0, true).derive_channel_signer([id; 32]);
        assert_eq!(remote.pubkeys(&secp), local.pubkeys(&secp));
        let funding = OutPoint { txid: Txid::from_byte_array([id; 32]), index: 1 };
        let parameters = |holder: &InMemorySigner, counterparty: &InMemorySigner, is_outbound_from_holder| {
            ChannelTransactionParameters {
                holder_pubkeys: holder.pubkeys(&secp),
                holder_selected_contest_delay: DELAY,
                is_outbound_from_holder,
                counterparty_parameters: Some(CounterpartyChannelTransactionParameters {
                    pubkeys: counterparty.pubkeys(&secp),
                    selected_contest_delay: DELAY,
                }),
                funding_outpoint: Some(funding),
                splice_parent_funding_txid: None,
                channel_type_features: channel_type.clone(),
                channel_value_satoshis: VALUE,
            }
        };
        let (parameters, their_parameters) = (parameters(&local, &theirs, true), parameters(&theirs, &local, false));
        Self { remote, local, theirs, parameters, their_parameters, keys_id, secp }
    }

    pub(super) fn htlcs(&self, number: u64) -> Vec<HTLCOutputInCommitment> {
        let htlc = |offered, amount_msat, cltv_expiry| HTLCOutputInCommitment {
            offered,
            amount_msat,
            cltv_expiry,
            payment_hash: PaymentHash::from(PREIMAGE),
            transaction_output_index: None,
        };
        // The first commitment has none.
        if number == 0 { vec![] } else { vec![htlc(true, 30_000_000, 500), htlc(false, 20_000_999, 600)] }
    }

    pub(super) fn counterparty_commitment(&self, number: u64) -> CommitmentTransaction {
        let point = self.theirs.get_per_commitment_point(ldk_number(number), &self.secp).unwrap();
        self.commitment(number, &point, &self.parameters.as_counterparty_broadcastable())
    }

    pub(super) fn holder_commitment(&self, number: u64) -> HolderCommitmentTransaction {
        let point = self.remote.get_per_commitment_point(ldk_number(number), &self.secp).unwrap();
        assert_eq!(point, self.local.get_per_commitment_point(ldk_number(number), &self.secp).unwrap());
        let built = self.commitment(number, &point, &self.parameters.as_holder_broadcastable());
        let (signature, htlc_signatures) = self
            .theirs
            .sign_counterparty_commitment(&self.their_parameters, &built, vec![], vec![], &self.secp)
            .unwrap();
        let funding = self.parameters.holder_pubkeys.funding_pubkey;
        let their_funding = self.their_parameters.holder_pubkeys.funding_pubkey;
        HolderCommitmentTransaction::new(built, signature, htlc_signatures, &funding, &their_funding)
    }

    pub(super) fn commitment(
        &self,
        number: u64,
        point: &PublicKey,
        of: &lightning::ln::chan_utils::DirectedChannelTransactionParameters,
    ) -> CommitmentTransaction {
        let to = if number == 0 { 480_000 } else { 450_000 };
        CommitmentTransaction::new(ldk_number(number), point, to, to, FEERATE, self.htlcs(number), of, &self.secp)
    }

    /// Signs the counterparty's commitment `number`, and compares.
    pub(super) fn sign_counterparty(&self, number: u64) {
        let built = self.counterparty_commitment(number);
        let sign = |signer: &dyn EcdsaChannelSigner| {
            signer.sign_counterparty_commitment(&self.parameters, &built, vec![], vec![PREIMAGE], &self.secp)
        };
        let signed = sign(&self.remote).unwrap();
        assert_eq!(signed, sign(&self.local).unwrap());
        assert_eq!(signed, sign(&self.remote).unwrap(), "the same question, the same answer");
    }

    pub(super) fn validate_holder(&self, number: u64) {
        self.remote.validate_holder_commitment(&self.holder_commitment(number), vec![]).unwrap();
    }

    /// Two commitments on both sides, the first revoked.
    pub(super) fn advance(&self) {
        self.sign_counterparty(0);
        self.validate_holder(0);
        self.validate_holder(1);
        let revoked = ldk_number(0);
        let secret = self.remote.release_commitment_secret(revoked).unwrap();
        assert_eq!(secret, self.local.release_commitment_secret(revoked).unwrap());
        self.sign_counterparty(1);
        self.remote.validate_counterparty_revocation(revoked, &self.their_secret(0)).unwrap();
    }

    pub(super) fn their_secret(&self, number: u64) -> SecretKey {
        SecretKey::from_slice(&self.theirs.release_commitment_secret(ldk_number(number)).unwrap()).unwrap()
    }

    pub(super) fn verify(&self, tx: &Transaction, script: &Script, value: u64, signature: &Signature, key: PublicKey) {
        let sighash = SighashCache::new(tx)
            .p2wsh_signature_hash(0, script, Amount::from_sat(value), EcdsaSighashType::All)
            .unwrap();
        self.secp.verify_ecdsa(&Message::from_digest(sighash.to_byte_array()), signature, &key).unwrap();
    }
}

pub(super) fn ldk() -> KeysManager {
    KeysManager::new(&SEED, 0, 0, true)
}

pub(super) fn ldk_number(number: u64) -> u64 {
    (1 << 48) - 1 - number
}

pub(super) fn both_types(test: impl Fn(Channel)) {
    let signer = InProcess::new();
    let keys = keys(&signer);
    test(Channel::new(&keys, 1, ChannelTypeFeatures::only_static_remote_key()));
    test(Channel::new(&keys, 2, ChannelTypeFeatures::anchors_zero_htlc_fee_and_dependencies()));
}

/// Spends one output to some script, with a signature on another input already there, as LDK's claims may have.
pub(super) fn claim(txid: Txid, vout: u32, sequence: u32, locktime: u32) -> Transaction {
    let input = |txid, vout, witness| TxIn {
        previous_output: BitcoinOutPoint { txid, vout },
        script_sig: ScriptBuf::new(),
        sequence: Sequence(sequence),
        witness,
    };
    Transaction {
        version: Version::TWO,
        lock_time: LockTime::from_consensus(locktime),
        input: vec![
            input(txid, vout, Witness::new()),
            input(Txid::from_byte_array([77; 32]), 0, Witness::from_slice(&[[1u8; 71]])),
        ],
        output: vec![TxOut {
            value: Amount::from_sat(10_000),
            script_pubkey: ldk().get_destination_script([0; 32]).unwrap(),
        }],
    }
}

pub(super) fn output_paying(tx: &Transaction, script: &Script) -> (u32, u64) {
    let vout = tx.output.iter().position(|output| output.script_pubkey == script.to_p2wsh()).unwrap();
    (vout as u32, tx.output[vout].value.to_sat())
}
