//! A channel's keys and parameters: given out, registered, and kept at hand.

use std::sync::{Arc, PoisonError, RwLock};

use bitcoin::hashes::{Hash, sha256};
use holdfast_proto::{
    error::Error,
    identity::Identity,
    lightning::{ChannelRef, CommitmentNumber, parameters_to_ldk, parameters_to_wire, parse, public_keys_to_wire},
    signer::v1,
};
use lightning::{chain::transaction::OutPoint, ln::chan_utils::ChannelTransactionParameters};
use prost::Message;

use super::{SignerCore, commitments::early_commitment};
use crate::{
    guard::{
        Bytes,
        machine::Request,
        state::{FundingOutpoint, Parameters},
    },
    keys::ChannelKeys,
    rules::{Call, check_channel_type, check_parameters},
};

/// Points that one request may ask for.
const MAX_POINTS: u32 = 64;
/// Channels whose public keys are kept derived. A node with more of them works, only slower.
const MAX_CACHED: usize = 1 << 16;

/// A channel's keys, the public ones derived, and the parameters of its funding outputs, parsed.
pub(super) struct Channel {
    pub(super) keys: ChannelKeys,
    parameters: RwLock<Vec<Arc<ChannelTransactionParameters>>>,
}

/// A channel and the parameters of one of its funding outputs.
type Registered = (Arc<Channel>, Arc<ChannelTransactionParameters>);

impl SignerCore {
    pub fn get_channel_public_keys(
        &self,
        caller: &Identity,
        request: v1::GetChannelPublicKeysRequest,
    ) -> Result<v1::ChannelPublicKeys, Error> {
        self.answer(caller, Call::GetChannelPublicKeys, |_| {
            self.guard.fence(caller, request.term)?;
            let keys_id = parse::array("channel_keys_id", &request.channel_keys_id)?;
            let parent = request
                .splice_parent_funding_txid
                .as_deref()
                .map(|txid| parse::txid("splice_parent_funding_txid", txid))
                .transpose()?;
            Ok(public_keys_to_wire(&self.channel(&keys_id).keys.public_keys(parent)))
        })
    }

    pub fn get_per_commitment_points(
        &self,
        caller: &Identity,
        request: v1::GetPerCommitmentPointsRequest,
    ) -> Result<v1::GetPerCommitmentPointsResponse, Error> {
        self.answer(caller, Call::GetPerCommitmentPoints, |_| {
            self.guard.fence(caller, request.term)?;
            let keys_id = parse::array("channel_keys_id", &request.channel_keys_id)?;
            if !(1..=MAX_POINTS).contains(&request.count) {
                return Err(Error::misuse("count", format!("is not between 1 and {MAX_POINTS}")));
            }
            let last = request.first_number.saturating_add(u64::from(request.count) - 1);
            CommitmentNumber::new("first_number", last)?;
            let channel = self.channel(&keys_id);
            let point = |number| {
                let number = CommitmentNumber::new("first_number", number)?;
                Ok(channel.keys.per_commitment_point(number).serialize().to_vec())
            };
            let points = (request.first_number..=last).map(point).collect::<Result<_, Error>>()?;
            Ok(v1::GetPerCommitmentPointsResponse { points })
        })
    }

    pub fn register_funding(
        &self,
        caller: &Identity,
        request: v1::RegisterFundingRequest,
    ) -> Result<v1::RegisterFundingResponse, Error> {
        self.answer(caller, Call::RegisterFunding, |subject| {
            let _fence = self.guard.fence(caller, request.term)?;
            let of = ChannelRef::from_wire("channel", parse::required("channel", &request.channel)?)?;
            subject.channel(&of);
            let wire = parse::required("parameters", &request.parameters)?;
            check_channel_type(wire)?;
            let parameters = Arc::new(parameters_to_ldk("parameters", wire, of.funding)?);
            let channel = self.channel(&of.keys_id);
            if !channel.keys.owns(&parameters.holder_pubkeys, parameters.splice_parent_funding_txid) {
                return Err(Error::misuse("parameters.holder_pubkeys", "are not this channel's"));
            }

            let funding = funding_outpoint(&of.funding);
            let recorded = recorded_parameters(&parameters)?;
            self.guard.permit_with(&of.keys_id, |state| {
                // Limits are for what is new: a channel that was opened under wider ones has to be closed, and its peer
                // punished, under these.
                if state.funding(funding).is_none() {
                    check_parameters(&self.rules, &parameters)?;
                }
                // Shown before its parameters, checked now that they are here.
                let early = match &state.holder.early {
                    Some(early) if early.funding == funding => {
                        Some(early_commitment(&channel.keys, &parameters, &early.encoded)?)
                    }
                    _ => None,
                };
                Ok(Request::Register { funding, parameters: recorded.clone(), early })
            })?;
            channel.keep(parameters);
            Ok(v1::RegisterFundingResponse {})
        })
    }

