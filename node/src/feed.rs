//! The log of events between Postgres and the operators' stream: rows into messages, one look at what is newest for all who
//! watch, and the end of what is old.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use holdfast_proto::{
    error::Error,
    node::v1::{self, EventTopic, event::Subject},
};
use serde_json::Value;
use tokio::sync::Mutex;

use crate::{
    api::{EventPage, EventSource, LOOK},
    store::postgres::{EventRow, PgConfig, PgReader},
};

/// Reads the log at the primary: a cursor that one replica gave out must be known to every other.
pub struct Feed {
    reader: PgReader,
    newest: Mutex<Option<(Instant, u64)>>,
}

impl Feed {
    pub fn new(config: PgConfig) -> Self {
        Self { reader: PgReader::of_primary(config), newest: Mutex::default() }
    }

    /// For the leader of `term`: removes what is older than `keep`, for as long as it is polled.
    pub async fn prune(&self, term: u64, keep: Duration) {
        const OFTEN: Duration = Duration::from_secs(600);
        /// Few enough for a statement that nobody waits for long.
        const AT_ONCE: u32 = 10_000;
        let mut tick = tokio::time::interval(OFTEN);
        loop {
            tick.tick().await;
            loop {
                match self.reader.prune_events(term, keep.as_secs(), AT_ONCE).await {
                    Ok(0) => break,
                    Ok(events) => tracing::info!(events, "removed events for their age"),
                    Err(error) => {
                        tracing::warn!(%error, "old events could not be removed");
                        break;
                    }
                }
            }
        }
    }
}

#[async_trait]
impl EventSource for Feed {
    async fn newest(&self) -> Result<u64, Error> {
        // Held across the question, so that all who watch ask once.
        let mut newest = self.newest.lock().await;
        match *newest {
            Some((at, newest)) if at.elapsed() < LOOK => Ok(newest),
            _ => {
                let span = self.reader.event_span().await?;
                *newest = Some((Instant::now(), span.newest));
                Ok(span.newest)
            }
        }
    }

    async fn page(&self, after: u64, limit: u32) -> Result<EventPage, Error> {
        let (span, rows) = self.reader.events(after, limit).await?;
        let events = rows.into_iter().map(message).collect();
        Ok(EventPage { pruned_through: span.pruned_through, newest: span.newest, events })
    }
}

/// An event as operators see it.
fn message(row: EventRow) -> v1::Event {
    let subject = Fields(&row.subject);
    let (topic, about) = match row.topic.as_str() {
        "payment" => (EventTopic::Payment, Some(Subject::Payment(payment(&subject)))),
        "channel" => (EventTopic::Channel, Some(Subject::Channel(channel(&subject)))),
        "forward" => (EventTopic::Forward, Some(Subject::Forward(forward(&subject)))),
        "onchain" => (EventTopic::Onchain, Some(Subject::Transaction(transaction(&subject)))),
        "deposit" => (EventTopic::Deposit, Some(Subject::Deposit(deposit(&subject)))),
        "leader" => (EventTopic::Leader, Some(Subject::Leader(leader(&subject)))),
        // Of a newer leader: there is an event, and its cursor counts.
        _ => (EventTopic::Unspecified, None),
    };
    v1::Event { sequence: row.sequence, at_ms: row.at_ms, topic: topic.into(), what: row.event, subject: about }
}

fn payment(of: &Fields<'_>) -> v1::Payment {
    let direction = match of.get("direction") {
        Some("inbound") => v1::PaymentDirection::Inbound,
        Some("outbound") => v1::PaymentDirection::Outbound,
        _ => v1::PaymentDirection::Unspecified,
    };
    let status = match of.get("status") {
        Some("pending") => v1::PaymentStatus::Pending,
        Some("accepted") => v1::PaymentStatus::Accepted,
        Some("succeeded") => v1::PaymentStatus::Succeeded,
        Some("failed") => v1::PaymentStatus::Failed,
        _ => v1::PaymentStatus::Unspecified,
    };
    let is_held = status == v1::PaymentStatus::Accepted;
    v1::Payment {
        payment_id: of.text("payment_id"),
        payment_hash: of.text("payment_hash"),
        direction: direction.into(),
        status: status.into(),
        amount_msat: of.number("amount_msat"),
        fee_msat: of.number("fee_msat"),
        preimage: of.text("preimage"),
        failure: of.text("failure"),
        created_ms: of.number("created_ms").unwrap_or(0),
        updated_ms: of.number("updated_ms").unwrap_or(0),
        sequence: of.number("sequence").unwrap_or(0),
        kind: of.text("kind"),
        label: of.text("label"),
        payer_note: of.text("payer_note"),
        cancel_height: of.number("cancel_height").filter(|_| is_held).and_then(|at| at.try_into().ok()).unwrap_or(0),
        ..Default::default()
    }
}

fn channel(of: &Fields<'_>) -> v1::ChannelEvent {
    v1::ChannelEvent {
        channel_id: of.text("channel_id"),
        user_channel_id: of.text("user_channel_id"),
        counterparty: of.text("counterparty"),
        funding_outpoint: of.text("funding"),
        close_reason: of.text("close_reason"),
    }
}

fn forward(of: &Fields<'_>) -> v1::ForwardEvent {
    v1::ForwardEvent {
        incoming_channel: of.text("incoming_channel"),
        outgoing_channel: of.text("outgoing_channel"),
        amount_msat: of.number("amount_msat"),
        fee_msat: of.number("fee_msat"),
    }
}

fn transaction(of: &Fields<'_>) -> v1::TransactionEvent {
    v1::TransactionEvent { txid: of.text("txid"), size_bytes: of.number("size_bytes").unwrap_or(0) }
}

fn deposit(of: &Fields<'_>) -> v1::DepositEvent {
    let small = |name| of.number(name).and_then(|number| number.try_into().ok()).unwrap_or(0);
    v1::DepositEvent {
        outpoint: of.text("outpoint"),
        address: of.text("address"),
        amount_sat: of.number("amount_sat").unwrap_or(0),
        label: of.text("label"),
        confirmations: small("confirmations"),
        block_height: small("block_height"),
        block_hash: of.text("block_hash"),
    }
}

fn leader(of: &Fields<'_>) -> v1::LeaderEvent {
    v1::LeaderEvent {
        term: of.number("term").unwrap_or(0),
        replica: of.text("replica"),
        api_address: of.text("api_address"),
    }
}

/// What a trigger wrote: hex, words and numbers by name; what is absent is not there.
struct Fields<'a>(&'a Value);

impl<'a> Fields<'a> {
    fn get(&self, name: &str) -> Option<&'a str> {
        self.0.get(name)?.as_str()
    }

    fn text(&self, name: &str) -> String {
        self.get(name).unwrap_or_default().to_owned()
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.0.get(name)?.as_u64()
    }
}
