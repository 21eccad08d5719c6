//! Payments and offers between LDK's words, the store's rows and what operators see.

use bitcoin::hashes::{Hash, HashEngine, sha256};
use holdfast_proto::{error::Error, node::v1};
use lightning::{
    events::{ClaimedHTLC, PathFailure, PaymentFailureReason},
    ln::types::ChannelId,
    routing::router::Path,
};

use super::channels::scid_text;
use crate::store::{
    batch::{Direction, PartHop, PaymentKind, PaymentPart, PaymentStatus},
    postgres::{ForwardFilter, ForwardRow, OfferRow, PartRow, PaymentRow, PgReader},
};

/// The end of an outbound HTLC. `hold_times` are LDK's, in steps of 100 ms.
pub fn outbound_part(
    part_id: [u8; 32],
    payment_id: [u8; 32],
    path: &Path,
    hold_times: &[u32],
    failure: Option<String>,
    failed_channel: Option<u64>,
) -> PaymentPart {
    PaymentPart {
        part_id,
        payment_id,
        direction: Direction::Outbound,
        failure,
        channel: path.hops.first().map(|hop| scid_text(hop.short_channel_id)),
        hops: hops(path),
        amount_msat: path.final_value_msat(),
        fee_msat: path.fee_msat(),
        held_ms: hold_times.first().map(|held| u64::from(*held) * 100),
        failed_channel: failed_channel.map(scid_text),
    }
}

/// An HTLC that we claimed.
pub fn inbound_part(part_id: [u8; 32], payment_id: [u8; 32], htlc: &ClaimedHTLC) -> PaymentPart {
    PaymentPart {
        part_id,
        payment_id,
        direction: Direction::Inbound,
        failure: None,
        channel: Some(htlc.channel_id.to_string()),
        hops: Vec::new(),
        amount_msat: htlc.value_msat,
        fee_msat: 0,
        held_ms: None,
        failed_channel: None,
    }
}

/// The name of a forwarded HTLC, the same however often LDK tells of it: after each load it does so again, while the monitor
/// of a closed incoming channel is there.
pub fn forward_id(incoming: ChannelId, htlc_id: u64) -> [u8; 32] {
    let mut engine = sha256::Hash::engine();
    engine.input(b"a forwarded HTLC");
    engine.input(&incoming.0);
    engine.input(&htlc_id.to_be_bytes());
    sha256::Hash::from_engine(engine).to_byte_array()
}

/// The name of an outbound HTLC that succeeded: LDK tells of it again at a load, if its channel has closed. Two of one payment
/// that go the same way with the same amount are not told apart; the router makes one of such.
pub fn succeeded_part_id(payment_id: [u8; 32], path: &Path) -> [u8; 32] {
    let mut engine = sha256::Hash::engine();
    engine.input(b"a part of a payment that succeeded");
    engine.input(&payment_id);
    for hop in &path.hops {
        engine.input(&hop.pubkey.serialize());
        engine.input(&hop.short_channel_id.to_be_bytes());
        engine.input(&hop.fee_msat.to_be_bytes());
        engine.input(&hop.cltv_expiry_delta.to_be_bytes());
    }
    engine.input(&path.final_value_msat().to_be_bytes());
    sha256::Hash::from_engine(engine).to_byte_array()
}

/// Why a part failed.
pub fn path_failure(failure: &PathFailure, by_payee: bool) -> String {
    match failure {
        PathFailure::InitialSend { err } => format!("it could not be sent: {err:?}"),
        PathFailure::OnPath { .. } if by_payee => "the payee refused it".into(),
        PathFailure::OnPath { .. } => "a channel on the way could not pass it on".into(),
    }
}

/// Why a payment failed, in LDK's words where they are clear.
pub fn payment_failure(reason: Option<PaymentFailureReason>) -> String {
    match reason {
        // Nothing else of ours gives payments up.
        Some(PaymentFailureReason::UserAbandoned) => "the payee sent no invoice in the time given".into(),
        Some(reason) => format!("{reason:?}"),
        None => "unknown".into(),
    }
}

/// A path's hops, each with its own fee. What the last one of an open path gets is no fee but the payment.
pub fn hops(path: &Path) -> Vec<PartHop> {
    let last = path.hops.len().saturating_sub(1);
    let is_payee = |index| path.blinded_tail.is_none() && index == last;
    path.hops
        .iter()
        .enumerate()
        .map(|(index, hop)| PartHop {
            node_id: hop.pubkey.serialize(),
            channel: scid_text(hop.short_channel_id),
            fee_msat: if is_payee(index) { 0 } else { hop.fee_msat },
        })
        .collect()
}

