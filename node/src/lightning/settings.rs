//! How channels are made and kept, where LDK leaves the choice.

use lightning::util::config::UserConfig;

use super::limits::MAX_SAT;

pub fn user_config() -> UserConfig {
    let mut config = UserConfig::default();
    let handshake = &mut config.channel_handshake_config;
    handshake.negotiate_anchors_zero_fee_htlc_tx = true;
    // As other implementations do: what bounds the risk is the dust exposure, not the sum in flight.
    handshake.max_inbound_htlc_value_in_flight_percent_of_channel = 100;
    config.channel_handshake_limits.force_announced_channel_preference = false;
    // Whom to serve, and with how much, is the decision of `OpenChannelRequest`'s handler.
    config.channel_handshake_limits.max_funding_satoshis = MAX_SAT;
    config.manually_accept_inbound_channels = true;
    // So that an operator can say at the close where the money goes. That a replica cannot send it anywhere is the
    // signer's to see to (`close-destination`).
    handshake.commit_upfront_shutdown_pubkey = false;
    // The gate does not let one through either; see `splicing`.
    config.reject_inbound_splices = true;
    config.accept_forwards_to_priv_channels = true;
    // So that an invoice is in the store before it is paid.
    config.manually_handle_bolt12_invoices = true;
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_node_relies_on_is_set() {
        let config = user_config();
        assert!(config.manually_accept_inbound_channels && config.manually_handle_bolt12_invoices);
        assert!(config.reject_inbound_splices && !config.channel_handshake_config.commit_upfront_shutdown_pubkey);
    }
}
