//! How channels are made and kept, where LDK leaves the choice.

use lightning::{types::features::ChannelTypeFeatures, util::config::UserConfig};

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
    // So that an invoice is in the store before it is paid.
    config.manually_handle_bolt12_invoices = true;
    config
}

/// Why a channel that a peer wants to open is not accepted. `reserve_sat` is what the wallet has to keep with it.
pub fn reason_to_refuse(
    kind: &ChannelTypeFeatures,
    capacity_sat: u64,
    spendable_sat: u64,
    reserve_sat: u64,
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
    if kind.requires_anchors_zero_fee_htlc_tx() && spendable_sat < reserve_sat {
        return Some(format!(
            "the wallet can spend {spendable_sat} sat, and with it {reserve_sat} sat would be reserved"
        ));
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
        assert!(reason_to_refuse(&anchors(), 1_000_000, 0, 10_000).is_some());
        assert!(reason_to_refuse(&anchors(), 1_000_000, 10_000, 10_000).is_none());
        assert!(reason_to_refuse(&anchors(), 1_000_000, 10_000, 20_000).is_some());
        assert!(reason_to_refuse(&ChannelTypeFeatures::only_static_remote_key(), 1_000_000, 0, 60_000).is_none());
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
