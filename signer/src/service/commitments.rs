//! The dance of commitments: sign the counterparty's, validate ours, revoke, hear of revocations.

use bitcoin::{
    hashes::{Hash, sha256},
    secp256k1::PublicKey,
};
use holdfast_proto::{
    error::Error,
    identity::Identity,
    lightning::{ChannelRef, CommitmentFields, CommitmentNumber, MAX_HTLCS, parse},
    signer::v1,
};
use lightning::ln::chan_utils::{ChannelTransactionParameters, CommitmentTransaction};
use prost::Message;

use super::{SignerCore, channel::funding_outpoint};
use crate::{
    guard::{
        Bytes,
        machine::{Countersigned, Request},
        state::Commitment,
    },
    keys::{ChannelKeys, CommitmentSignatures, Secret, secp, verify_holder_commitment},
    rules::{Call, Refusal, Rule},
};

impl SignerCore {
    pub fn sign_counterparty_commitment(
        &self,
        caller: &Identity,
        request: v1::SignCounterpartyCommitmentRequest,
    ) -> Result<v1::SignCounterpartyCommitmentResponse, Error> {
        self.answer(caller, Call::SignCounterpartyCommitment, |subject| {
            let _fence = self.guard.fence(caller, request.term)?;
            let of = ChannelRef::from_wire("channel", parse::required("channel", &request.channel)?)?;
            let fields = fields(&request.commitment)?;
            subject.commitment(&of, fields.number);
            parse::preimages("inbound_htlc_preimages", &request.inbound_htlc_preimages)?;
            parse::preimages("outbound_htlc_preimages", &request.outbound_htlc_preimages)?;
            let (channel, parameters) = self.registered(&of)?;

            let commitment = fields.build(&parameters.as_counterparty_broadcastable(), secp())?;
            let signatures = channel.keys.sign_counterparty_commitment(&parameters, &commitment)?;
            // Made, but not out: nobody sees them before the record of them is durable.
            self.guard.permit(
                &of.keys_id,
                &Request::SignCounterparty {
                    funding: funding_outpoint(&of.funding),
                    number: fields.number.get(),
                    point: point(&fields.per_commitment_point),
                    commitment: recorded(&commitment)?,
                    htlcs: fields.htlcs.len(),
                },
            )?;
            self.metrics.signed(1 + signatures.htlcs.len());
            Ok(v1::SignCounterpartyCommitmentResponse {
                signature: signatures.commitment.serialize_compact().to_vec(),
                htlc_signatures: signatures.htlcs.iter().map(|htlc| htlc.serialize_compact().to_vec()).collect(),
            })
        })
    }

    pub fn validate_holder_commitment(
        &self,
        caller: &Identity,
        request: v1::ValidateHolderCommitmentRequest,
    ) -> Result<v1::ValidateHolderCommitmentResponse, Error> {
        self.answer(caller, Call::ValidateHolderCommitment, |subject| {
            let _fence = self.guard.fence(caller, request.term)?;
            let of = ChannelRef::from_wire("channel", parse::required("channel", &request.channel)?)?;
            let shown = Shown::parse(&request)?;
            subject.commitment(&of, shown.fields.number);
            parse::preimages("outbound_htlc_preimages", &request.outbound_htlc_preimages)?;
            let funding = funding_outpoint(&of.funding);

            if let Some((channel, parameters)) = self.registered_if(&of)? {
                let commitment = shown.verify(&channel.keys, &parameters)?;
                self.guard.permit(&of.keys_id, &Request::Validate { funding, commitment })?;
                return Ok(v1::ValidateHolderCommitmentResponse {});
            }
            shown.check_point(&self.channel(&of.keys_id).keys)?;
            shown.check_size()?;
            // The term and the preimages have no place in the record: the question is the same under another term.
            let encoded = v1::ValidateHolderCommitmentRequest { term: 0, outbound_htlc_preimages: vec![], ..request }
                .encode_to_vec();
            self.guard.permit_with(&of.keys_id, |state| {
                if state.funding(funding).is_some() {
                    // Registered since we looked: the next attempt verifies it at once.
                    return Err(Error::unavailable("the channel is being registered"));
                }
                let number = shown.fields.number.get();
                Ok(Request::ValidateEarly { funding, number, encoded: encoded.clone() })
            })?;
            Ok(v1::ValidateHolderCommitmentResponse {})
        })
    }

    pub fn release_commitment_secret(
        &self,
        caller: &Identity,
        request: v1::ReleaseCommitmentSecretRequest,
    ) -> Result<v1::ReleaseCommitmentSecretResponse, Error> {
        self.answer(caller, Call::ReleaseCommitmentSecret, |subject| {
            let _fence = self.guard.fence(caller, request.term)?;
            let keys_id = parse::array("channel_keys_id", &request.channel_keys_id)?;
            let number = CommitmentNumber::new("number", request.number)?;
            subject.channel = Some(keys_id);
            subject.number = Some(number.get());
            self.guard.permit(&keys_id, &Request::ReleaseSecret { number: number.get() })?;
            let secret = self.channel(&keys_id).keys.per_commitment_secret(number);
            Ok(v1::ReleaseCommitmentSecretResponse { secret: secret.to_vec() })
        })
    }

