//! What operators and replicas may know.

use holdfast_proto::{error::Error, identity::Identity, lightning::parse, signer::v1};

use prost::Message;

use super::{SignerCore, network_name};
use crate::{guard::state::Funding, rules::Call};

impl SignerCore {
    pub fn get_status(
        &self,
        caller: &Identity,
        _request: v1::GetStatusRequest,
    ) -> Result<v1::GetStatusResponse, Error> {
        self.answer(caller, Call::GetStatus, |_| Ok(self.status()))
    }

    /// The same, for the program itself.
    pub fn status(&self) -> v1::GetStatusResponse {
        let not_ready = self.not_ready();
        v1::GetStatusResponse {
            node_id: self.identity.public_key().serialize().to_vec(),
            network: network_name(self.network).into(),
            custody: self.custody.backend().into(),
            ready: not_ready.is_none(),
            not_ready_reason: not_ready.unwrap_or_default(),
            newest_term: self.guard.newest_term(),
            channels: self.guard.channel_count() as u64,
            signatures: self.metrics.signatures(),
            refusals: self.metrics.refusals().map(|(rule, count)| (rule.to_owned(), count)).collect(),
            version: env!("CARGO_PKG_VERSION").into(),
        }
    }

    pub fn get_channel_state(
        &self,
        caller: &Identity,
        request: v1::GetChannelStateRequest,
    ) -> Result<v1::GetChannelStateResponse, Error> {
        self.answer(caller, Call::GetChannelState, |_| {
            let state = self.guard.state(&parse::array("channel_keys_id", &request.channel_keys_id)?)?;
            let wanted = state.fundings.iter().filter(|_| request.with_parameters);
            let fundings = wanted.map(registered).collect::<Result<_, _>>()?;
            Ok(v1::GetChannelStateResponse {
                known: state.known(),
                counterparty_number: state.counterparty.newest,
                counterparty_revoked: state.counterparty.revoked,
                holder_number: state.holder.newest,
                holder_revoked: state.holder.revoked,
                holder_signed: state.holder.signed,
                close_signed: state.close_signed,
                fundings,
            })
        })
    }
}

fn registered(funding: &Funding) -> Result<v1::RegisteredFunding, Error> {
    let parameters = v1::ChannelParameters::decode(funding.parameters.encoded.as_slice())
        .map_err(|error| Error::Internal(format!("recorded parameters: {error}")))?;
    let outpoint = v1::OutPoint { txid: funding.outpoint.txid.0.to_vec(), vout: funding.outpoint.vout.into() };
    Ok(v1::RegisteredFunding { outpoint: Some(outpoint), parameters: Some(parameters) })
}
