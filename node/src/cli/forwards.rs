//! `holdfast forwards`: what was passed on for others, and what it earned.

use std::{
    str::FromStr,
    time::{SystemTime, UNIX_EPOCH},
};

use holdfast_proto::node::v1;
use serde_json::{Value, json};

use super::{Output, args::duration, cluster::Cluster, failure::Failure, text};

#[derive(Clone, Debug, clap::Args)]
pub(super) struct ForwardsArgs {
    #[arg(long, default_value_t = 20)]
    pub limit: u32,
    /// Go on below this sequence number.
    #[arg(long, value_name = "SEQUENCE")]
    pub before: Option<u64>,
    /// Only those settled then or later: a day in UTC as 2026-01-31, or how long ago, as 12h or 30d.
    #[arg(long, value_name = "WHEN")]
    pub since: Option<When>,
    /// Only those settled before then.
    #[arg(long, value_name = "WHEN")]
    pub until: Option<When>,
    /// Only those that came in by this channel or left by it: its id of 64 hex digits.
    #[arg(long, value_name = "CHANNEL_ID", default_value = "", hide_default_value = true)]
    pub channel: String,
}

/// A moment, in milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct When(pub u64);

impl FromStr for When {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        if let Some(days) = days(s) {
            return Ok(Self(days * 86_400_000));
        }
        let ago = duration(s).map_err(|_| format!("neither a day, as 2026-01-31, nor how long ago, as 30d: {s:?}"))?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Self(u64::try_from(now.saturating_sub(ago).as_millis()).unwrap_or(u64::MAX)))
    }
}

/// The days between 1970-01-01 and a day written as `YYYY-MM-DD`.
fn days(s: &str) -> Option<u64> {
    let mut parts = s.splitn(3, '-').map(|part| part.parse::<u64>().ok());
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    if s.len() != 10 || !(1970..=9999).contains(&year) || !(1..=12).contains(&month) {
        return None;
    }
    // Howard Hinnant's days_from_civil: years begin in March, so that leap days are at their end.
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day.checked_sub(1)?;
    let days = (year * 365 + year / 4 - year / 100 + year / 400 + day_of_year).checked_sub(719_468)?;
    // Whatever is no day of its month comes out as another one.
    text::time(days * 86_400_000).starts_with(s).then_some(days)
}

pub(super) async fn run(cluster: &Cluster, args: ForwardsArgs) -> Result<Output, Failure> {
    let request = v1::ListForwardsRequest {
        limit: args.limit,
        before: args.before,
        since_ms: args.since.map(|when| when.0),
        until_ms: args.until.map(|when| when.0),
        channel: args.channel,
        totals: true,
    };
    let list = cluster.on_any(async |mut c| c.list_forwards(request.clone()).await).await?;
    let totals = list.totals.unwrap_or_default();
    let all: Vec<_> = list.forwards.iter().map(as_json).collect();
    let sums = json!({ "count": totals.count, "amount_msat": totals.amount_msat, "fee_msat": totals.fee_msat });
    Ok(Output::ok(json!({ "forwards": all, "totals": sums }), as_text(&list.forwards, &totals)))
}

fn as_json(forward: &v1::Forward) -> Value {
    json!({
        "sequence": forward.sequence,
        "at_ms": forward.at_ms,
        "incoming_channel": forward.incoming_channel,
        "outgoing_channel": forward.outgoing_channel,
        "amount_msat": forward.amount_msat,
        "fee_msat": forward.fee_msat,
    })
}

fn as_text(forwards: &[v1::Forward], totals: &v1::ForwardTotals) -> String {
    if totals.count == 0 {
        return "no forwards".into();
    }
    let amount = |msat: Option<u64>| msat.map_or_else(|| "unknown".into(), text::msat);
    let rows = forwards.iter().map(|forward| {
        vec![
            forward.sequence.to_string(),
            text::time(forward.at_ms),
            text::short(&forward.incoming_channel),
            text::short(&forward.outgoing_channel),
            amount(forward.amount_msat),
            amount(forward.fee_msat),
        ]
    });
    let table = text::table(&["#", "settled", "came in by", "left by", "amount", "earned"], rows);
    let (moved, earned) = (text::msat(totals.amount_msat), text::msat(totals.fee_msat));
    format!("{table}in all {} forwards of {moved}, which earned {earned}", totals.count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_day_or_some_time_ago() {
        for (day, ms) in [
            ("1970-01-01", 0),
            ("2000-02-29", 951_782_400_000),
            ("2000-03-01", 951_868_800_000),
            ("2023-11-14", 1_699_920_000_000),
            ("2100-03-01", 4_107_542_400_000),
        ] {
            assert_eq!(day.parse(), Ok(When(ms)), "{day}");
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
        let When(ago) = "30d".parse().unwrap();
        assert!(ago <= now && now - ago < 31 * 86_400_000);
        for bad in
            ["yesterday", "2023-02-29", "2023-13-01", "2023-00-10", "1969-12-31", "2023-1-1", "23-01-01", "30", ""]
        {
            assert!(bad.parse::<When>().is_err(), "{bad}");
        }
    }
}
