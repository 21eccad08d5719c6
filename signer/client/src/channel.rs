//! One channel's signer: its id, and what is already known of its public side.

use std::sync::Arc;

use bitcoin::{
    Transaction, Txid, Witness,
    consensus::serialize,
    hashes::Hash,
    secp256k1::{All, PublicKey, Secp256k1, SecretKey, ecdsa::Signature},
};
use holdfast_proto::{
    Message, call_digest,
    error::Error,
    lightning::public_keys_to_ldk,
    lightning::{ChannelRef, CommitmentFields, CommitmentNumber, htlc_to_wire, parameters_to_wire, parse},
    signer::v1,
};
use lightning::{
    chain::transaction::OutPoint,
    ln::{
        chan_utils::{
            ChannelPublicKeys, ChannelTransactionParameters, ClosingTransaction, CommitmentTransaction,
            HTLCOutputInCommitment, HolderCommitmentTransaction,
        },
        msgs::UnsignedChannelAnnouncement,
    },
    sign::{ChannelSigner, HTLCDescriptor, ecdsa::EcdsaChannelSigner},
    types::payment::PaymentPreimage,
    util::ser::Writeable,
};

use crate::{
    keys::signature,
    points::Known,
    session::{Refused, Session, not_ours},
    transport::Transport,
};

/// LDK's signer of one channel, by the id of its keys.
///
/// An `Err` is always a refusal by one of the signer's rules. Where LDK has no use for one (points, public keys, splices)
/// a refusal ends the process instead.
#[derive(Clone)]
pub struct RemoteChannelSigner {
    session: Arc<Session>,
    known: Arc<Known>,
    keys_id: [u8; 32],
}

/// Points asked for at once: a payment uses two.
const BATCH: u64 = 16;

impl RemoteChannelSigner {
    pub(crate) fn new(session: Arc<Session>, known: Arc<Known>, keys_id: [u8; 32]) -> Self {
        Self { session, known, keys_id }
    }

    fn ask<T>(&self, call: &'static str, attempt: impl Fn(&dyn Transport) -> Result<T, Error>) -> Result<T, ()> {
        self.session.ask(call, attempt).map_err(|Refused| ())
    }

    /// [`Self::ask`], but once for each request.
    fn sign_once<R: Clone + Message>(
        &self,
        call: &'static str,
        request: R,
        attempt: impl Fn(&dyn Transport, R) -> Result<v1::SignatureResponse, Error>,
    ) -> Result<Signature, ()> {
        let digest = call_digest(call, &request);
        if let Some(signature) = self.session.signed.get(&digest) {
            return Ok(signature);
        }
        let signature = self.ask(call, |signer| signature(attempt(signer, request.clone())?))?;
        self.session.signed.keep(digest, signature);
        Ok(signature)
    }

    /// Tells the signer the channel's parameters, once for each funding output, before the first call that needs them.
    fn registered(&self, parameters: &ChannelTransactionParameters) -> Result<v1::ChannelRef, ()> {
        let (funding, wire) = understood("register_funding", parameters_to_wire(parameters))?;
        let channel = self.channel(funding);
        if !self.known.is_registered(&funding) {
            let request = v1::RegisterFundingRequest {
                term: self.session.term,
                channel: Some(channel.clone()),
                parameters: Some(wire),
            };
            self.ask("register_funding", |signer| signer.register_funding(request.clone()))?;
            self.known.set_registered(funding);
        }
        Ok(channel)
    }

    fn channel(&self, funding: OutPoint) -> v1::ChannelRef {
        ChannelRef { keys_id: self.keys_id, funding }.to_wire()
    }

    fn justice(
        &self,
        parameters: &ChannelTransactionParameters,
        transaction: &Transaction,
        input: usize,
        amount_sat: u64,
        secret: &SecretKey,
        htlc: Option<&HTLCOutputInCommitment>,
    ) -> Result<Signature, ()> {
        let request = v1::SignJusticeRequest {
            term: self.session.term,
            channel: Some(self.registered(parameters)?),
            per_commitment_secret: secret.secret_bytes().to_vec(),
            amount_sat,
            htlc: htlc.map(htlc_to_wire),
            transaction: serialize(&without_witnesses(transaction)),
            input_index: index(input)?,
        };
        self.sign_once("sign_justice", request, |signer, request| signer.sign_justice(request))
    }
}

