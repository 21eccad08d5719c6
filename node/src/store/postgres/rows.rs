//! A batch as the parameters of `holdfast.commit_batch`.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};

use super::to_bigint;
use crate::store::batch::{
    Batch, Deposit, Direction, Effect, KvKey, KvWrite, MonitorKey, MonitorWrite, PaymentChange, PaymentKind,
    PaymentPart, PaymentStatus, Standing,
};

/// Columns, as Postgres's `unnest` takes them. Each monitor and each key stands here once, with what the batch's writes to
/// it come to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Rows<'a> {
    pub full_channels: Vec<&'a [u8]>,
    pub full_update_ids: Vec<i64>,
    pub full_bytes: Vec<&'a [u8]>,
    pub update_channels: Vec<&'a [u8]>,
    pub update_ids: Vec<i64>,
    pub update_bytes: Vec<&'a [u8]>,
    pub archived_channels: Vec<&'a [u8]>,
    pub kv_primaries: Vec<&'a str>,
    pub kv_secondaries: Vec<&'a str>,
    pub kv_keys: Vec<&'a str>,
    pub kv_values: Vec<Option<&'a [u8]>>,
    pub effects: Option<Value>,
}

impl<'a> Rows<'a> {
    /// Fails on what no database can hold.
    pub fn of(batch: &'a Batch) -> Result<Self, String> {
        let mut rows = Self::default();
        for (key, net) in net_monitors(&batch.monitors) {
            if let Some((update_id, bytes)) = net.full {
                rows.full_channels.push(&key.0);
                // Only monitors closed before LDK 0.1 have larger numbers; nothing follows them.
                rows.full_update_ids.push(i64::try_from(update_id).unwrap_or(i64::MAX));
                rows.full_bytes.push(bytes);
            }
            for (update_id, bytes) in net.updates {
                rows.update_channels.push(&key.0);
                rows.update_ids.push(to_bigint("monitor update", update_id)?);
                rows.update_bytes.push(bytes);
            }
            if net.archived {
                rows.archived_channels.push(&key.0);
            }
        }
        let mut last: HashMap<&KvKey, Option<&[u8]>> = HashMap::new();
        for write in &batch.kv {
            match write {
                KvWrite::Put { key, value } => last.insert(key, Some(value)),
                KvWrite::Remove { key } => last.insert(key, None),
            };
        }
        for (KvKey { primary, secondary, key }, value) in last {
            for part in [primary, secondary, key] {
                if part.contains('\0') {
                    return Err(format!("a key with a NUL in it: {part:?}"));
                }
            }
            rows.kv_primaries.push(primary);
            rows.kv_secondaries.push(secondary);
            rows.kv_keys.push(key);
            rows.kv_values.push(value);
        }
        if !batch.effects.is_empty() {
            rows.effects = Some(batch.effects.iter().map(effect).collect::<Result<_, _>>()?);
        }
        Ok(rows)
    }
}

/// What a batch's writes to one monitor come to.
#[derive(Debug, Default, PartialEq, Eq)]
struct NetMonitor<'a> {
    full: Option<(u64, &'a [u8])>,
    updates: BTreeMap<u64, &'a [u8]>,
    archived: bool,
}

fn net_monitors(writes: &[MonitorWrite]) -> BTreeMap<&MonitorKey, NetMonitor<'_>> {
    let mut net: BTreeMap<&MonitorKey, NetMonitor<'_>> = BTreeMap::new();
    for write in writes {
        match write {
            MonitorWrite::Full { key, update_id, bytes } => {
                let monitor = net.entry(key).or_default();
                monitor.full = Some((*update_id, bytes));
                monitor.updates.retain(|id, _| id > update_id);
                monitor.archived = false;
            }
            MonitorWrite::Update { key, update_id, bytes } => {
                net.entry(key).or_default().updates.insert(*update_id, bytes);
            }
            MonitorWrite::Archive { key } => net.entry(key).or_default().archived = true,
        }
    }
    net
}

/// Whether an effect can be written. What cannot is better found out before anything is done that belongs to it: a batch
/// with it in it would never be written.
pub(crate) fn storable(pushed: &Effect) -> Result<(), String> {
    effect(pushed).map(drop)
}

