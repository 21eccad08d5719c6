//! A channel's keys, and every signature that LDK can ask of them.
//!
//! Each function builds the script and the amount that its signature commits to from the channel's parameters; where
//! the whole transaction can be rebuilt, it is. Whether a signature may be made is for rules and guard to say.

use std::sync::Arc;

use bitcoin::{
    Amount, EcdsaSighashType, Script, Transaction, TxOut, Txid,
    hashes::{Hash, sha256d},
    secp256k1::{Message, PublicKey, ecdsa::Signature},
    sighash::SighashCache,
};
use holdfast_proto::{error::Error, lightning::CommitmentNumber};
use lightning::{
    ln::{
        chan_utils::{
            BuiltCommitmentTransaction, ChannelPublicKeys, ChannelTransactionParameters, ClosingTransaction,
            CommitmentTransaction, CounterpartyChannelTransactionParameters, HTLCOutputInCommitment, TxCreationKeys,
            build_commitment_secret, build_htlc_transaction, derive_private_key, derive_private_revocation_key,
            get_htlc_redeemscript, get_keyed_anchor_redeemscript, get_revokeable_redeemscript, htlc_success_tx_weight,
            htlc_timeout_tx_weight, make_funding_redeemscript,
        },
        channel_keys::{DelayedPaymentBasepoint, HtlcBasepoint, RevocationBasepoint},
        msgs::UnsignedChannelAnnouncement,
    },
    sign::compute_funding_key_tweak,
    util::ser::Writeable,
};
use zeroize::Zeroizing;

use super::{CommitmentSignatures, Secret, derive::ChannelSecrets, secp, sign::sign, verify::second_level_sighash};

/// Value of an anchor output (BOLT 3).
const ANCHOR: Amount = Amount::from_sat(330);

/// One channel's keys. The public ones are kept; the secret ones are derived for each use and then overwritten, so that
/// memory holds the secrets of those channels only that something is signed for.
pub struct ChannelKeys {
    secrets: Arc<ChannelSecrets>,
    id: [u8; 32],
    public: ChannelPublicKeys,
}

pub(super) struct BaseKeys {
    pub(super) funding: Secret,
    pub(super) revocation: Secret,
    /// Our side of the counterparty's commitment, as LDK derives it since 0.2.
    pub(super) payment: Secret,
    /// The same as LDK derived it before; channels of imported nodes may have been closed to it.
    pub(super) payment_v1: Secret,
    pub(super) delayed_payment: Secret,
    pub(super) htlc: Secret,
    pub(super) commitment_seed: Zeroizing<[u8; 32]>,
}

/// A second-level HTLC transaction on a holder commitment, in the words of the request.
pub struct HolderHtlc<'a> {
    pub transaction: &'a Transaction,
    pub input: usize,
    pub number: CommitmentNumber,
    pub commitment_txid: Txid,
    pub feerate_sat_per_kw: u32,
    pub htlc: HTLCOutputInCommitment,
}

impl ChannelKeys {
    pub(super) fn new(secrets: Arc<ChannelSecrets>, id: [u8; 32]) -> Self {
        let base = secrets.derive(&id);
        let public = ChannelPublicKeys {
            funding_pubkey: base.funding.public_key(),
            revocation_basepoint: RevocationBasepoint(base.revocation.public_key()),
            payment_point: base.payment.public_key(),
            delayed_payment_basepoint: DelayedPaymentBasepoint(base.delayed_payment.public_key()),
            htlc_basepoint: HtlcBasepoint(base.htlc.public_key()),
        };
        Self { secrets, id, public }
    }

    fn base(&self) -> Box<BaseKeys> {
        self.secrets.derive(&self.id)
    }

    /// The channel's public keys; with the funding key of the splice of `splice_parent`, when given.
    pub fn public_keys(&self, splice_parent: Option<Txid>) -> ChannelPublicKeys {
        match splice_parent {
            None => self.public.clone(),
            Some(_) => {
                ChannelPublicKeys { funding_pubkey: self.funding(splice_parent).public_key(), ..self.public.clone() }
            }
        }
    }

    /// Whether these public keys are this channel's, in either form of the payment key.
    pub fn owns(&self, public: &ChannelPublicKeys, splice_parent: Option<Txid>) -> bool {
        let ours = self.public_keys(splice_parent);
        let older = ChannelPublicKeys { payment_point: self.base().payment_v1.public_key(), ..ours.clone() };
        *public == ours || *public == older
    }

    /// Both forms of the payment key, the newer first.
    pub(super) fn payment_keys(&self) -> [Secret; 2] {
        let base = self.base();
        [&base.payment, &base.payment_v1].map(|key| Secret::new(*key.expose()))
    }

    pub(super) fn delayed_payment_key(&self, point: &PublicKey) -> Secret {
        Secret::new(derive_private_key(secp(), point, self.base().delayed_payment.expose()))
    }

    fn htlc_key(&self, point: &PublicKey) -> Secret {
        Secret::new(derive_private_key(secp(), point, self.base().htlc.expose()))
    }