impl ChannelSigner for RemoteChannelSigner {
    fn get_per_commitment_point(&self, idx: u64, _secp: &Secp256k1<All>) -> Result<PublicKey, ()> {
        let number = understood("get_per_commitment_points", CommitmentNumber::from_ldk(idx))?;
        if let Some(point) = self.known.point(number) {
            return Ok(point);
        }
        let count = BATCH.min(CommitmentNumber::MAX.get() - number.get() + 1);
        let request = v1::GetPerCommitmentPointsRequest {
            term: self.session.term,
            channel_keys_id: self.keys_id.to_vec(),
            first_number: number.get(),
            // At most BATCH.
            count: count as u32,
        };
        let points = self.session.demand("get_per_commitment_points", |signer| {
            let answer = signer.get_per_commitment_points(request.clone())?;
            if answer.points.len() as u64 != count {
                return Err(Error::Internal(format!("{} points instead of {count}", answer.points.len())));
            }
            let point = |bytes: &Vec<u8>| parse::public_key("points", bytes).map_err(not_ours);
            answer.points.iter().map(point).collect::<Result<Vec<_>, _>>()
        });
        self.known.keep_points(number, &points);
        Ok(points[0])
    }

    fn release_commitment_secret(&self, idx: u64) -> Result<[u8; 32], ()> {
        let number = understood("release_commitment_secret", CommitmentNumber::from_ldk(idx))?;
        let request = v1::ReleaseCommitmentSecretRequest {
            term: self.session.term,
            channel_keys_id: self.keys_id.to_vec(),
            number: number.get(),
        };
        self.ask("release_commitment_secret", |signer| {
            let answer = signer.release_commitment_secret(request.clone())?;
            parse::array("secret", &answer.secret).map_err(not_ours)
        })
    }

    fn validate_holder_commitment(
        &self,
        holder_tx: &HolderCommitmentTransaction,
        outbound_htlc_preimages: Vec<PaymentPreimage>,
    ) -> Result<(), ()> {
        let call = "validate_holder_commitment";
        // LDK has no parameters to show here; what the transaction spends is the funding output.
        let spent = holder_tx.trust().built_transaction().transaction.input[0].previous_output;
        let index = u16::try_from(spent.vout).map_err(|_| Error::misuse("channel.funding_outpoint", "beyond 65535"));
        let funding = OutPoint { txid: spent.txid, index: understood(call, index)? };
        let request = v1::ValidateHolderCommitmentRequest {
            term: self.session.term,
            channel: Some(self.channel(funding)),
            commitment: Some(commitment(call, holder_tx)?),
            counterparty_signature: holder_tx.counterparty_sig.serialize_compact().to_vec(),
            counterparty_htlc_signatures: holder_tx
                .counterparty_htlc_sigs
                .iter()
                .map(|signature| signature.serialize_compact().to_vec())
                .collect(),
            outbound_htlc_preimages: preimages(outbound_htlc_preimages),
        };
        self.ask(call, |signer| signer.validate_holder_commitment(request.clone())).map(drop)
    }

    fn validate_counterparty_revocation(&self, idx: u64, secret: &SecretKey) -> Result<(), ()> {
        let call = "validate_counterparty_revocation";
        let request = v1::ValidateCounterpartyRevocationRequest {
            term: self.session.term,
            channel_keys_id: self.keys_id.to_vec(),
            number: understood(call, CommitmentNumber::from_ldk(idx))?.get(),
            secret: secret.secret_bytes().to_vec(),
        };
        self.ask(call, |signer| signer.validate_counterparty_revocation(request.clone())).map(drop)
    }

    fn pubkeys(&self, _secp: &Secp256k1<All>) -> ChannelPublicKeys {
        self.known.public_keys(|| {
            let request = v1::GetChannelPublicKeysRequest {
                term: self.session.term,
                channel_keys_id: self.keys_id.to_vec(),
                splice_parent_funding_txid: None,
            };
            self.session.demand("get_channel_public_keys", |signer| {
                let answer = signer.get_channel_public_keys(request.clone())?;
                public_keys_to_ldk("public_keys", &answer).map_err(not_ours)
            })
        })
    }

    fn new_funding_pubkey(&self, splice_parent_funding_txid: Txid, _secp: &Secp256k1<All>) -> PublicKey {
        self.known.splice_key(splice_parent_funding_txid, || {
            let request = v1::GetChannelPublicKeysRequest {
                term: self.session.term,
                channel_keys_id: self.keys_id.to_vec(),
                splice_parent_funding_txid: Some(splice_parent_funding_txid.to_byte_array().to_vec()),
            };
            self.session.demand("get_channel_public_keys", |signer| {
                let answer = signer.get_channel_public_keys(request.clone())?;
                parse::public_key("funding_pubkey", &answer.funding_pubkey).map_err(not_ours)
            })
        })
    }

    fn channel_keys_id(&self) -> [u8; 32] {
        self.keys_id
    }
}