    pub fn validate_counterparty_revocation(
        &self,
        caller: &Identity,
        request: v1::ValidateCounterpartyRevocationRequest,
    ) -> Result<v1::ValidateCounterpartyRevocationResponse, Error> {
        self.answer(caller, Call::ValidateCounterpartyRevocation, |subject| {
            let _fence = self.guard.fence(caller, request.term)?;
            let keys_id = parse::array("channel_keys_id", &request.channel_keys_id)?;
            let number = CommitmentNumber::new("number", request.number)?.get();
            subject.channel = Some(keys_id);
            subject.number = Some(number);
            let secret = parse::array("secret", &request.secret)?;
            let key = Secret::new(parse::secret_key("secret", &request.secret)?);
            let point = point(&key.public_key());
            self.guard.permit(&keys_id, &Request::CounterpartyRevokes { number, secret, point })?;
            Ok(v1::ValidateCounterpartyRevocationResponse {})
        })
    }

    pub fn sign_holder_commitment(
        &self,
        caller: &Identity,
        request: v1::SignHolderCommitmentRequest,
    ) -> Result<v1::SignatureResponse, Error> {
        self.answer(caller, Call::SignHolderCommitment, |subject| {
            let _fence = self.guard.fence(caller, request.term)?;
            let of = ChannelRef::from_wire("channel", parse::required("channel", &request.channel)?)?;
            let fields = fields(&request.commitment)?;
            subject.commitment(&of, fields.number);
            let (channel, parameters) = self.registered(&of)?;
            check_point(&channel.keys, &fields)?;
            let commitment = fields.build(&parameters.as_holder_broadcastable(), secp())?;
            self.guard.permit(
                &of.keys_id,
                &Request::SignHolder {
                    funding: funding_outpoint(&of.funding),
                    number: fields.number.get(),
                    content: recorded(&commitment)?.content,
                },
            )?;
            self.signature(channel.keys.sign_holder_commitment(&parameters, &commitment)?)
        })
    }
}

/// A holder commitment as the counterparty signed it.
struct Shown {
    fields: CommitmentFields,
    signatures: CommitmentSignatures,
}

impl Shown {
    fn parse(request: &v1::ValidateHolderCommitmentRequest) -> Result<Self, Error> {
        // The guard keeps the whole message when it comes early, so that its size has to have an end.
        if request.counterparty_htlc_signatures.len() > MAX_HTLCS {
            return Err(Error::misuse("counterparty_htlc_signatures", format!("are more than {MAX_HTLCS}")));
        }
        Ok(Self {
            fields: fields(&request.commitment)?,
            signatures: CommitmentSignatures {
                commitment: parse::signature("counterparty_signature", &request.counterparty_signature)?,
                htlcs: parse::signatures("counterparty_htlc_signatures", &request.counterparty_htlc_signatures)?,
            },
        })
    }

    fn check_point(&self, keys: &ChannelKeys) -> Result<(), Error> {
        check_point(keys, &self.fields)
    }

    /// What is kept unverified is no larger than it has to be: a first commitment has no HTLCs.
    fn check_size(&self) -> Result<(), Refusal> {
        if self.fields.number == CommitmentNumber::ZERO && !self.fields.htlcs.is_empty() {
            return Rule::FirstCommitment.refuse("the first commitment has HTLCs");
        }
        if self.fields.htlcs.len() != self.signatures.htlcs.len() {
            let (signatures, htlcs) = (self.signatures.htlcs.len(), self.fields.htlcs.len());
            return Rule::HolderCountersigned.refuse(format!("{signatures} HTLC signatures for {htlcs} HTLCs"));
        }
        Ok(())
    }

    fn verify(&self, keys: &ChannelKeys, parameters: &ChannelTransactionParameters) -> Result<Countersigned, Error> {
        self.check_point(keys)?;
        let commitment = self.fields.build(&parameters.as_holder_broadcastable(), secp())?;
        Ok(Countersigned {
            number: self.fields.number.get(),
            htlcs: self.fields.htlcs.len(),
            valid: verify_holder_commitment(parameters, &commitment, &self.signatures)?,
            commitment: recorded(&commitment)?,
        })
    }
}

/// A commitment that was recorded before its parameters were known, checked with them.
pub(super) fn early_commitment(
    keys: &ChannelKeys,
    parameters: &ChannelTransactionParameters,
    encoded: &[u8],
) -> Result<Countersigned, Error> {
    let request = v1::ValidateHolderCommitmentRequest::decode(encoded)
        .map_err(|error| Error::Internal(format!("recorded commitment: {error}")))?;
    Shown::parse(&request)?.verify(keys, parameters)
}

fn fields(commitment: &Option<v1::Commitment>) -> Result<CommitmentFields, Error> {
    CommitmentFields::from_wire("commitment", parse::required("commitment", commitment)?)
}

/// Our own commitments have our own points.
fn check_point(keys: &ChannelKeys, fields: &CommitmentFields) -> Result<(), Error> {
    if keys.per_commitment_point(fields.number) != fields.per_commitment_point {
        return Err(Error::misuse("commitment.per_commitment_point", "is not this channel's"));
    }
    Ok(())
}

/// What the guard compares: every field, with the HTLCs in the order of the outputs, whatever order they came in.
fn recorded(commitment: &CommitmentTransaction) -> Result<Commitment, Error> {
    let content = CommitmentFields::from_ldk(commitment)?.to_wire().encode_to_vec();
    Ok(Commitment {
        content: Bytes(sha256::Hash::hash(&content).to_byte_array()),
        txid: Bytes(commitment.trust().txid().to_byte_array()),
    })
}

pub(super) fn point(key: &PublicKey) -> Bytes<33> {
    Bytes(key.serialize())
}
