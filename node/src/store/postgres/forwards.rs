//! Queries about HTLCs that were forwarded.

use tokio_postgres::Row;

use super::read::{PgReader, ReadError, array, unsigned};
use super::session::Failure;
use super::{from_bigint, to_bigint};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardRow {
    pub incoming_channel: [u8; 32],
    pub outgoing_channel: [u8; 32],
    pub amount_msat: Option<u64>,
    pub fee_msat: Option<u64>,
    /// Milliseconds since the Unix epoch.
    pub at_ms: u64,
    pub sequence: u64,
}

/// Which forwards; all, unless something is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ForwardFilter {
    /// Settled then or later, in milliseconds since the Unix epoch.
    pub since_ms: Option<u64>,
    /// Settled before then.
    pub until_ms: Option<u64>,
    /// Came in by it or left by it.
    pub channel: Option<[u8; 32]>,
}

/// What forwards come to. An amount or a fee that is not known counts as nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForwardTotals {
    pub count: u64,
    pub amount_msat: u64,
    pub fee_msat: u64,
}

impl PgReader {
    /// At most `limit` forwards, newest first, of those before the one with sequence `before`.
    pub async fn forwards(
        &self,
        limit: u32,
        before: Option<u64>,
        filter: ForwardFilter,
    ) -> Result<Vec<ForwardRow>, ReadError> {
        let before = before.map_or(i64::MAX, |before| to_bigint("before", before).unwrap_or(i64::MAX));
        let (since, until, channel) = filter.parameters();
        let sql = format!("{FORWARD} WHERE {FILTER} AND sequence < $4 ORDER BY sequence DESC LIMIT $5");
        self.rows(&sql, &[&since, &until, &channel, &before, &i64::from(limit)], forward).await
    }

    pub async fn forward_totals(&self, filter: ForwardFilter) -> Result<ForwardTotals, ReadError> {
        let (since, until, channel) = filter.parameters();
        let sql = format!("{TOTALS} WHERE {FILTER}");
        let totals = self.rows(&sql, &[&since, &until, &channel], totals).await?;
        totals.first().copied().ok_or_else(|| ReadError::Broken("a sum has no row".into()))
    }
}

impl ForwardFilter {
    fn parameters(&self) -> (f64, f64, Option<&[u8]>) {
        // Exact for any time that somebody means.
        let seconds = |ms: u64| ms as f64 / 1000.0;
        let since = self.since_ms.map_or(f64::NEG_INFINITY, seconds);
        let until = self.until_ms.map_or(f64::INFINITY, seconds);
        (since, until, self.channel.as_ref().map(|channel| &channel[..]))
    }
}

const FORWARD: &str = "SELECT incoming_channel, outgoing_channel, amount_msat, fee_msat,
    (extract(epoch FROM at) * 1000)::bigint, sequence FROM holdfast.forwards";

const TOTALS: &str = "SELECT count(*), COALESCE(sum(amount_msat), 0)::bigint, COALESCE(sum(fee_msat), 0)::bigint
    FROM holdfast.forwards";

const FILTER: &str = "at >= to_timestamp($1) AND at < to_timestamp($2)
    AND ($3::bytea IS NULL OR incoming_channel = $3 OR outgoing_channel = $3)";

fn forward(row: &Row) -> Result<ForwardRow, Failure> {
    Ok(ForwardRow {
        incoming_channel: array(row.try_get(0)?)?,
        outgoing_channel: array(row.try_get(1)?)?,
        amount_msat: unsigned(row, 2)?,
        fee_msat: unsigned(row, 3)?,
        at_ms: from_bigint(row.try_get(4)?),
        sequence: from_bigint(row.try_get(5)?),
    })
}

fn totals(row: &Row) -> Result<ForwardTotals, Failure> {
    let number = |column| Ok::<_, Failure>(from_bigint(row.try_get(column)?));
    Ok(ForwardTotals { count: number(0)?, amount_msat: number(1)?, fee_msat: number(2)? })
}