    fn funding(&self, splice_parent: Option<Txid>) -> Secret {
        let keys = self.base();
        let base = keys.funding.expose();
        match splice_parent {
            None => Secret::new(*base),
            // The tweak is a hash of the key, so it is the key's inverse for one txid in 2^256.
            Some(txid) => Secret::new(
                base.add_tweak(&compute_funding_key_tweak(base, &txid)).expect("the tweak is not the key's inverse"),
            ),
        }
    }

    /// The secret that revokes the holder commitment `number`.
    pub fn per_commitment_secret(&self, number: CommitmentNumber) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(build_commitment_secret(&self.base().commitment_seed, number.to_ldk()))
    }

    pub fn per_commitment_point(&self, number: CommitmentNumber) -> PublicKey {
        let secret = self.per_commitment_secret(number);
        let key = bitcoin::secp256k1::SecretKey::from_slice(secret.as_slice());
        // A hash is a key but for one in 2^127; LDK unwraps it as well.
        Secret::new(key.expect("a hash is a key")).public_key()
    }

    pub fn sign_counterparty_commitment(
        &self,
        parameters: &ChannelTransactionParameters,
        commitment: &CommitmentTransaction,
    ) -> Result<CommitmentSignatures, Error> {
        let trusted = commitment.trust();
        let key = self.htlc_key(&commitment.per_commitment_point());
        let public = key.public_key();
        let htlcs = commitment
            .nondust_htlcs()
            .iter()
            .map(|htlc| {
                let directed = parameters.as_counterparty_broadcastable();
                sign(&second_level_sighash(&directed, commitment, htlc)?, &key, &public)
            })
            .collect::<Result<_, _>>()?;
        Ok(CommitmentSignatures { commitment: self.sign_commitment(parameters, trusted.built_transaction())?, htlcs })
    }

    pub fn sign_holder_commitment(
        &self,
        parameters: &ChannelTransactionParameters,
        commitment: &CommitmentTransaction,
    ) -> Result<Signature, Error> {
        self.sign_commitment(parameters, commitment.trust().built_transaction())
    }

    fn sign_commitment(
        &self,
        parameters: &ChannelTransactionParameters,
        built: &BuiltCommitmentTransaction,
    ) -> Result<Signature, Error> {
        self.sign_funding_input(parameters, &built.transaction, 0)
    }

    pub fn sign_closing(
        &self,
        parameters: &ChannelTransactionParameters,
        closing: &ClosingTransaction,
    ) -> Result<Signature, Error> {
        self.sign_funding_input(parameters, closing.trust().built_transaction(), 0)
    }

    /// The funding output spent by a splice, as input `input` of its transaction.
    pub fn sign_splice_input(
        &self,
        parameters: &ChannelTransactionParameters,
        transaction: &Transaction,
        input: usize,
    ) -> Result<Signature, Error> {
        let funding = parameters.funding_outpoint.map(|outpoint| outpoint.into_bitcoin_outpoint());
        if funding != Some(transaction.input[input].previous_output) {
            return Err(Error::misuse("input_index", "the input does not spend the channel's funding output"));
        }
        self.sign_funding_input(parameters, transaction, input)
    }

    fn sign_funding_input(
        &self,
        parameters: &ChannelTransactionParameters,
        transaction: &Transaction,
        input: usize,
    ) -> Result<Signature, Error> {
        let key = self.funding(parameters.splice_parent_funding_txid);
        let script = make_funding_redeemscript(&key.public_key(), &counterparty(parameters)?.pubkeys.funding_pubkey);
        let value = Amount::from_sat(parameters.channel_value_satoshis);
        sign_p2wsh(transaction, input, &script, value, &key)
    }

    /// The holder's own HTLC output. The transaction must be BOLT 3's; with zero-fee anchors more inputs and outputs
    /// may stand beside the pair that the counterparty's signature binds together.
    pub fn sign_holder_htlc(
        &self,
        parameters: &ChannelTransactionParameters,
        request: &HolderHtlc,
    ) -> Result<Signature, Error> {
        let HolderHtlc { transaction, input, .. } = *request;
        let point = self.per_commitment_point(request.number);
        let counterparty = counterparty(parameters)?;
        let keys =
            TxCreationKeys::from_channel_static_keys(&point, &parameters.holder_pubkeys, &counterparty.pubkeys, secp());
        let channel_type = &parameters.channel_type_features;
        let anchors = channel_type.supports_anchors_zero_fee_htlc_tx();

        let spent = transaction.input[input].previous_output;
        if spent.txid != request.commitment_txid {
            return Err(Error::misuse("input_index", "the input does not spend the commitment named"));
        }
        let htlc = HTLCOutputInCommitment { transaction_output_index: Some(spent.vout), ..request.htlc.clone() };
        let weight =
            if htlc.offered { htlc_timeout_tx_weight(channel_type) } else { htlc_success_tx_weight(channel_type) };
        let feerate = if anchors { 0 } else { request.feerate_sat_per_kw };
        if htlc.to_bitcoin_amount().to_sat() < u64::from(feerate) * weight / 1000 {
            return Err(Error::misuse("htlc.amount_msat", "does not pay for its own second-level transaction"));
        }
        let expected = build_htlc_transaction(
            &request.commitment_txid,
            feerate,
            counterparty.selected_contest_delay,
            &htlc,
            channel_type,
            &keys.broadcaster_delayed_payment_key,
            &keys.revocation_key,
        );
        let same = if anchors {
            let sequence = transaction.input[input].sequence;
            transaction.version == expected.version
                && sequence == expected.input[0].sequence
                && transaction.output.get(input) == expected.output.first()
        } else {
            *transaction == expected
        };
        if !same {
            return Err(Error::misuse("transaction", "is not the second-level transaction of this HTLC"));
        }
        let script = get_htlc_redeemscript(&htlc, channel_type, &keys);
        sign_p2wsh(transaction, input, &script, htlc.to_bitcoin_amount(), &self.htlc_key(&point))
    }

    /// An HTLC output of the counterparty's commitment, claimed with the preimage or after its timeout.
    pub fn sign_counterparty_htlc(
        &self,
        parameters: &ChannelTransactionParameters,
        transaction: &Transaction,
        input: usize,
        amount: Amount,
        point: &PublicKey,
        htlc: &HTLCOutputInCommitment,
    ) -> Result<Signature, Error> {
        let keys = counterparty_keys(parameters, point)?;
        let script = get_htlc_redeemscript(htlc, &parameters.channel_type_features, &keys);
        sign_p2wsh(transaction, input, &script, amount, &self.htlc_key(point))
    }

    /// An output of a counterparty commitment that `secret` revokes: an HTLC when one is given, else the delayed one
    /// (of the commitment, or of a second-level transaction on it).
    pub fn sign_justice(
        &self,
        parameters: &ChannelTransactionParameters,
        transaction: &Transaction,
        input: usize,
        amount: Amount,
        secret: &Secret,
        htlc: Option<&HTLCOutputInCommitment>,
    ) -> Result<Signature, Error> {
        let keys = counterparty_keys(parameters, &secret.public_key())?;
        let script = match htlc {
            Some(htlc) => get_htlc_redeemscript(htlc, &parameters.channel_type_features, &keys),
            None => get_revokeable_redeemscript(
                &keys.revocation_key,
                parameters.holder_selected_contest_delay,
                &keys.broadcaster_delayed_payment_key,
            ),
        };
        let key = Secret::new(derive_private_revocation_key(secp(), secret.expose(), self.base().revocation.expose()));
        sign_p2wsh(transaction, input, &script, amount, &key)
    }

    /// The holder's anchor on a holder commitment.
    pub fn sign_anchor(
        &self,
        parameters: &ChannelTransactionParameters,
        transaction: &Transaction,
        input: usize,
    ) -> Result<Signature, Error> {
        let key = self.funding(parameters.splice_parent_funding_txid);
        let script = get_keyed_anchor_redeemscript(&key.public_key());
        sign_p2wsh(transaction, input, &script, ANCHOR, &key)
    }

    /// `channel_announcement`, with the funding key (BOLT 7).
    pub fn sign_announcement(
        &self,
        parameters: &ChannelTransactionParameters,
        announcement: &UnsignedChannelAnnouncement,
    ) -> Result<Signature, Error> {
        let key = self.funding(parameters.splice_parent_funding_txid);
        let digest = sha256d::Hash::hash(&announcement.encode());
        sign(&Message::from_digest(digest.to_byte_array()), &key, &key.public_key())
    }
}