fn effect(effect: &Effect) -> Result<Value, String> {
    Ok(match effect {
        Effect::Payment(change) => payment(change)?,
        Effect::PaymentPart(part) => payment_part(part)?,
        Effect::PaymentKey { key, request, payment_id } => json!({
            "effect": "payment-key",
            "key": text(key),
            "request": bytea(request),
            "payment_id": bytea(payment_id),
        }),
        Effect::OfferCreated { offer_id, offer, amount_msat, description, label, expires_at_s } => json!({
            "effect": "offer-created",
            "offer_id": bytea(offer_id),
            "offer": text(offer),
            "amount_msat": msat(*amount_msat)?,
            "description": text(description),
            "label": label.as_deref().map(text),
            "expires_at_s": expires_at_s.map(timestamp).transpose()?,
        }),
        Effect::OfferDisabled { offer_id } => json!({ "effect": "offer-disabled", "offer_id": bytea(offer_id) }),
        Effect::Forward { event_id, incoming_channel, outgoing_channel, amount_msat, fee_msat } => json!({
            "effect": "forward",
            "event_id": bytea(event_id),
            "incoming_channel": bytea(incoming_channel),
            "outgoing_channel": bytea(outgoing_channel),
            "amount_msat": msat(*amount_msat)?,
            "fee_msat": msat(*fee_msat)?,
        }),
        Effect::ChannelPending { channel_id, user_channel_id, counterparty, funding } => json!({
            "effect": "channel-pending",
            "channel_id": bytea(channel_id),
            "user_channel_id": bytea(&user_channel_id.to_be_bytes()),
            "counterparty": bytea(counterparty),
            "funding": funding.to_string(),
        }),
        Effect::ChannelReady { channel_id, user_channel_id } => json!({
            "effect": "channel-ready",
            "channel_id": bytea(channel_id),
            "user_channel_id": bytea(&user_channel_id.to_be_bytes()),
        }),
        Effect::ChannelClosed { channel_id, user_channel_id, counterparty, reason } => json!({
            "effect": "channel-closed",
            "channel_id": bytea(channel_id),
            "user_channel_id": bytea(&user_channel_id.to_be_bytes()),
            "counterparty": counterparty.as_ref().map(|counterparty| bytea(counterparty)),
            "reason": text(reason),
        }),
        Effect::PeerAdded { node_id, address } => json!({
            "effect": "peer-added",
            "node_id": bytea(node_id),
            "address": text(address),
        }),
        Effect::PeerRemoved { node_id } => json!({ "effect": "peer-removed", "node_id": bytea(node_id) }),
        Effect::Broadcast { txid, raw } => json!({
            "effect": "broadcast",
            "txid": txid.to_string(),
            "raw": bytea(raw),
        }),
        Effect::Deposit(change) => deposit(change)?,
    })
}

fn payment(change: &PaymentChange) -> Result<Value, String> {
    Ok(json!({
        "effect": "payment",
        "payment_id": bytea(&change.payment_id),
        "payment_hash": change.payment_hash.as_ref().map(|hash| bytea(hash)),
        "direction": direction_name(change.direction),
        "kind": kind_name(change.kind),
        "status": status_name(change.status),
        "amount_msat": msat(change.amount_msat)?,
        "fee_msat": msat(change.fee_msat)?,
        "preimage": change.preimage.as_ref().map(|preimage| bytea(preimage)),
        "failure": change.failure.as_deref().map(text),
        "invoice": change.invoice.as_deref().map(text),
        "offer": change.offer.as_deref().map(text),
        "offer_id": change.offer_id.as_ref().map(|id| bytea(id)),
        "payer_note": change.payer_note.as_deref().map(text),
        "label": change.label.as_deref().map(text),
        "metadata": change.metadata.as_deref().map(bytea),
        "cancel_height": change.cancel_height,
    }))
}

fn payment_part(part: &PaymentPart) -> Result<Value, String> {
    let hops = part.hops.iter().map(|hop| {
        let fee_msat = to_bigint("fee in msat", hop.fee_msat)?;
        Ok(json!({ "node": hex::encode(hop.node_id), "channel": hop.channel, "fee_msat": fee_msat }))
    });
    Ok(json!({
        "effect": "payment-part",
        "part_id": bytea(&part.part_id),
        "payment_id": bytea(&part.payment_id),
        "direction": direction_name(part.direction),
        "outcome": if part.failure.is_none() { "succeeded" } else { "failed" },
        "channel": part.channel,
        "hops": hops.collect::<Result<Vec<Value>, String>>()?,
        "amount_msat": msat(Some(part.amount_msat))?,
        "fee_msat": msat(Some(part.fee_msat))?,
        "held_ms": part.held_ms.map(|held| to_bigint("hold time", held)).transpose()?,
        "failure": part.failure.as_deref().map(text),
        "failed_channel": part.failed_channel,
    }))
}

fn deposit(deposit: &Deposit) -> Result<Value, String> {
    Ok(json!({
        "effect": "deposit",
        "outpoint": deposit.outpoint.to_string(),
        "address": deposit.address,
        "amount_sat": to_bigint("amount in sat", deposit.amount_sat)?,
        "label": deposit.label.as_deref().map(text),
        "standing": standing_name(deposit.standing),
        "block_height": deposit.block.map(|(height, _)| height),
        "block_hash": deposit.block.map(|(_, hash)| hash.to_string()),
        "confirmations": deposit.confirmations,
    }))
}

