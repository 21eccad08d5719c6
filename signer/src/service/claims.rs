//! Closing a channel, and claiming what a close left on chain.

use bitcoin::{
    Script, Transaction,
    hashes::{Hash, sha256},
    secp256k1::ecdsa::Signature,
};
use holdfast_proto::{
    error::Error,
    identity::Identity,
    lightning::{ChannelRef, CommitmentNumber, MAX_FEERATE_SAT_PER_KW, closing_to_ldk, htlc_to_ldk, parse},
    signer::v1,
};
use lightning::{chain::transaction::OutPoint, routing::gossip::NodeId};

use super::{SignerCore, channel::funding_outpoint, commitments::point};
use crate::{
    guard::{Bytes, TxId, machine::Request},
    keys::{HolderHtlc, Secret, funding_output},
    rules::{Call, Refusal, Rule, check_close_destination},
};

impl SignerCore {
    pub fn sign_holder_htlc(
        &self,
        caller: &Identity,
        request: v1::SignHolderHtlcRequest,
    ) -> Result<v1::SignatureResponse, Error> {
        self.answer(caller, Call::SignHolderHtlc, |subject| {
            let _fence = self.guard.fence(caller, request.term)?;
            let of = ChannelRef::from_wire("channel", parse::required("channel", &request.channel)?)?;
            let number = CommitmentNumber::new("commitment_number", request.commitment_number)?;
            subject.commitment(&of, number);
            let commitment_txid = parse::txid("commitment_txid", &request.commitment_txid)?;
            let htlc = htlc_to_ldk("htlc", parse::required("htlc", &request.htlc)?)?;
            if let Some(preimage) = &request.preimage {
                let preimage: [u8; 32] = parse::array("preimage", preimage)?;
                if sha256::Hash::hash(&preimage).to_byte_array() != htlc.payment_hash.0 {
                    return Err(Error::misuse("preimage", "is not that of the payment hash"));
                }
            }
            if request.feerate_sat_per_kw > MAX_FEERATE_SAT_PER_KW {
                return Err(Error::misuse("feerate_sat_per_kw", format!("is beyond {MAX_FEERATE_SAT_PER_KW}")));
            }
            let (transaction, input) = transaction_input(&request.transaction, request.input_index)?;
            subject.transaction = Some(transaction.compute_txid());
            let (channel, parameters) = self.registered(&of)?;
            let signature = channel.keys.sign_holder_htlc(
                &parameters,
                &HolderHtlc {
                    transaction: &transaction,
                    input,
                    number,
                    commitment_txid,
                    feerate_sat_per_kw: request.feerate_sat_per_kw,
                    htlc,
                },
            )?;
            self.guard.permit(
                &of.keys_id,
                &Request::SignHolderHtlc {
                    funding: funding_outpoint(&of.funding),
                    number: number.get(),
                    txid: Bytes(commitment_txid.to_byte_array()),
                },
            )?;
            self.signature(signature)
        })
    }

    pub fn sign_counterparty_htlc(
        &self,
        caller: &Identity,
        request: v1::SignCounterpartyHtlcRequest,
    ) -> Result<v1::SignatureResponse, Error> {
        self.answer(caller, Call::SignCounterpartyHtlc, |subject| {
            let _fence = self.guard.fence(caller, request.term)?;
            let of = ChannelRef::from_wire("channel", parse::required("channel", &request.channel)?)?;
            subject.channel(&of);
            let their_point = parse::public_key("per_commitment_point", &request.per_commitment_point)?;
            let htlc = htlc_to_ldk("htlc", parse::required("htlc", &request.htlc)?)?;
            let amount = parse::amount("amount_sat", request.amount_sat)?;
            let (transaction, input) = transaction_input(&request.transaction, request.input_index)?;
            subject.transaction = Some(transaction.compute_txid());
            let (channel, parameters) = self.registered(&of)?;
            self.guard.permit(
                &of.keys_id,
                &Request::SignCounterpartyHtlc {
                    funding: funding_outpoint(&of.funding),
                    txid: spent_txid(&transaction, input),
                    point: point(&their_point),
                },
            )?;
            let keys = &channel.keys;
            self.signature(keys.sign_counterparty_htlc(
                &parameters,
                &transaction,
                input,
                amount,
                &their_point,
                &htlc,
            )?)
        })
    }

    pub fn sign_justice(
        &self,
        caller: &Identity,
        request: v1::SignJusticeRequest,
    ) -> Result<v1::SignatureResponse, Error> {
        self.answer(caller, Call::SignJustice, |subject| {
            let _fence = self.guard.fence(caller, request.term)?;
            let of = ChannelRef::from_wire("channel", parse::required("channel", &request.channel)?)?;
            subject.channel(&of);
            let secret = Secret::new(parse::secret_key("per_commitment_secret", &request.per_commitment_secret)?);
            let amount = parse::amount("amount_sat", request.amount_sat)?;
            let htlc = request.htlc.as_ref().map(|htlc| htlc_to_ldk("htlc", htlc)).transpose()?;
            let (transaction, input) = transaction_input(&request.transaction, request.input_index)?;
            subject.transaction = Some(transaction.compute_txid());
            let (channel, parameters) = self.registered(&of)?;
            self.signature(channel.keys.sign_justice(
                &parameters,
                &transaction,
                input,
                amount,
                &secret,
                htlc.as_ref(),
            )?)
        })
    }

