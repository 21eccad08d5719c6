//! Finding and describing channels; balances.

use holdfast_proto::{error::Error, node::v1};
use lightning::{
    chain::channelmonitor::Balance,
    ln::{
        channel_state::{ChannelDetails, ChannelShutdownState},
        types::ChannelId,
    },
    sign::SpendableOutputDescriptor,
    util::{errors::APIError, sweep::OutputSpendStatus},
};

use super::{claimable::left_in, node::LightningNode};

impl LightningNode {
    pub(super) fn channels(&self) -> Vec<v1::Channel> {
        let mut channels: Vec<_> = self.manager.list_channels().iter().map(channel_message).collect();
        channels.sort_by(|a, b| a.channel_id.cmp(&b.channel_id));
        channels
    }

    /// Taken between two steps of the node: what a block moves from one balance to another is in one of them.
    pub(super) fn balances(&self) -> v1::GetBalanceResponse {
        tokio::task::block_in_place(|| {
            let _state = self.queue.lock_state();
            self.balances_now()
        })
    }

    fn balances_now(&self) -> v1::GetBalanceResponse {
        let onchain = self.wallet.balance();
        let channels = self.manager.list_channels();
        let open: Vec<ChannelId> = channels.iter().map(|channel| channel.channel_id).collect();
        let (mut lightning_sat, mut closing_sat) = (0u64, 0u64);
        for id in self.monitors.list_monitors() {
            let Ok(monitor) = self.monitors.get_monitor(id) else { continue };
            if !open.contains(&id) {
                closing_sat += left_in(&monitor).iter().map(Balance::claimable_amount_satoshis).sum::<u64>();
                continue;
            }
            for balance in monitor.get_claimable_balances() {
                if let Balance::ClaimableOnChannelClose {
                    balance_candidates, confirmed_balance_candidate_index, ..
                } = balance
                {
                    // Ours until the channel closes, the fee that closing would cost included.
                    let now = balance_candidates.get(confirmed_balance_candidate_index);
                    lightning_sat += now.map_or(0, |b| b.amount_satoshis + b.transaction_fee_satoshis);
                }
            }
        }
        // Left to us by closed channels, and not yet on its way to the wallet.
        for output in self.sweeper.tracked_spendable_outputs() {
            let (outpoint, value) = match output.descriptor {
                SpendableOutputDescriptor::StaticOutput { outpoint, output, .. } => (outpoint, output.value),
                SpendableOutputDescriptor::DelayedPaymentOutput(output) => (output.outpoint, output.output.value),
                SpendableOutputDescriptor::StaticPaymentOutput(output) => (output.outpoint, output.output.value),
            };
            // Once bitcoind has its sweep, the wallet counts what that pays.
            let counted = match output.status {
                OutputSpendStatus::PendingInitialBroadcast { .. } => false,
                OutputSpendStatus::PendingFirstConfirmation { .. } => {
                    self.wallet.has_spend_of(outpoint.into_bitcoin_outpoint())
                }
                OutputSpendStatus::PendingThresholdConfirmations { .. } => true,
            };
            closing_sat += if counted { 0 } else { value.to_sat() };
        }
        v1::GetBalanceResponse {
            onchain_confirmed_sat: onchain.confirmed_sat,
            onchain_pending_sat: onchain.pending_sat,
            onchain_spendable_sat: onchain.spendable_sat,
            onchain_reserve_sat: self.reserve().to_sat(),
            lightning_sat,
            lightning_outbound_msat: channels.iter().filter(|c| c.is_usable).map(|c| c.outbound_capacity_msat).sum(),
            lightning_inbound_msat: channels.iter().filter(|c| c.is_usable).map(|c| c.inbound_capacity_msat).sum(),
            closing_sat,
        }
    }

    pub(super) fn find_channel(&self, id: &str) -> Result<ChannelDetails, Error> {
        let wanted = id.to_ascii_lowercase();
        let is_it = |channel: &ChannelDetails| {
            channel.channel_id.to_string() == wanted || format!("{:032x}", channel.user_channel_id) == wanted
        };
        let found = self.manager.list_channels().into_iter().find(is_it);
        found.ok_or_else(|| Error::misuse("channel_id", "there is no open channel of this id"))
    }
}

pub(super) fn channel_message(channel: &ChannelDetails) -> v1::Channel {
    let closing = !matches!(channel.channel_shutdown_state, None | Some(ChannelShutdownState::NotShuttingDown));
    let anchors = channel.channel_type.as_ref().is_some_and(|kind| kind.requires_anchors_zero_fee_htlc_tx());
    v1::Channel {
        channel_id: channel.channel_id.to_string(),
        user_channel_id: format!("{:032x}", channel.user_channel_id),
        counterparty: channel.counterparty.node_id.to_string(),
        funding_outpoint: channel.funding_txo.map(|o| o.into_bitcoin_outpoint().to_string()).unwrap_or_default(),
        capacity_sat: channel.channel_value_satoshis,
        outbound_msat: channel.outbound_capacity_msat,
        inbound_msat: channel.inbound_capacity_msat,
        is_outbound: channel.is_outbound,
        is_announced: channel.is_announced,
        is_ready: channel.is_channel_ready,
        is_usable: channel.is_usable,
        pending_htlcs: (channel.pending_inbound_htlcs.len() + channel.pending_outbound_htlcs.len()) as u32,
        short_channel_id: channel.short_channel_id.map(scid_text).unwrap_or_default(),
        channel_type: if anchors { "anchors" } else { "static-remote-key" }.into(),
        base_fee_msat: channel.config.map_or(0, |config| config.forwarding_fee_base_msat),
        fee_ppm: channel.config.map_or(0, |config| config.forwarding_fee_proportional_millionths),
        cltv_delta: channel.config.map_or(0, |config| config.cltv_expiry_delta.into()),
        state: match (closing, channel.is_channel_ready) {
            (true, _) => "closing",
            (false, true) => "ready",
            (false, false) => "opening",
        }
        .into(),
    }
}

/// BOLT 7's form: block, transaction, output.
pub(super) fn scid_text(scid: u64) -> String {
    format!("{}x{}x{}", scid >> 40, (scid >> 16) & 0xff_ffff, scid & 0xffff)
}

pub(super) fn misuse(field: &str, error: APIError) -> Error {
    match error {
        APIError::APIMisuseError { err } | APIError::ChannelUnavailable { err } | APIError::InvalidRoute { err } => {
            Error::misuse(field, err)
        }
        other => Error::misuse(field, format!("{other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_channel_ids_read_as_bolt_7_writes_them() {
        assert_eq!(scid_text(539268 << 40 | 845 << 16 | 1), "539268x845x1");
    }
}