/// The output that funds a channel with these parameters: exactly the 2-of-2 of both funding keys, exactly its value.
pub fn funding_output(parameters: &ChannelTransactionParameters) -> Result<TxOut, Error> {
    let keys = (&parameters.holder_pubkeys.funding_pubkey, &counterparty(parameters)?.pubkeys.funding_pubkey);
    Ok(TxOut {
        value: Amount::from_sat(parameters.channel_value_satoshis),
        script_pubkey: make_funding_redeemscript(keys.0, keys.1).to_p2wsh(),
    })
}

/// Signs input `input`, which spends a P2WSH output of `value` with `script`. SIGHASH_ALL.
pub(super) fn sign_p2wsh(
    transaction: &Transaction,
    input: usize,
    script: &Script,
    value: Amount,
    key: &Secret,
) -> Result<Signature, Error> {
    let sighash = SighashCache::new(transaction)
        .p2wsh_signature_hash(input, script, value, EcdsaSighashType::All)
        .map_err(|error| Error::misuse("input_index", error.to_string()))?;
    sign(&Message::from(sighash), key, &key.public_key())
}

fn counterparty(parameters: &ChannelTransactionParameters) -> Result<&CounterpartyChannelTransactionParameters, Error> {
    parameters.counterparty_parameters.as_ref().ok_or_else(|| Error::misuse("parameters", "lack the counterparty's"))
}

/// The keys of a counterparty commitment.
fn counterparty_keys(parameters: &ChannelTransactionParameters, point: &PublicKey) -> Result<TxCreationKeys, Error> {
    let counterparty = &counterparty(parameters)?.pubkeys;
    Ok(TxCreationKeys::from_channel_static_keys(point, counterparty, &parameters.holder_pubkeys, secp()))
}
