//! Queries about payments, their parts, the keys they were asked for under, and offers.

use tokio_postgres::Row;
use tokio_postgres::types::Json;

use super::read::{PgReader, ReadError, array, named, unsigned};
use super::rows::{direction_name, kind_name, status_name};
use super::session::Failure;
use super::{from_bigint, to_bigint};
use crate::store::batch::{Direction, PartHop, PaymentKind, PaymentStatus};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PaymentRow {
    pub payment_id: [u8; 32],
    /// Absent while an offer's payee has not sent its invoice.
    pub payment_hash: Option<[u8; 32]>,
    pub direction: Direction,
    pub kind: PaymentKind,
    pub status: PaymentStatus,
    pub amount_msat: Option<u64>,
    pub fee_msat: Option<u64>,
    pub preimage: Option<[u8; 32]>,
    pub failure: Option<String>,
    pub invoice: Option<String>,
    pub offer: Option<String>,
    pub label: Option<String>,
    pub metadata: Option<Vec<u8>>,
    pub payer_note: Option<String>,
    pub cancel_height: Option<u64>,
    /// Milliseconds since the Unix epoch, here and in every `_ms` below.
    pub created_ms: u64,
    pub updated_ms: u64,
    /// Order of creation.
    pub sequence: u64,
}

/// One HTLC of a payment that came to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartRow {
    pub succeeded: bool,
    pub channel: Option<String>,
    pub hops: Vec<PartHop>,
    pub amount_msat: u64,
    pub fee_msat: u64,
    /// A duration, as the first hop tells it.
    pub held_ms: Option<u64>,
    pub failure: Option<String>,
    pub failed_channel: Option<String>,
    pub ended_ms: u64,
}

/// What was paid under an idempotency key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyRow {
    /// The hash of what was asked for.
    pub request: [u8; 32],
    pub payment_id: [u8; 32],
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfferRow {
    pub offer_id: [u8; 32],
    pub offer: String,
    pub amount_msat: Option<u64>,
    pub description: String,
    pub label: Option<String>,
    pub expires_ms: Option<u64>,
    pub disabled_ms: Option<u64>,
    pub created_ms: u64,
    pub sequence: u64,
}

impl PgReader {
    /// At most `limit` payments, newest first, of those created before the one with sequence `before`.
    pub async fn payments(&self, limit: u32, before: Option<u64>) -> Result<Vec<PaymentRow>, ReadError> {
        let sql = format!("{PAYMENT} WHERE sequence < $1 ORDER BY sequence DESC LIMIT $2");
        self.rows(&sql, &[&page_end(before), &i64::from(limit)], payment).await
    }

    /// The payment with this hash or id; where the node paid itself, the outbound one.
    pub async fn payment(&self, hash_or_id: [u8; 32]) -> Result<Option<PaymentRow>, ReadError> {
        let sql = format!("{PAYMENT} WHERE payment_hash = $1 OR payment_id = $1 ORDER BY direction DESC LIMIT 1");
        Ok(self.rows(&sql, &[&&hash_or_id[..]], payment).await?.pop())
    }

    pub async fn payment_in(
        &self,
        payment_id: [u8; 32],
        direction: Direction,
    ) -> Result<Option<PaymentRow>, ReadError> {
        let sql = format!("{PAYMENT} WHERE payment_id = $1 AND direction = $2");
        Ok(self.rows(&sql, &[&&payment_id[..], &direction_name(direction)], payment).await?.pop())
    }

    /// The parts of a payment, in the order in which they ended.
    pub async fn parts(&self, payment_id: [u8; 32], direction: Direction) -> Result<Vec<PartRow>, ReadError> {
        let sql = format!("{PART} WHERE payment_id = $1 AND direction = $2 ORDER BY sequence");
        self.rows(&sql, &[&&payment_id[..], &direction_name(direction)], part).await
    }

    /// The names of the parts that payments of these hashes were received in.
    pub async fn received_parts(&self, hashes: &[[u8; 32]]) -> Result<Vec<[u8; 32]>, ReadError> {
        let hashes: Vec<&[u8]> = hashes.iter().map(|hash| &hash[..]).collect();
        let sql = "SELECT part_id FROM holdfast.payment_parts WHERE payment_id = ANY ($1) AND direction = 'inbound'";
        self.rows(sql, &[&hashes], |row| array(row.try_get(0)?)).await
    }

    pub async fn payment_key(&self, key: &str) -> Result<Option<KeyRow>, ReadError> {
        let sql = "SELECT request, payment_id FROM holdfast.payment_keys WHERE key = $1";
        let decode = |row: &Row| Ok(KeyRow { request: array(row.try_get(0)?)?, payment_id: array(row.try_get(1)?)? });
        Ok(self.rows(sql, &[&key], decode).await?.pop())
    }

