//! `holdfast watch`: what happens, as it happens. Any replica will do, and when one is lost the next goes on behind the
//! last event that was shown: none is missed, none is shown twice.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    fmt,
    io::{self, Write},
    str::FromStr,
    time::Duration,
};

use clap::ValueEnum;
use holdfast_proto::{
    error::Error,
    identity::Role,
    node::v1::{self, EventTopic, event::Subject, node_client::NodeClient},
    tls::{self, ConnectFailure},
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};
use tonic::{Code, Status, Streaming};

use super::{
    failure::{Exit, Failure},
    json as to_json,
    settings::Settings,
    text,
};
use crate::config::HostPort;

#[derive(Clone, Debug, clap::Args)]
pub(super) struct WatchArgs {
    /// Where to begin: a cursor, from which it goes on behind that event, or `oldest`. Without it, now.
    #[arg(long, value_name = "CURSOR")]
    pub from: Option<From>,
    /// Only events about this; may be given several times.
    #[arg(long = "topic", value_name = "TOPIC")]
    pub topics: Vec<Topic>,
    /// End after so many events.
    #[arg(long, value_name = "EVENTS", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum From {
    Oldest,
    Behind(u64),
}

impl FromStr for From {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "oldest" => Ok(Self::Oldest),
            cursor => cursor.parse().map(Self::Behind).map_err(|_| "neither a cursor nor `oldest`".into()),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Topic {
    Payment,
    Channel,
    Forward,
    Onchain,
    Deposit,
    Leader,
}

impl Topic {
    fn message(self) -> EventTopic {
        match self {
            Self::Payment => EventTopic::Payment,
            Self::Channel => EventTopic::Channel,
            Self::Forward => EventTopic::Forward,
            Self::Onchain => EventTopic::Onchain,
            Self::Deposit => EventTopic::Deposit,
            Self::Leader => EventTopic::Leader,
        }
    }
}

/// Shows events until `out` is closed or there were enough. No replica at all for as long as one looks for a leader is a
/// failure only at the beginning; later it is a pause.
pub(super) async fn run(
    settings: &Settings,
    args: &WatchArgs,
    json: bool,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let mut watch = Watch {
        cursor: match args.from {
            Some(From::Behind(cursor)) => Some(cursor),
            _ => None,
        },
        from_oldest: args.from == Some(From::Oldest),
        topics: args.topics.iter().map(|topic| topic.message().into()).collect(),
        left: args.count,
        json,
        out,
    };
    let patience_ends = Instant::now() + settings.patience;
    let mut served = false;
    let mut lost: BTreeMap<usize, (&str, Lost)> = BTreeMap::new();
    for (number, endpoint) in settings.endpoints.iter().map(HostPort::as_str).enumerate().cycle() {
        let stop = match watch.open(settings, endpoint).await {
            Ok(stream) => {
                if served {
                    note(&format!("watching at {endpoint}"));
                }
                served = true;
                lost.clear();
                match watch.follow(stream, endpoint).await {
                    Err(stop) => stop,
                    Ok(never) => match never {},
                }
            }
            Err(stop) => stop,
        };
        match stop {
            Stop::Done => return Ok(()),
            Stop::Fatal(failure) => return Err(failure),
            Stop::Elsewhere(why) => {
                if served && lost.is_empty() {
                    let cursor = watch.cursor.map(|cursor| format!(" after {cursor}")).unwrap_or_default();
                    note(&format!("{endpoint}: {why}; going on elsewhere{cursor}"));
                }
                lost.insert(number, (endpoint, why));
            }
        }
        if lost.len() == settings.endpoints.len() {
            if !served && Instant::now() >= patience_ends {
                return Err(nobody_serves(lost.values()));
            }
            sleep(AGAIN).await;
        }
    }
    // Settings have at least one endpoint, and a cycle of those has no end.
    Ok(())
}

fn nobody_serves<'a>(lost: impl Iterator<Item = &'a (&'a str, Lost)> + Clone) -> Failure {
    let answers = lost.clone().any(|(_, why)| why.is_answer);
    let mut message = if answers { "no replica shows its events" } else { "no replica answers" }.to_owned();
    for (endpoint, why) in lost {
        message += &format!("\n  {endpoint}: {why}");
    }
    Failure::new(Exit::Unavailable, message).hint(if answers {
        "events are in Postgres: /readyz of each replica says what is away"
    } else {
        "are the replicas running, and are these their API addresses?"
    })
}

/// For a replica to open a stream.
const OPEN_WITHIN: Duration = Duration::from_secs(5);
const AGAIN: Duration = Duration::from_millis(200);

/// For people, so that what is on the standard output stays what programs read.
fn note(text: &str) {
    // Nowhere is left to report that this cannot be written.
    let _ = writeln!(io::stderr(), "{text}");
}

enum Stop {
    Done,
    Fatal(Failure),
    /// Another replica may do better, or this one a moment later.
    Elsewhere(Lost),
}

/// Why a replica's stream is not to be had.
struct Lost {
    why: String,
    /// It said so itself.
    is_answer: bool,
}

impl Lost {
    fn silent(why: impl Into<String>) -> Self {
        Self { why: why.into(), is_answer: false }
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

struct Watch<'a, W> {
    /// The last event that was shown, or passed over.
    cursor: Option<u64>,
    from_oldest: bool,
    topics: Vec<i32>,
    left: Option<u64>,
    json: bool,
    out: &'a mut W,
}

impl<W: Write> Watch<'_, W> {
    async fn open(&self, settings: &Settings, endpoint: &str) -> Result<Streaming<v1::WatchEventsResponse>, Stop> {
        let channel = tls::reach(endpoint, &settings.credentials, Role::Replica, OPEN_WITHIN).await;
        let channel = channel.map_err(|error| match Failure::of_certificates(&error) {
            Some(failure) if matches!(error.why, ConnectFailure::OurCertificate(_)) => Stop::Fatal(failure),
            _ => Stop::Elsewhere(Lost::silent(error.why.to_string())),
        })?;
        let request = v1::WatchEventsRequest {
            after: self.cursor,
            from_oldest: self.from_oldest && self.cursor.is_none(),
            topics: self.topics.clone(),
        };
        match timeout(OPEN_WITHIN, NodeClient::new(channel).watch_events(request)).await {
            Ok(Ok(stream)) => Ok(stream.into_inner()),
            Ok(Err(status)) => Err(stop(&status, endpoint)),
            Err(_) => Err(Stop::Elsewhere(Lost::silent(format!("no answer within {OPEN_WITHIN:?}")))),
        }
    }