/// A row as operators see it, without its parts.
pub fn payment_message(row: PaymentRow) -> v1::Payment {
    let direction = match row.direction {
        Direction::Inbound => v1::PaymentDirection::Inbound,
        Direction::Outbound => v1::PaymentDirection::Outbound,
    };
    let status = match row.status {
        PaymentStatus::Pending => v1::PaymentStatus::Pending,
        PaymentStatus::Accepted => v1::PaymentStatus::Accepted,
        PaymentStatus::Succeeded => v1::PaymentStatus::Succeeded,
        PaymentStatus::Failed => v1::PaymentStatus::Failed,
    };
    let is_held = row.status == PaymentStatus::Accepted;
    v1::Payment {
        payment_hash: row.payment_hash.map(hex::encode).unwrap_or_default(),
        direction: direction.into(),
        status: status.into(),
        amount_msat: row.amount_msat,
        fee_msat: row.fee_msat,
        preimage: row.preimage.map(hex::encode).unwrap_or_default(),
        failure: row.failure.unwrap_or_default(),
        invoice: row.invoice.unwrap_or_default(),
        created_ms: row.created_ms,
        updated_ms: row.updated_ms,
        sequence: row.sequence,
        kind: match row.kind {
            PaymentKind::Bolt11 => "bolt11",
            PaymentKind::Keysend => "keysend",
            PaymentKind::Offer => "offer",
            PaymentKind::Refund => "refund",
        }
        .into(),
        payment_id: hex::encode(row.payment_id),
        offer: row.offer.unwrap_or_default(),
        label: row.label.unwrap_or_default(),
        metadata: row.metadata.map(hex::encode).unwrap_or_default(),
        payer_note: row.payer_note.unwrap_or_default(),
        cancel_height: row.cancel_height.filter(|_| is_held).and_then(|height| height.try_into().ok()).unwrap_or(0),
        parts: Vec::new(),
    }
}

pub fn part_message(row: PartRow) -> v1::PaymentPart {
    v1::PaymentPart {
        succeeded: row.succeeded,
        channel: row.channel.unwrap_or_default(),
        hops: row.hops.into_iter().map(hop_message).collect(),
        amount_msat: row.amount_msat,
        fee_msat: row.fee_msat,
        held_ms: row.held_ms,
        failure: row.failure.unwrap_or_default(),
        failed_channel: row.failed_channel.unwrap_or_default(),
        ended_ms: row.ended_ms,
    }
}

pub fn hop_message(hop: PartHop) -> v1::PaymentHop {
    v1::PaymentHop { node_id: hex::encode(hop.node_id), channel: hop.channel, fee_msat: hop.fee_msat }
}

/// The forwards that are asked for, as operators see them.
pub async fn forwards(reader: &PgReader, q: v1::ListForwardsRequest) -> Result<v1::ListForwardsResponse, Error> {
    let mut channel = [0; 32];
    hex::decode_to_slice(&q.channel, &mut channel).or_else(|_| {
        if q.channel.is_empty() { Ok(()) } else { Err(Error::misuse("channel", "is not 64 hex digits")) }
    })?;
    let channel = (!q.channel.is_empty()).then_some(channel);
    let filter = ForwardFilter { since_ms: q.since_ms, until_ms: q.until_ms, channel };
    let totals = match q.totals {
        true => Some(reader.forward_totals(filter).await?),
        false => None,
    };
    let totals =
        totals.map(|sum| v1::ForwardTotals { count: sum.count, amount_msat: sum.amount_msat, fee_msat: sum.fee_msat });
    let forwards = reader.forwards(q.limit, q.before, filter).await?.into_iter().map(forward_message).collect();
    Ok(v1::ListForwardsResponse { forwards, totals })
}

fn forward_message(row: ForwardRow) -> v1::Forward {
    v1::Forward {
        sequence: row.sequence,
        at_ms: row.at_ms,
        incoming_channel: hex::encode(row.incoming_channel),
        outgoing_channel: hex::encode(row.outgoing_channel),
        amount_msat: row.amount_msat,
        fee_msat: row.fee_msat,
    }
}

pub fn offer_message(row: OfferRow) -> v1::Offer {
    v1::Offer {
        offer_id: hex::encode(row.offer_id),
        offer: row.offer,
        amount_msat: row.amount_msat,
        description: row.description,
        label: row.label.unwrap_or_default(),
        expires_ms: row.expires_ms.unwrap_or(0),
        disabled_ms: row.disabled_ms.unwrap_or(0),
        created_ms: row.created_ms,
        sequence: row.sequence,
    }
}