    pub fn sign_holder_anchor(
        &self,
        caller: &Identity,
        request: v1::SignHolderAnchorRequest,
    ) -> Result<v1::SignatureResponse, Error> {
        self.answer(caller, Call::SignHolderAnchor, |subject| {
            let _fence = self.guard.fence(caller, request.term)?;
            let of = ChannelRef::from_wire("channel", parse::required("channel", &request.channel)?)?;
            subject.channel(&of);
            let (transaction, input) = transaction_input(&request.transaction, request.input_index)?;
            subject.transaction = Some(transaction.compute_txid());
            let (channel, parameters) = self.registered(&of)?;
            if !parameters.channel_type_features.supports_anchors_zero_fee_htlc_tx() {
                return Err(Error::misuse("channel", "has no anchors"));
            }
            self.guard.permit(
                &of.keys_id,
                &Request::SignAnchor { funding: funding_outpoint(&of.funding), txid: spent_txid(&transaction, input) },
            )?;
            self.signature(channel.keys.sign_anchor(&parameters, &transaction, input)?)
        })
    }

    pub fn sign_closing(
        &self,
        caller: &Identity,
        request: v1::SignClosingRequest,
    ) -> Result<v1::SignatureResponse, Error> {
        self.answer(caller, Call::SignClosing, |subject| {
            self.guard.fence(caller, request.term)?;
            let of = ChannelRef::from_wire("channel", parse::required("channel", &request.channel)?)?;
            subject.channel(&of);
            // To look for a script may take a moment, in which no term could rise behind the fence.
            let script = Script::from_bytes(&request.to_holder_script);
            check_close_destination(&self.rules, request.to_holder_sat, script, |script| self.keys.owns(script))?;
            let _fence = self.guard.fence(caller, request.term)?;
            let (channel, parameters) = self.registered(&of)?;
            let closing = closing_to_ldk(&request, &parameters)?;
            subject.transaction = Some(closing.trust().built_transaction().compute_txid());
            self.guard.permit(&of.keys_id, &Request::SignClose { funding: funding_outpoint(&of.funding) })?;
            self.signature(channel.keys.sign_closing(&parameters, &closing)?)
        })
    }

    pub fn sign_channel_announcement(
        &self,
        caller: &Identity,
        request: v1::SignChannelAnnouncementRequest,
    ) -> Result<v1::SignatureResponse, Error> {
        self.answer(caller, Call::SignChannelAnnouncement, |subject| {
            let _fence = self.guard.fence(caller, request.term)?;
            let of = ChannelRef::from_wire("channel", parse::required("channel", &request.channel)?)?;
            subject.channel(&of);
            let announcement = self.channel_announcement(&request.channel_announcement)?;
            let (channel, parameters) = self.registered(&of)?;
            let us = (
                NodeId::from_pubkey(&self.identity.public_key()),
                NodeId::from_pubkey(&parameters.holder_pubkeys.funding_pubkey),
            );
            let sides = [
                (announcement.node_id_1, announcement.bitcoin_key_1),
                (announcement.node_id_2, announcement.bitcoin_key_2),
            ];
            if !sides.contains(&us) {
                return Err(Error::misuse("channel_announcement", "does not name us with this channel's funding key"));
            }
            self.signature(channel.keys.sign_announcement(&parameters, &announcement)?)
        })
    }

    pub fn sign_splice_input(
        &self,
        caller: &Identity,
        request: v1::SignSpliceInputRequest,
    ) -> Result<v1::SignatureResponse, Error> {
        self.answer(caller, Call::SignSpliceInput, |subject| {
            let _fence = self.guard.fence(caller, request.term)?;
            let of = ChannelRef::from_wire("channel", parse::required("channel", &request.channel)?)?;
            subject.channel(&of);
            let (transaction, input) = transaction_input(&request.transaction, request.input_index)?;
            subject.transaction = Some(transaction.compute_txid());
            let (channel, parameters) = self.registered(&of)?;
            self.check_splice(&of, &transaction)?;
            self.guard.permit(
                &of.keys_id,
                &Request::SignSplice {
                    funding: funding_outpoint(&of.funding),
                    txid: Bytes(transaction.compute_txid().to_byte_array()),
                },
            )?;
            self.signature(channel.keys.sign_splice_input(&parameters, &transaction, input)?)
        })
    }

    /// `funding-script`: the transaction pays a funding output that is registered as made from this one. Its txid alone
    /// proves nothing: whoever registers an output names the txid, and could name that of a revoked commitment.
    fn check_splice(&self, of: &ChannelRef, transaction: &Transaction) -> Result<(), Error> {
        let txid = transaction.compute_txid();
        for registered in self.guard.state(&of.keys_id)?.fundings {
            let funding = OutPoint { txid, index: registered.outpoint.vout };
            if registered.outpoint != funding_outpoint(&funding) {
                continue;
            }
            let (_, parameters) = self.registered(&ChannelRef { funding, ..*of })?;
            let made = parameters.splice_parent_funding_txid == Some(of.funding.txid);
            if made && transaction.output.get(usize::from(funding.index)) == Some(&funding_output(&parameters)?) {
                return Ok(());
            }
        }
        let refusal: Result<(), Refusal> =
            Rule::FundingScript.refuse("the transaction pays no registered funding output of this channel");
        Ok(refusal?)
    }

    pub(super) fn signature(&self, signature: Signature) -> Result<v1::SignatureResponse, Error> {
        self.metrics.signed(1);
        Ok(v1::SignatureResponse { signature: signature.serialize_compact().to_vec() })
    }
}

fn transaction_input(bytes: &[u8], index: u32) -> Result<(Transaction, usize), Error> {
    let (transaction, input) = parse::transaction_input("transaction", bytes, "input_index", index)?;
    if !transaction.input[input].script_sig.is_empty() {
        return Err(Error::misuse("transaction", "the input has a script of the old kind"));
    }
    Ok((transaction, input))
}

fn spent_txid(transaction: &Transaction, input: usize) -> TxId {
    Bytes(transaction.input[input].previous_output.txid.to_byte_array())
}
