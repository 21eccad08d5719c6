//! Answers as JSON. The names are part of the interface: they stay, and new ones are added. What is absent is `null`.

use holdfast_proto::node::v1;
use serde_json::{Value, json};

use super::{
    cluster::{NoLeader, Seen},
    text,
};

pub(super) fn info(i: &v1::GetInfoResponse) -> Value {
    json!({
        "node_id": some(&i.node_id),
        "network": i.network,
        "alias": i.alias,
        "version": i.version,
        "replica": i.replica,
        "is_leader": i.is_leader,
        "term": i.term,
        "block_height": i.block_height,
        "block_hash": some(&i.block_hash),
        "peers": i.peers,
        "channels": i.channels,
        "usable_channels": i.usable_channels,
        "addresses": i.addresses,
    })
}

pub(super) fn balance(b: &v1::GetBalanceResponse) -> Value {
    json!({
        "onchain_confirmed_sat": b.onchain_confirmed_sat,
        "onchain_pending_sat": b.onchain_pending_sat,
        "onchain_spendable_sat": b.onchain_spendable_sat,
        "onchain_reserve_sat": b.onchain_reserve_sat,
        "lightning_sat": b.lightning_sat,
        "lightning_outbound_msat": b.lightning_outbound_msat,
        "lightning_inbound_msat": b.lightning_inbound_msat,
        "closing_sat": b.closing_sat,
    })
}

pub(super) fn peer(p: &v1::Peer) -> Value {
    json!({
        "node_id": p.node_id,
        "address": some(&p.address),
        "connected": p.connected,
        "inbound": p.inbound,
        "persistent": p.persistent,
        "holds_backup": p.holds_backup,
        "channels": p.channels,
    })
}

pub(super) fn channel(c: &v1::Channel) -> Value {
    json!({
        "channel_id": c.channel_id,
        "user_channel_id": c.user_channel_id,
        "counterparty": c.counterparty,
        "funding_outpoint": some(&c.funding_outpoint),
        "capacity_sat": c.capacity_sat,
        "outbound_msat": c.outbound_msat,
        "inbound_msat": c.inbound_msat,
        "is_outbound": c.is_outbound,
        "is_announced": c.is_announced,
        "is_ready": c.is_ready,
        "is_usable": c.is_usable,
        "pending_htlcs": c.pending_htlcs,
        "short_channel_id": some(&c.short_channel_id),
        "channel_type": c.channel_type,
        "state": c.state,
        "base_fee_msat": c.base_fee_msat,
        "fee_ppm": c.fee_ppm,
        "cltv_delta": c.cltv_delta,
    })
}

pub(super) fn invoice(i: &v1::CreateInvoiceResponse) -> Value {
    json!({ "invoice": i.invoice, "payment_hash": i.payment_hash, "expires_at_ms": i.expires_at_ms })
}

pub(super) fn payment(p: &v1::Payment) -> Value {
    json!({
        "payment_hash": p.payment_hash,
        "direction": text::direction(p),
        "status": text::status(p),
        "amount_msat": p.amount_msat,
        "fee_msat": p.fee_msat,
        "preimage": some(&p.preimage),
        "failure": some(&p.failure),
        "invoice": some(&p.invoice),
        "created_ms": p.created_ms,
        "updated_ms": p.updated_ms,
        "sequence": p.sequence,
        "kind": p.kind,
        "payment_id": some(&p.payment_id),
        "offer": some(&p.offer),
        "label": some(&p.label),
        "metadata": some(&p.metadata),
        "payer_note": some(&p.payer_note),
        "cancel_height": (p.cancel_height != 0).then_some(p.cancel_height),
        "parts": p.parts.iter().map(part).collect::<Vec<_>>(),
    })
}

fn part(p: &v1::PaymentPart) -> Value {
    json!({
        "succeeded": p.succeeded,
        "channel": some(&p.channel),
        "hops": p.hops.iter().map(hop).collect::<Vec<_>>(),
        "amount_msat": p.amount_msat,
        "fee_msat": p.fee_msat,
        "held_ms": p.held_ms,
        "failure": some(&p.failure),
        "failed_channel": some(&p.failed_channel),
        "ended_ms": p.ended_ms,
    })
}

fn hop(h: &v1::PaymentHop) -> Value {
    json!({ "node_id": h.node_id, "channel": h.channel, "fee_msat": h.fee_msat })
}

pub(super) fn offer(o: &v1::Offer) -> Value {
    json!({
        "offer_id": o.offer_id,
        "offer": o.offer,
        "amount_msat": o.amount_msat,
        "description": o.description,
        "label": some(&o.label),
        "expires_ms": (o.expires_ms != 0).then_some(o.expires_ms),
        "disabled_ms": (o.disabled_ms != 0).then_some(o.disabled_ms),
        "created_ms": o.created_ms,
        "sequence": o.sequence,
    })
}

pub(super) fn probe(p: &v1::ProbeResponse) -> Value {
    json!({
        "reachable": p.reachable,
        "fee_msat": p.fee_msat,
        "parts": p.parts,
        "attempts": p.attempts,
        "failure": some(&p.failure),
        "failed_channel": some(&p.failed_channel),
        "hops": p.hops.iter().map(hop).collect::<Vec<_>>(),
    })
}

pub(super) fn leader(l: &v1::GetLeaderResponse, seen: &[Seen]) -> Value {
    let history: Vec<_> = l
        .history
        .iter()
        .map(|t| json!({ "term": t.term, "replica": t.replica, "at_ms": t.at_ms, "phases_us": t.phases_us }))
        .collect();
    let replicas: Vec<_> = seen
        .iter()
        .map(|seen| {
            let (state, problem) = match &seen.answer {
                Ok(answer) if answer.leader.is_this_replica => ("leader", None),
                Ok(_) => ("standby", None),
                Err(why @ NoLeader::Unreached(_)) => ("unreachable", Some(why.to_string())),
                Err(why @ NoLeader::Said(_)) => ("failing", Some(why.to_string())),
            };
            json!({ "endpoint": seen.endpoint, "state": state, "problem": problem })
        })
        .collect();
    json!({
        "term": l.term,
        "leader": some(&l.leader),
        "api_address": some(&l.api_address),
        "since_ms": l.since_ms,
        "replicas": replicas,
        "history": history,
    })
}

/// The wire has no absent strings, only empty ones.
fn some(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}