    async fn follow(
        &mut self,
        mut stream: Streaming<v1::WatchEventsResponse>,
        endpoint: &str,
    ) -> Result<Infallible, Stop> {
        loop {
            let message = stream.message().await.map_err(|status| stop(&status, endpoint))?;
            let Some(v1::WatchEventsResponse { cursor, event }) = message else {
                return Err(Stop::Elsewhere(Lost::silent("the stream ended")));
            };
            let is_event = event.is_some();
            self.show(cursor, event)?;
            self.cursor = Some(cursor);
            if is_event && let Some(left) = &mut self.left {
                *left -= 1;
                if *left == 0 {
                    return Err(Stop::Done);
                }
            }
        }
    }

    fn show(&mut self, cursor: u64, event: Option<v1::Event>) -> Result<(), Stop> {
        let line = match (event, self.json) {
            (Some(event), true) => as_json(&event).to_string(),
            (Some(event), false) => as_text(&event),
            // Where it stands, for a program that may be ended before the first event.
            (None, true) => json!({ "cursor": cursor }).to_string(),
            (None, false) => return Ok(()),
        };
        match writeln!(self.out, "{line}").and_then(|()| self.out.flush()) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Stop::Done),
            Err(error) => Err(Stop::Fatal(Failure::new(Exit::Io, error.to_string()))),
        }
    }
}

fn stop(status: &Status, endpoint: &str) -> Stop {
    match Error::from(status.clone()) {
        Error::Refused { .. } | Error::Misuse { .. } => Stop::Fatal(Failure::of_call(status, endpoint, false)),
        // A replica of an older release, in the middle of an upgrade.
        Error::Internal(_) if status.code() == Code::Unimplemented => {
            Stop::Elsewhere(Lost { why: "it knows no events yet".into(), is_answer: true })
        }
        _ => {
            let failure = Failure::of_call(status, endpoint, false);
            match failure.exit {
                Exit::NoPermission => Stop::Fatal(failure),
                // Without a type it is not the replica's word but that of a connection that broke.
                _ => Stop::Elsewhere(Lost { why: failure.message, is_answer: !status.details().is_empty() }),
            }
        }
    }
}

