//! Opening, closing and describing channels; balances.

use std::str::FromStr;

use bitcoin::secp256k1::PublicKey;
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

use super::{events::new_user_channel_id, limits, node::LightningNode};
use crate::store::Effect;

/// What opening a channel of this capacity needs beyond it: the funding transaction's fee at a fair rate.
const FUNDING_FEE_WEIGHT: u64 = 800;

impl LightningNode {
    pub(super) async fn open(&self, request: v1::OpenChannelRequest) -> Result<v1::OpenChannelResponse, Error> {
        self.must_run()?;
        let peer = PublicKey::from_str(&request.node_id).map_err(|e| Error::misuse("node_id", e.to_string()))?;
        limits::sat("capacity_sat", request.capacity_sat)?;
        if request.push_msat / 1000 > request.capacity_sat {
            return Err(Error::misuse("push_msat", "it is more than the capacity"));
        }
        let reserve = self.reserve().to_sat().saturating_add(self.wallet.reserve_per_channel_sat());
        let fee = u64::from(self.fees.funding()) * FUNDING_FEE_WEIGHT / 1000;
        let needed = request.capacity_sat.saturating_add(reserve).saturating_add(fee);
        let spendable = self.wallet.balance().spendable_sat;
        if spendable < needed {
            let why =
                format!("the wallet can spend {spendable} sat; with the reserve for fees {needed} sat are needed");
            return Err(Error::misuse("capacity_sat", why));
        }
        if !request.address.is_empty() {
            self.dialer.connect(peer, &request.address).await?;
        } else if !self.dialer.is_connected(&peer) {
            return Err(Error::misuse(
                "address",
                "the node is not connected to this peer, so it must know where it is",
            ));
        }

        let mut config = self.manager.get_current_config();
        config.channel_handshake_config.announce_for_forwarding = request.announce;
        let user_channel_id = new_user_channel_id(&*self.keys);
        tokio::task::block_in_place(|| {
            self.queue.with_state(|| {
                self.manager
                    .create_channel(peer, request.capacity_sat, request.push_msat, user_channel_id, None, Some(config))
                    .map_err(|e| misuse("node_id", e))?;
                if !request.address.is_empty() {
                    self.queue
                        .effect(Effect::PeerAdded { node_id: peer.serialize(), address: request.address.clone() });
                }
                Ok::<_, Error>(())
            })
        })?;
        if request.address.is_empty() {
            self.dialer.has_channel(peer);
        } else {
            self.dialer.add(peer, &request.address);
        }
        self.committed().await?;
        Ok(v1::OpenChannelResponse { user_channel_id: format!("{user_channel_id:032x}") })
    }

    pub(super) async fn close(&self, request: v1::CloseChannelRequest) -> Result<v1::CloseChannelResponse, Error> {
        self.must_run()?;
        let channel = self.find_channel(&request.channel_id)?;
        let (id, peer) = (channel.channel_id, channel.counterparty.node_id);
        tokio::task::block_in_place(|| {
            self.queue.with_state(|| {
                let closed = if request.force {
                    self.manager.force_close_broadcasting_latest_txn(&id, &peer, "closed by the operator".to_owned())
                } else {
                    self.manager.close_channel(&id, &peer)
                };
                closed.map_err(|e| misuse("channel_id", e))
            })
        })?;
        self.committed().await?;
        Ok(v1::CloseChannelResponse {})
    }

    pub(super) fn channels(&self) -> Vec<v1::Channel> {
        let mut channels: Vec<_> = self.manager.list_channels().iter().map(channel_message).collect();
        channels.sort_by(|a, b| a.channel_id.cmp(&b.channel_id));
        channels
    }

    pub(super) fn balances(&self) -> v1::GetBalanceResponse {
        let onchain = self.wallet.balance();
        let channels = self.manager.list_channels();
        let open: Vec<ChannelId> = channels.iter().map(|channel| channel.channel_id).collect();
        let (mut lightning_sat, mut closing_sat) = (0u64, 0u64);
        for id in self.monitors.list_monitors() {
            let Ok(monitor) = self.monitors.get_monitor(id) else { continue };
            for balance in monitor.get_claimable_balances() {
                match &balance {
                    Balance::ClaimableOnChannelClose {
                        balance_candidates, confirmed_balance_candidate_index, ..
                    } if open.contains(&id) => {
                        // Ours until the channel closes, the fee that closing would cost included.
                        let now = balance_candidates.get(*confirmed_balance_candidate_index);
                        lightning_sat += now.map_or(0, |b| b.amount_satoshis + b.transaction_fee_satoshis);
                    }
                    _ if open.contains(&id) => {}
                    _ => closing_sat += balance.claimable_amount_satoshis(),
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

fn misuse(field: &str, error: APIError) -> Error {
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
