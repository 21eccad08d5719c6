//! How channels are made and kept, where LDK leaves the choice.

use lightning::{types::features::ChannelTypeFeatures, util::config::UserConfig};

/// Satoshi kept on chain for each channel with anchors, so that its commitment can be brought into a block when fees
/// rise.
pub const ANCHOR_RESERVE_SAT: u64 = 10_000;

/// The largest capacity that a peer may open towards us: its money, but our fee reserve and our attention.
pub const MAX_INBOUND_CAPACITY_SAT: u64 = 1_000_000_000;

pub fn user_config() -> UserConfig {
    let mut config = UserConfig::default();
    let handshake = &mut config.channel_handshake_config;
    handshake.negotiate_anchors_zero_fee_htlc_tx = true;
    // As other implementations do: what bounds the risk is the dust exposure, not the sum in flight.
    handshake.max_inbound_htlc_value_in_flight_percent_of_channel = 100;
    config.channel_handshake_limits.force_announced_channel_preference = false;
    config.channel_handshake_limits.max_funding_satoshis = MAX_INBOUND_CAPACITY_SAT;
    // Whom to serve is the decision of `OpenChannelRequest`'s handler.
    config.manually_accept_inbound_channels = true;
    config.accept_forwards_to_priv_channels = true;
    config
}

/// Why a channel that a peer wants to open is not accepted.
pub fn reason_to_refuse(
    kind: &ChannelTypeFeatures,
    capacity_sat: u64,
    spendable_sat: u64,
    channels: u64,
) -> Option<String> {
    if kind.requires_zero_conf() {
        return Some("channels without confirmation are not accepted".into());
    }
    if !kind.requires_anchors_zero_fee_htlc_tx() && !kind.requires_static_remote_key() {
        return Some("the channel's type is neither static-remote-key nor anchors".into());
    }
    if capacity_sat > MAX_INBOUND_CAPACITY_SAT {
        return Some(format!("its capacity is above {MAX_INBOUND_CAPACITY_SAT} sat"));
    }
    let needed = (channels + 1).saturating_mul(ANCHOR_RESERVE_SAT);
    if kind.requires_anchors_zero_fee_htlc_tx() && spendable_sat < needed {
        return Some(format!("the on-chain reserve is {spendable_sat} sat, and with it {needed} sat would be needed"));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn anchors() -> ChannelTypeFeatures {
        ChannelTypeFeatures::anchors_zero_htlc_fee_and_dependencies()
    }

    #[test]
    fn a_channel_that_could_not_be_closed_is_not_opened() {
        assert!(reason_to_refuse(&anchors(), 1_000_000, 0, 0).is_some());
        assert!(reason_to_refuse(&anchors(), 1_000_000, ANCHOR_RESERVE_SAT, 0).is_none());
        assert!(reason_to_refuse(&anchors(), 1_000_000, ANCHOR_RESERVE_SAT, 1).is_some());
        assert!(reason_to_refuse(&ChannelTypeFeatures::only_static_remote_key(), 1_000_000, 0, 5).is_none());
    }

    #[test]
    fn unconfirmed_legacy_and_oversized_channels_are_not_opened() {
        let mut zero_conf = anchors();
        zero_conf.set_zero_conf_required();
        assert!(reason_to_refuse(&zero_conf, 1_000_000, u64::MAX, 0).is_some());
        assert!(reason_to_refuse(&ChannelTypeFeatures::empty(), 1_000_000, u64::MAX, 0).is_some());
        assert!(reason_to_refuse(&anchors(), MAX_INBOUND_CAPACITY_SAT + 1, u64::MAX, 0).is_some());
    }
}