    /// The channel's keys, derived at most once while there is room.
    pub(super) fn channel(&self, keys_id: &[u8; 32]) -> Arc<Channel> {
        if let Some(channel) = self.channels.read().unwrap_or_else(PoisonError::into_inner).get(keys_id) {
            return Arc::clone(channel);
        }
        let channel = Arc::new(Channel { keys: self.keys.channel(keys_id), parameters: RwLock::default() });
        let mut channels = self.channels.write().unwrap_or_else(PoisonError::into_inner);
        if channels.len() >= MAX_CACHED {
            return channel;
        }
        Arc::clone(channels.entry(*keys_id).or_insert(channel))
    }

    /// The registered parameters of the channel's funding output.
    pub(super) fn registered(&self, of: &ChannelRef) -> Result<Registered, Error> {
        let found = self.registered_if(of)?;
        found.ok_or_else(|| Error::misuse("channel.funding_outpoint", "is not registered"))
    }

    /// The same, or nothing when they are not registered yet.
    pub(super) fn registered_if(&self, of: &ChannelRef) -> Result<Option<Registered>, Error> {
        let channel = self.channel(&of.keys_id);
        if let Some(parameters) = channel.kept(&of.funding) {
            return Ok(Some((channel, parameters)));
        }
        let state = self.guard.state(&of.keys_id)?;
        let Some(funding) = state.funding(funding_outpoint(&of.funding)) else { return Ok(None) };
        let wire = v1::ChannelParameters::decode(funding.parameters.encoded.as_slice())
            .map_err(|error| Error::Internal(format!("recorded parameters: {error}")))?;
        let parameters = Arc::new(parameters_to_ldk("parameters", &wire, of.funding)?);
        channel.keep(Arc::clone(&parameters));
        Ok(Some((channel, parameters)))
    }
}

impl Channel {
    fn kept(&self, funding: &OutPoint) -> Option<Arc<ChannelTransactionParameters>> {
        let kept = self.parameters.read().unwrap_or_else(PoisonError::into_inner);
        kept.iter().find(|parameters| parameters.funding_outpoint.as_ref() == Some(funding)).cloned()
    }

    fn keep(&self, parameters: Arc<ChannelTransactionParameters>) {
        let mut kept = self.parameters.write().unwrap_or_else(PoisonError::into_inner);
        if !kept.contains(&parameters) {
            kept.push(parameters);
        }
    }
}

pub(super) fn funding_outpoint(outpoint: &OutPoint) -> FundingOutpoint {
    FundingOutpoint { txid: Bytes(outpoint.txid.to_byte_array()), vout: outpoint.index }
}

/// What the guard keeps of the parameters.
fn recorded_parameters(parameters: &ChannelTransactionParameters) -> Result<Parameters, Error> {
    let (_, wire) = parameters_to_wire(parameters)?;
    let encoded = wire.encode_to_vec();
    let mut lasting = v1::ChannelParameters { holder_pubkeys: None, splice_parent_funding_txid: None, ..wire };
    lasting.channel_value_sat = 0;
    if let Some(counterparty) = &mut lasting.counterparty_pubkeys {
        counterparty.funding_pubkey.clear();
    }
    Ok(Parameters {
        encoded,
        lasting: Bytes(sha256::Hash::hash(&lasting.encode_to_vec()).to_byte_array()),
        parent: parameters.splice_parent_funding_txid.map(|txid| Bytes(txid.to_byte_array())),
    })
}