impl EcdsaChannelSigner for RemoteChannelSigner {
    fn sign_counterparty_commitment(
        &self,
        channel_parameters: &ChannelTransactionParameters,
        commitment_tx: &CommitmentTransaction,
        inbound_htlc_preimages: Vec<PaymentPreimage>,
        outbound_htlc_preimages: Vec<PaymentPreimage>,
        _secp: &Secp256k1<All>,
    ) -> Result<(Signature, Vec<Signature>), ()> {
        let call = "sign_counterparty_commitment";
        let htlcs = commitment_tx.nondust_htlcs().len();
        let request = v1::SignCounterpartyCommitmentRequest {
            term: self.session.term,
            channel: Some(self.registered(channel_parameters)?),
            commitment: Some(commitment(call, commitment_tx)?),
            inbound_htlc_preimages: preimages(inbound_htlc_preimages),
            outbound_htlc_preimages: preimages(outbound_htlc_preimages),
        };
        self.ask(call, |signer| {
            let answer = signer.sign_counterparty_commitment(request.clone())?;
            if answer.htlc_signatures.len() != htlcs {
                let got = answer.htlc_signatures.len();
                return Err(Error::Internal(format!("{got} HTLC signatures instead of {htlcs}")));
            }
            let htlc_signatures = parse::signatures("htlc_signatures", &answer.htlc_signatures).map_err(not_ours)?;
            Ok((parse::signature("signature", &answer.signature).map_err(not_ours)?, htlc_signatures))
        })
    }

    fn sign_holder_commitment(
        &self,
        channel_parameters: &ChannelTransactionParameters,
        commitment_tx: &HolderCommitmentTransaction,
        _secp: &Secp256k1<All>,
    ) -> Result<Signature, ()> {
        let call = "sign_holder_commitment";
        let request = v1::SignHolderCommitmentRequest {
            term: self.session.term,
            channel: Some(self.registered(channel_parameters)?),
            commitment: Some(commitment(call, commitment_tx)?),
        };
        self.sign_once(call, request, |signer, request| signer.sign_holder_commitment(request))
    }

    /// For LDK's tests, which sign old states on purpose; a real signer refuses those here as well.
    #[cfg(feature = "_test_utils")]
    fn unsafe_sign_holder_commitment(
        &self,
        channel_parameters: &ChannelTransactionParameters,
        commitment_tx: &HolderCommitmentTransaction,
        secp: &Secp256k1<All>,
    ) -> Result<Signature, ()> {
        self.sign_holder_commitment(channel_parameters, commitment_tx, secp)
    }

    fn sign_justice_revoked_output(
        &self,
        channel_parameters: &ChannelTransactionParameters,
        justice_tx: &Transaction,
        input: usize,
        amount: u64,
        per_commitment_key: &SecretKey,
        _secp: &Secp256k1<All>,
    ) -> Result<Signature, ()> {
        self.justice(channel_parameters, justice_tx, input, amount, per_commitment_key, None)
    }

    fn sign_justice_revoked_htlc(
        &self,
        channel_parameters: &ChannelTransactionParameters,
        justice_tx: &Transaction,
        input: usize,
        amount: u64,
        per_commitment_key: &SecretKey,
        htlc: &HTLCOutputInCommitment,
        _secp: &Secp256k1<All>,
    ) -> Result<Signature, ()> {
        self.justice(channel_parameters, justice_tx, input, amount, per_commitment_key, Some(htlc))
    }

    fn sign_holder_htlc_transaction(
        &self,
        htlc_tx: &Transaction,
        input: usize,
        htlc_descriptor: &HTLCDescriptor,
        _secp: &Secp256k1<All>,
    ) -> Result<Signature, ()> {
        let call = "sign_holder_htlc";
        let parameters = &htlc_descriptor.channel_derivation_parameters.transaction_parameters;
        let number = CommitmentNumber::from_ldk(htlc_descriptor.per_commitment_number);
        let request = v1::SignHolderHtlcRequest {
            term: self.session.term,
            channel: Some(self.registered(parameters)?),
            commitment_number: understood(call, number)?.get(),
            commitment_txid: htlc_descriptor.commitment_txid.to_byte_array().to_vec(),
            feerate_sat_per_kw: htlc_descriptor.feerate_per_kw,
            htlc: Some(htlc_to_wire(&htlc_descriptor.htlc)),
            preimage: htlc_descriptor.preimage.map(|preimage| preimage.0.to_vec()),
            transaction: serialize(&without_witnesses(htlc_tx)),
            input_index: index(input)?,
        };
        self.sign_once(call, request, |signer, request| signer.sign_holder_htlc(request))
    }

