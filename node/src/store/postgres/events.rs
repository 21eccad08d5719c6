//! The log of what happened, which any replica reads on from any place in it.

use serde_json::Value;
use tokio_postgres::Row;
use tokio_postgres::types::Json;

use super::read::{PgReader, ReadError, unsigned};
use super::session::Failure;
use super::{from_bigint, to_bigint};

/// One event. `subject` is what its trigger in migration 6 wrote.
#[derive(Clone, Debug, PartialEq)]
pub struct EventRow {
    /// The cursor.
    pub sequence: u64,
    /// Milliseconds since the Unix epoch.
    pub at_ms: u64,
    pub topic: String,
    pub event: String,
    pub subject: Value,
}

/// What the log holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventSpan {
    /// The newest event that was removed for its age; 0 if none was. A cursor before it has lost events.
    pub pruned_through: u64,
    /// The newest event that there was.
    pub newest: u64,
}

impl PgReader {
    /// Where the log begins and ends.
    pub async fn event_span(&self) -> Result<EventSpan, ReadError> {
        let spans = self.rows(SPAN, &[], span).await?;
        spans.first().copied().ok_or_else(|| ReadError::Broken("the row of events_pruned is missing".into()))
    }

    /// At most `limit` of the events after `after`, in order, with the span of the same moment.
    pub async fn events(&self, after: u64, limit: u32) -> Result<(EventSpan, Vec<EventRow>), ReadError> {
        let after = to_bigint("cursor", after).unwrap_or(i64::MAX);
        let rows = self.rows(PAGE, &[&after, &i64::from(limit)], |row| Ok((span(row)?, event(row)?))).await?;
        let Some((span, _)) = rows.first() else {
            return Err(ReadError::Broken("the row of events_pruned is missing".into()));
        };
        let span = *span;
        Ok((span, rows.into_iter().filter_map(|(_, event)| event).collect()))
    }

    /// Removes at most `limit` events that are older than `keep_seconds`, while `term` is the newest, and says how many
    /// it were. The one thing that a reader writes; only the leader's can, which asks the primary.
    pub async fn prune_events(&self, term: u64, keep_seconds: u64, limit: u32) -> Result<u64, ReadError> {
        let (term, keep) = (to_bigint("term", term), to_bigint("keep_seconds", keep_seconds));
        let (term, keep) = (term.map_err(ReadError::Broken)?, keep.map_err(ReadError::Broken)?);
        let limit = i32::try_from(limit).unwrap_or(i32::MAX);
        let sql = "SELECT holdfast.prune_events($1, $2, $3)";
        let gone = self.rows(sql, &[&term, &keep, &limit], |row| Ok(from_bigint(row.try_get(0)?))).await?;
        Ok(gone.first().copied().unwrap_or(0))
    }
}

const SPAN: &str = "SELECT p.through, GREATEST(p.through, (SELECT max(sequence) FROM holdfast.events))
    FROM holdfast.events_pruned p";

// One statement, so that what was pruned and what is there are of one moment.
const PAGE: &str = "SELECT p.through, GREATEST(p.through, (SELECT max(sequence) FROM holdfast.events)),
    e.sequence, (extract(epoch FROM e.at) * 1000)::bigint, e.topic, e.event, e.subject
    FROM holdfast.events_pruned p
    LEFT JOIN LATERAL (SELECT * FROM holdfast.events WHERE sequence > $1 ORDER BY sequence LIMIT $2) e ON true
    ORDER BY e.sequence";

fn span(row: &Row) -> Result<EventSpan, Failure> {
    Ok(EventSpan { pruned_through: from_bigint(row.try_get(0)?), newest: from_bigint(row.try_get(1)?) })
}

fn event(row: &Row) -> Result<Option<EventRow>, Failure> {
    let Some(sequence) = unsigned(row, 2)? else { return Ok(None) };
    let Json(subject) = row.try_get(6)?;
    Ok(Some(EventRow {
        sequence,
        at_ms: from_bigint(row.try_get(3)?),
        topic: row.try_get(4)?,
        event: row.try_get(5)?,
        subject,
    }))
}