/// Postgres's hex form of a bytea.
fn bytea(bytes: &[u8]) -> String {
    format!("\\x{}", hex::encode(bytes))
}

/// Text from outside may hold a NUL, which Postgres's text may not: a peer's words must not stop the node.
fn text(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

fn msat(amount: Option<u64>) -> Result<Option<i64>, String> {
    amount.map(|amount| to_bigint("amount in msat", amount)).transpose()
}

/// Seconds since the Unix epoch that `to_timestamp` takes.
fn timestamp(at_s: u64) -> Result<i64, String> {
    /// The end of the year 9999. Postgres goes on for longer, others that read its rows may not.
    const LAST: u64 = 253_402_300_799;
    match at_s {
        0..=LAST => to_bigint("expiry", at_s),
        _ => Err(format!("expiry {at_s} is beyond the year 9999")),
    }
}

pub(crate) fn direction_name(direction: Direction) -> &'static str {
    match direction {
        Direction::Inbound => "inbound",
        Direction::Outbound => "outbound",
    }
}

pub(crate) fn kind_name(kind: PaymentKind) -> &'static str {
    match kind {
        PaymentKind::Bolt11 => "bolt11",
        PaymentKind::Keysend => "keysend",
        PaymentKind::Offer => "offer",
        PaymentKind::Refund => "refund",
    }
}

pub(crate) fn status_name(status: PaymentStatus) -> &'static str {
    match status {
        PaymentStatus::Pending => "pending",
        PaymentStatus::Accepted => "accepted",
        PaymentStatus::Succeeded => "succeeded",
        PaymentStatus::Failed => "failed",
    }
}

pub(crate) fn standing_name(standing: Standing) -> &'static str {
    match standing {
        Standing::Unconfirmed => "unconfirmed",
        Standing::Mined => "mined",
        Standing::Confirmed => "confirmed",
        Standing::Gone => "gone",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: MonitorKey = MonitorKey([1; 32]);

    fn full(update_id: u64) -> MonitorWrite {
        MonitorWrite::Full { key: A, update_id, bytes: vec![update_id as u8] }
    }

    fn update(update_id: u64) -> MonitorWrite {
        MonitorWrite::Update { key: A, update_id, bytes: vec![update_id as u8] }
    }

    #[test]
    fn writes_to_one_monitor_come_to_one_row_and_what_follows_it() {
        let writes = [full(5), update(6), update(7), full(7), update(8), MonitorWrite::Archive { key: A }];
        let net = net_monitors(&writes);
        assert_eq!(net.len(), 1);
        assert_eq!(net[&A].full, Some((7, &[7u8][..])));
        assert_eq!(net[&A].updates.keys().collect::<Vec<_>>(), [&8]);
        assert!(net[&A].archived);
    }

    #[test]
    fn the_last_write_of_a_key_counts() {
        let key = KvKey { primary: "a".into(), secondary: "b".into(), key: "c".into() };
        let batch = Batch {
            kv: vec![
                KvWrite::Put { key: key.clone(), value: vec![1] },
                KvWrite::Remove { key: key.clone() },
                KvWrite::Put { key: key.clone(), value: vec![2] },
            ],
            ..Batch::default()
        };
        assert_eq!(Rows::of(&batch).unwrap().kv_values, [Some(&[2u8][..])]);
    }

    #[test]
    fn values_that_no_column_holds_are_refused_and_a_peers_words_are_not() {
        let change = |amount_msat| {
            let change =
                PaymentChange::of_hash([1; 32], Direction::Inbound, PaymentKind::Keysend, PaymentStatus::Pending);
            Effect::Payment(PaymentChange { amount_msat: Some(amount_msat), ..change })
        };
        assert!(Rows::of(&Batch { effects: vec![change(u64::MAX)], ..Batch::default() }).is_err());
        assert!(storable(&change(u64::MAX)).is_err() && storable(&change(1)).is_ok());
        let offer = |expires_at_s| Effect::OfferCreated {
            offer_id: [1; 32],
            offer: "lno1".into(),
            amount_msat: None,
            description: String::new(),
            label: None,
            expires_at_s: Some(expires_at_s),
        };
        assert!(storable(&offer(9_300_000_000_000)).is_err() && storable(&offer(4_000_000_000)).is_ok());
        let mut batch = Batch { effects: vec![change(1)], ..Batch::default() };
        batch.monitors = vec![update(u64::MAX)];
        assert!(Rows::of(&batch).is_err());
        let closed = Effect::ChannelClosed {
            channel_id: [2; 32],
            user_channel_id: 3,
            counterparty: None,
            reason: "a\0b".into(),
        };
        let batch = Batch { effects: vec![closed], ..Batch::default() };
        assert_eq!(Rows::of(&batch).unwrap().effects.unwrap()[0]["reason"], "a\u{fffd}b");
    }
}