    fn sign_counterparty_htlc_transaction(
        &self,
        channel_parameters: &ChannelTransactionParameters,
        htlc_tx: &Transaction,
        input: usize,
        amount: u64,
        per_commitment_point: &PublicKey,
        htlc: &HTLCOutputInCommitment,
        _secp: &Secp256k1<All>,
    ) -> Result<Signature, ()> {
        let request = v1::SignCounterpartyHtlcRequest {
            term: self.session.term,
            channel: Some(self.registered(channel_parameters)?),
            per_commitment_point: per_commitment_point.serialize().to_vec(),
            htlc: Some(htlc_to_wire(htlc)),
            amount_sat: amount,
            transaction: serialize(&without_witnesses(htlc_tx)),
            input_index: index(input)?,
        };
        self.sign_once("sign_counterparty_htlc", request, |signer, request| signer.sign_counterparty_htlc(request))
    }

    fn sign_closing_transaction(
        &self,
        channel_parameters: &ChannelTransactionParameters,
        closing_tx: &ClosingTransaction,
        _secp: &Secp256k1<All>,
    ) -> Result<Signature, ()> {
        let request = v1::SignClosingRequest {
            term: self.session.term,
            channel: Some(self.registered(channel_parameters)?),
            to_holder_sat: closing_tx.to_holder_value_sat(),
            to_counterparty_sat: closing_tx.to_counterparty_value_sat(),
            to_holder_script: closing_tx.to_holder_script().to_bytes(),
            to_counterparty_script: closing_tx.to_counterparty_script().to_bytes(),
        };
        self.ask("sign_closing", |signer| signature(signer.sign_closing(request.clone())?))
    }

    fn sign_holder_keyed_anchor_input(
        &self,
        channel_parameters: &ChannelTransactionParameters,
        anchor_tx: &Transaction,
        input: usize,
        _secp: &Secp256k1<All>,
    ) -> Result<Signature, ()> {
        let request = v1::SignHolderAnchorRequest {
            term: self.session.term,
            channel: Some(self.registered(channel_parameters)?),
            transaction: serialize(&without_witnesses(anchor_tx)),
            input_index: index(input)?,
        };
        self.sign_once("sign_holder_anchor", request, |signer, request| signer.sign_holder_anchor(request))
    }

    fn sign_channel_announcement_with_funding_key(
        &self,
        channel_parameters: &ChannelTransactionParameters,
        msg: &UnsignedChannelAnnouncement,
        _secp: &Secp256k1<All>,
    ) -> Result<Signature, ()> {
        let request = v1::SignChannelAnnouncementRequest {
            term: self.session.term,
            channel: Some(self.registered(channel_parameters)?),
            channel_announcement: msg.encode(),
        };
        self.ask("sign_channel_announcement", |signer| signature(signer.sign_channel_announcement(request.clone())?))
    }

    fn sign_splice_shared_input(
        &self,
        channel_parameters: &ChannelTransactionParameters,
        tx: &Transaction,
        input_index: usize,
        _secp: &Secp256k1<All>,
    ) -> Signature {
        let call = "sign_splice_input";
        let request = || {
            Ok(v1::SignSpliceInputRequest {
                term: self.session.term,
                channel: Some(self.registered(channel_parameters)?),
                transaction: serialize(&without_witnesses(tx)),
                input_index: index(input_index)?,
            })
        };
        match request() {
            Ok(request) => self.session.demand(call, |signer| signature(signer.sign_splice_input(request.clone())?)),
            Err(()) => self.session.end(crate::Fatal::Refused { call, why: "see the log".into() }),
        }
    }
}

/// The signer makes witnesses, it does not read them.
pub(crate) fn without_witnesses(transaction: &Transaction) -> Transaction {
    let mut bare = transaction.clone();
    for input in &mut bare.input {
        input.witness = Witness::new();
    }
    bare
}

fn commitment(call: &'static str, commitment: &CommitmentTransaction) -> Result<v1::Commitment, ()> {
    understood(call, CommitmentFields::from_ldk(commitment)).map(|fields| fields.to_wire())
}

fn preimages(list: Vec<PaymentPreimage>) -> Vec<Vec<u8>> {
    list.into_iter().map(|preimage| preimage.0.to_vec()).collect()
}

fn index(input: usize) -> Result<u32, ()> {
    understood("input_index", u32::try_from(input).map_err(|e| Error::misuse("input_index", e.to_string())))
}

/// What LDK gave us has no words on the wire: the signer would refuse it as well.
fn understood<T>(call: &'static str, translated: Result<T, Error>) -> Result<T, ()> {
    translated.map_err(|error| tracing::error!(call, %error, "cannot be put to the signer"))
}
