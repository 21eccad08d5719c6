//! What forwarding over a channel costs, changed while the node runs.
//!
//! LDK keeps each channel's policy in the manager, so it is committed with it, and a new leader charges what the old one
//! did. The network hears of a change after its commit, as of every message.

use holdfast_proto::{error::Error, node::v1};
use lightning::{ln::channelmanager::MIN_CLTV_EXPIRY_DELTA, util::config::ChannelConfigUpdate, util::errors::APIError};

use super::{channels::channel_message, node::LightningNode};

/// Millionths: more than the payment itself is a slip of the hand.
const MAX_FEE_PPM: u32 = 1_000_000;
/// Two weeks. Payers bound a whole route by that.
const MAX_CLTV_DELTA: u32 = 2016;

impl LightningNode {
    pub(super) async fn set_policy(&self, request: v1::SetChannelPolicyRequest) -> Result<v1::Channel, Error> {
        self.must_run()?;
        let update = parse(&request)?;
        let channel = self.find_channel(&request.channel_id)?;
        let (id, peer) = (channel.channel_id, channel.counterparty.node_id);
        tokio::task::block_in_place(|| {
            self.queue.with_state(|| {
                self.must_run()?;
                self.manager.update_partial_channel_config(&peer, &[id], &update).map_err(|error| match error {
                    APIError::APIMisuseError { err } | APIError::ChannelUnavailable { err } => {
                        Error::misuse("channel_id", err)
                    }
                    other => Error::misuse("channel_id", format!("{other:?}")),
                })
            })
        })?;
        self.committed().await?;
        Ok(channel_message(&self.find_channel(&request.channel_id)?))
    }
}

fn parse(request: &v1::SetChannelPolicyRequest) -> Result<ChannelConfigUpdate, Error> {
    let v1::SetChannelPolicyRequest { base_fee_msat, fee_ppm, cltv_delta, .. } = request;
    if base_fee_msat.is_none() && fee_ppm.is_none() && cltv_delta.is_none() {
        return Err(Error::misuse("base_fee_msat", "nothing is to be changed: give it, fee_ppm or cltv_delta"));
    }
    if fee_ppm.is_some_and(|ppm| ppm > MAX_FEE_PPM) {
        return Err(Error::misuse("fee_ppm", format!("it is more than {MAX_FEE_PPM}, which is all of a payment")));
    }
    let allowed = u32::from(MIN_CLTV_EXPIRY_DELTA)..=MAX_CLTV_DELTA;
    if let Some(delta) = cltv_delta.filter(|delta| !allowed.contains(delta)) {
        let why = format!("{delta} blocks are not from {} to {}", allowed.start(), allowed.end());
        return Err(Error::misuse("cltv_delta", why));
    }
    Ok(ChannelConfigUpdate {
        forwarding_fee_base_msat: *base_fee_msat,
        forwarding_fee_proportional_millionths: *fee_ppm,
        cltv_expiry_delta: cltv_delta.and_then(|delta| u16::try_from(delta).ok()),
        max_dust_htlc_exposure_msat: None,
        force_close_avoidance_max_fee_satoshis: None,
        accept_underpaying_htlcs: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_that_makes_no_sense_is_refused_by_name() {
        let request = v1::SetChannelPolicyRequest::default();
        let with = |base_fee_msat, fee_ppm, cltv_delta| v1::SetChannelPolicyRequest {
            base_fee_msat,
            fee_ppm,
            cltv_delta,
            ..request.clone()
        };
        let min = u32::from(MIN_CLTV_EXPIRY_DELTA);
        for (request, field) in [
            (request.clone(), "base_fee_msat"),
            (with(None, Some(MAX_FEE_PPM + 1), None), "fee_ppm"),
            (with(None, None, Some(min - 1)), "cltv_delta"),
            (with(None, None, Some(u32::from(u16::MAX) + 1)), "cltv_delta"),
        ] {
            assert!(matches!(parse(&request), Err(Error::Misuse { field: at, .. }) if at == field), "{request:?}");
        }
        let update = parse(&with(Some(0), Some(MAX_FEE_PPM), Some(min))).unwrap();
        assert_eq!(update.forwarding_fee_base_msat, Some(0));
        assert_eq!(update.cltv_expiry_delta, Some(MIN_CLTV_EXPIRY_DELTA));
        assert_eq!(update.accept_underpaying_htlcs, None);
    }
}