fn topic(event: &v1::Event) -> &'static str {
    match event.topic() {
        EventTopic::Payment => "payment",
        EventTopic::Channel => "channel",
        EventTopic::Forward => "forward",
        EventTopic::Onchain => "onchain",
        EventTopic::Deposit => "deposit",
        EventTopic::Leader => "leader",
        EventTopic::Unspecified => "unknown",
    }
}

fn as_json(event: &v1::Event) -> Value {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let subject = match &event.subject {
        Some(Subject::Payment(payment)) => {
            let mut payment = to_json::payment(payment);
            // An event does not carry them: `null` would say that there are none.
            if let Some(fields) = payment.as_object_mut() {
                fields.retain(|name, _| !["invoice", "offer", "metadata", "parts"].contains(&name.as_str()));
            }
            payment
        }
        Some(Subject::Channel(c)) => json!({
            "channel_id": c.channel_id,
            "user_channel_id": c.user_channel_id,
            "counterparty": some(&c.counterparty),
            "funding_outpoint": some(&c.funding_outpoint),
            "close_reason": some(&c.close_reason),
        }),
        Some(Subject::Forward(f)) => json!({
            "incoming_channel": f.incoming_channel,
            "outgoing_channel": f.outgoing_channel,
            "amount_msat": f.amount_msat,
            "fee_msat": f.fee_msat,
        }),
        Some(Subject::Transaction(t)) => json!({ "txid": t.txid, "size_bytes": t.size_bytes }),
        Some(Subject::Deposit(d)) => json!({
            "outpoint": d.outpoint,
            "address": d.address,
            "amount_sat": d.amount_sat,
            "label": some(&d.label),
            "confirmations": d.confirmations,
            "block_height": (d.block_height > 0).then_some(d.block_height),
            "block_hash": some(&d.block_hash),
        }),
        Some(Subject::Leader(l)) => {
            json!({ "term": l.term, "replica": l.replica, "api_address": some(&l.api_address) })
        }
        None => Value::Null,
    };
    json!({
        "cursor": event.sequence,
        "at_ms": event.at_ms,
        "topic": topic(event),
        "event": event.what,
        "subject": subject,
    })
}

fn as_text(event: &v1::Event) -> String {
    let amount = |msat: Option<u64>| msat.map(text::msat).unwrap_or_else(|| "any amount".into());
    let about = match &event.subject {
        Some(Subject::Payment(p)) => {
            let mut about = format!("{} {} {}", text::direction(p), amount(p.amount_msat), p.payment_id);
            for note in [&p.label, &p.failure].into_iter().filter(|note| !note.is_empty()) {
                about += &format!(" ({note})");
            }
            about
        }
        Some(Subject::Channel(c)) if c.close_reason.is_empty() => format!("{} with {}", c.channel_id, c.counterparty),
        Some(Subject::Channel(c)) => format!("{} ({})", c.channel_id, c.close_reason),
        Some(Subject::Forward(f)) => {
            let fee = f.fee_msat.map_or_else(String::new, |fee| format!(", earned {}", text::msat(fee)));
            format!("{}{fee}", amount(f.amount_msat))
        }
        Some(Subject::Transaction(t)) => t.txid.clone(),
        Some(Subject::Deposit(d)) => {
            let label = if d.label.is_empty() { String::new() } else { format!(" ({})", d.label) };
            let depth = if d.confirmations == 0 { String::new() } else { format!(", {} deep", d.confirmations) };
            format!("{} sat to {}{label} by {}{depth}", text::grouped(d.amount_sat), d.address, d.outpoint)
        }
        Some(Subject::Leader(l)) => format!("{} in term {}", l.replica, l.term),
        None => String::new(),
    };
    let line = format!("{}  {}  {} {}  {about}", text::time(event.at_ms), event.sequence, topic(event), event.what);
    // What a peer or an operator wrote must not end a line, nor move a terminal's cursor.
    let line: String = line.trim_end().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    text::printable(&line)
}

#[cfg(test)]
mod tests;