    /// At most `limit` offers, newest first, of those made before the one with sequence `before`.
    pub async fn offers(&self, limit: u32, before: Option<u64>) -> Result<Vec<OfferRow>, ReadError> {
        let sql = format!("{OFFER} WHERE sequence < $1 ORDER BY sequence DESC LIMIT $2");
        self.rows(&sql, &[&page_end(before), &i64::from(limit)], offer).await
    }

    pub async fn offer(&self, offer_id: [u8; 32]) -> Result<Option<OfferRow>, ReadError> {
        let sql = format!("{OFFER} WHERE offer_id = $1");
        Ok(self.rows(&sql, &[&&offer_id[..]], offer).await?.pop())
    }
}

fn page_end(before: Option<u64>) -> i64 {
    before.map_or(i64::MAX, |before| to_bigint("before", before).unwrap_or(i64::MAX))
}

const PAYMENT: &str =
    "SELECT payment_id, payment_hash, direction, kind, status, amount_msat, fee_msat, preimage, failure,
    invoice, offer, label, metadata, cancel_height, payer_note, (extract(epoch FROM created_at) * 1000)::bigint,
    (extract(epoch FROM updated_at) * 1000)::bigint, sequence
    FROM holdfast.payments";

fn payment(row: &Row) -> Result<PaymentRow, Failure> {
    use PaymentStatus::{Accepted, Failed, Pending, Succeeded};
    let kinds = [PaymentKind::Bolt11, PaymentKind::Keysend, PaymentKind::Offer, PaymentKind::Refund];
    Ok(PaymentRow {
        payment_id: array(row.try_get(0)?)?,
        payment_hash: row.try_get::<_, Option<&[u8]>>(1)?.map(array).transpose()?,
        direction: named(row.try_get(2)?, [Direction::Inbound, Direction::Outbound], direction_name)?,
        kind: named(row.try_get(3)?, kinds, kind_name)?,
        status: named(row.try_get(4)?, [Pending, Accepted, Succeeded, Failed], status_name)?,
        amount_msat: unsigned(row, 5)?,
        fee_msat: unsigned(row, 6)?,
        preimage: row.try_get::<_, Option<&[u8]>>(7)?.map(array).transpose()?,
        failure: row.try_get(8)?,
        invoice: row.try_get(9)?,
        offer: row.try_get(10)?,
        label: row.try_get(11)?,
        metadata: row.try_get(12)?,
        cancel_height: unsigned(row, 13)?,
        payer_note: row.try_get(14)?,
        created_ms: from_bigint(row.try_get(15)?),
        updated_ms: from_bigint(row.try_get(16)?),
        sequence: from_bigint(row.try_get(17)?),
    })
}

const PART: &str =
    "SELECT outcome = 'succeeded', channel, hops, amount_msat, fee_msat, held_ms, failure, failed_channel,
    (extract(epoch FROM at) * 1000)::bigint FROM holdfast.payment_parts";

fn part(row: &Row) -> Result<PartRow, Failure> {
    let Json(hops): Json<Vec<serde_json::Value>> = row.try_get(2)?;
    let hop = |value: &serde_json::Value| {
        let mut node_id = [0; 33];
        hex::decode_to_slice(value["node"].as_str()?, &mut node_id).ok()?;
        Some(PartHop { node_id, channel: value["channel"].as_str()?.to_owned(), fee_msat: value["fee_msat"].as_u64()? })
    };
    Ok(PartRow {
        succeeded: row.try_get(0)?,
        channel: row.try_get(1)?,
        hops: hops
            .iter()
            .map(|value| hop(value).ok_or_else(|| Failure::Wrong(format!("a hop that is none: {value}"))))
            .collect::<Result<_, _>>()?,
        amount_msat: from_bigint(row.try_get(3)?),
        fee_msat: from_bigint(row.try_get(4)?),
        held_ms: unsigned(row, 5)?,
        failure: row.try_get(6)?,
        failed_channel: row.try_get(7)?,
        ended_ms: from_bigint(row.try_get(8)?),
    })
}

const OFFER: &str = "SELECT offer_id, offer, amount_msat, description, label,
    (extract(epoch FROM expires_at) * 1000)::bigint, (extract(epoch FROM disabled_at) * 1000)::bigint,
    (extract(epoch FROM created_at) * 1000)::bigint, sequence FROM holdfast.offers";

fn offer(row: &Row) -> Result<OfferRow, Failure> {
    Ok(OfferRow {
        offer_id: array(row.try_get(0)?)?,
        offer: row.try_get(1)?,
        amount_msat: unsigned(row, 2)?,
        description: row.try_get(3)?,
        label: row.try_get(4)?,
        expires_ms: unsigned(row, 5)?,
        disabled_ms: unsigned(row, 6)?,
        created_ms: from_bigint(row.try_get(7)?),
        sequence: from_bigint(row.try_get(8)?),
    })
}
