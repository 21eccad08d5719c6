//! The status page: a snapshot for people.
//!
//! Plain HTML from the server, with no script and nothing from elsewhere; the browser asks again every few seconds. Nothing
//! on it acts, and what could be used against the node (preimages, invoices, peers' addresses) is not on it.

use std::{
    fmt::{self, Display, Write},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{
    http::header,
    response::{IntoResponse, Response},
};
use holdfast_proto::node::v1;

use super::snapshot::Snapshot;

pub(super) fn answer(snapshot: &Snapshot) -> Response {
    let mut html = String::new();
    // Writing to a string does not fail.
    let _ = page(&mut html, snapshot);
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        // Its own stylesheet, and nothing else at all: no script, no frame, no form, no request to anywhere.
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (headers, html).into_response()
}

pub(super) fn stylesheet() -> Response {
    let headers = [(header::CONTENT_TYPE, "text/css; charset=utf-8"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
    (headers, include_str!("status_page.css")).into_response()
}

fn page(out: &mut String, s: &Snapshot) -> fmt::Result {
    let none = v1::GetInfoResponse::default();
    let info = s.info.as_ref().unwrap_or(&none);
    write!(
        out,
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta http-equiv=\"refresh\" content=\"5\"><title>{} {}</title>\
         <link rel=\"stylesheet\" href=\"/status.css\"></head><body>\n",
        Safe(&info.alias),
        Safe(&info.replica),
    )?;
    head(out, s, info)?;
    parts(out, s)?;
    if s.leading {
        money(out, s)?;
        channels(out, s.channels.as_deref())?;
    }
    payments(out, &s.payments)?;
    takeovers(out, &s.leader)?;
    writeln!(
        out,
        "<footer>Holdfast {} as of {}; asks again every 5 s. Nothing on this page acts; \
         <a href=\"/metrics\">metrics</a> say more.</footer>\n</body></html>",
        Safe(&info.version),
        Utc(s.at),
    )
}

/// Figures that are older were not had when they were asked for.
const OLD: Duration = Duration::from_secs(3);
/// In days, as HoldfastCertificateExpires has it.
const EXPIRES_SOON: u64 = 14;

fn head(out: &mut String, s: &Snapshot, info: &v1::GetInfoResponse) -> fmt::Result {
    let (class, role) = match (s.leading, s.away.is_empty()) {
        (true, true) => ("good", "leads"),
        (true, false) => ("bad", "leads, and waits"),
        (false, true) => ("good", "stands by"),
        (false, false) => ("bad", "cannot lead now"),
    };
    writeln!(out, "<header><h1>{}<span class=\"role {class}\">{role}</span></h1>", Safe(&info.replica))?;
    writeln!(out, "<p class=\"soft\">{} on {}</p>", Safe(&info.alias), Safe(&info.network))?;
    writeln!(out, "<p class=\"mono soft\">{}</p>", Safe(&info.node_id))?;
    if s.at.elapsed().is_ok_and(|age| age > OLD) {
        writeln!(out, "<p class=\"bad\">The node does not answer: its figures are as of {}.</p>", Utc(s.at))?;
    }
    writeln!(out, "</header>")?;
    writeln!(out, "<dl class=\"cards\">")?;
    card(out, "term", info.term)?;
    match &s.leader {
        Ok(leader) if leader.leader.is_empty() => card(out, "leader", "nobody")?,
        Ok(leader) => {
            card(out, "leader", Safe(&leader.leader))?;
            card(out, "leads since", Utc(UNIX_EPOCH + Duration::from_millis(leader.since_ms)))?;
        }
        Err(_) => card(out, "leader", "unknown: the database is away")?,
    }
    if s.leading {
        card(out, "block", info.block_height)?;
        card(out, "peers", info.peers)?;
        card(out, "channels usable", format_args!("{} of {}", info.usable_channels, info.channels))?;
        if let Some(htlcs) = &s.htlcs {
            card(out, "HTLCs in flight", htlcs.inbound + htlcs.outbound)?;
            if let Some(blocks) = htlcs.nearest_deadline_blocks {
                card(out, "nearest deadline", format_args!("{blocks} blocks"))?;
            }
        }
    }
    if let Some(expire) = s.watched.certificates_expire {
        let left = expire.duration_since(SystemTime::now()).unwrap_or_default();
        let days = left.as_secs() / 86_400;
        let class = if days < EXPIRES_SOON { "bad" } else { "" };
        card(out, "certificate expires in", format_args!("<span class=\"{class}\">{days} days</span>"))?;
    }
    writeln!(out, "</dl>")
}

fn parts(out: &mut String, s: &Snapshot) -> fmt::Result {
    write!(out, "<section id=\"health\"><h2>Health</h2><div class=\"wide\"><table>")?;
    write!(out, "<tr><th>part</th><th>state</th><th class=\"number\">answers in</th><th></th></tr>")?;
    for part in &s.watched.parts {
        let (class, state) = match &part.away {
            None => ("good", "well"),
            Some(_) => ("bad", "away"),
        };
        write!(out, "<tr><td>{}</td><td class=\"{class}\">{state}</td><td class=\"number\">", part.name)?;
        if let Some(took) = part.took {
            write!(out, "{}", Took(took))?;
        }
        let detail = match (&part.away, part.name) {
            (Some(why), _) => why.clone(),
            (None, "bitcoind") => {
                s.watched.bitcoind_height.map_or_else(String::new, |height| format!("block {height}"))
            }
            (None, "postgres") => {
                s.watched.database_bytes.map_or_else(String::new, |size| format!("{} MB", size >> 20))
            }
            _ => String::new(),
        };
        writeln!(out, "</td><td class=\"text soft\">{}</td></tr>", Safe(&detail))?;
    }
    writeln!(out, "</table></div></section>")
}

fn money(out: &mut String, s: &Snapshot) -> fmt::Result {
    let Some(balance) = &s.balance else { return Ok(()) };
    writeln!(out, "<section id=\"balance\"><h2>Balance</h2><dl class=\"cards\">")?;
    for (name, sat) in [
        ("in channels", balance.lightning_sat),
        ("on chain", balance.onchain_confirmed_sat),
        ("on chain, pending", balance.onchain_pending_sat),
        ("closing", balance.closing_sat),
        ("can send", balance.lightning_outbound_msat / 1000),
        ("can receive", balance.lightning_inbound_msat / 1000),
    ] {
        card(out, name, format_args!("{} <span class=\"unit\">sat</span>", Grouped(sat)))?;
    }
    writeln!(out, "</dl></section>")
}

fn channels(out: &mut String, channels: Option<&[v1::Channel]>) -> fmt::Result {
    write!(out, "<section id=\"channels\"><h2>Channels</h2>")?;
    let Some(channels) = channels else {
        return writeln!(out, "<p class=\"soft\">not known now</p></section>");
    };
    if channels.is_empty() {
        return writeln!(out, "<p class=\"soft\">none</p></section>");
    }
    write!(
        out,
        "<div class=\"wide\"><table><tr><th>channel</th><th>state</th><th class=\"number\">can send, sat</th>\
         <th class=\"number\">can receive, sat</th><th></th><th class=\"number\">HTLCs</th>\
         <th class=\"number\">capacity, sat</th><th>peer</th></tr>"
    )?;
    for channel in channels {
        let (class, state) = match (channel.is_usable, channel.is_ready) {
            (true, _) => ("good", channel.state.as_str()),
            (false, true) if channel.state == "ready" => ("bad", "peer away"),
            _ => ("soft", channel.state.as_str()),
        };
        let name = if channel.short_channel_id.is_empty() { &channel.channel_id } else { &channel.short_channel_id };
        let (send, receive) = (channel.outbound_msat / 1000, channel.inbound_msat / 1000);
        writeln!(
            out,
            "<tr><td class=\"mono\">{}</td><td class=\"{class}\">{}</td><td class=\"number\">{}</td><td class=\"number\">{}</td>\
             <td>{}</td><td class=\"number\">{}</td><td class=\"number\">{}</td><td class=\"mono\">{}</td></tr>",
            Short(name),
            Safe(state),
            Grouped(send),
            Grouped(receive),
            Share { part: send, whole: send + receive },
            channel.pending_htlcs,
            Grouped(channel.capacity_sat),
            Short(&channel.counterparty),
        )?;
    }
    writeln!(out, "</table></div></section>")
}

fn payments(out: &mut String, payments: &Result<Vec<v1::Payment>, String>) -> fmt::Result {
    write!(out, "<section id=\"payments\"><h2>Latest payments</h2>")?;
    let payments = match payments {
        Ok(payments) if payments.is_empty() => return writeln!(out, "<p class=\"soft\">none</p></section>"),
        Ok(payments) => payments,
        Err(why) => return writeln!(out, "<p class=\"bad\">{}</p></section>", Safe(why)),
    };
    write!(
        out,
        "<div class=\"wide\"><table><tr><th>state</th><th>way</th><th class=\"number\">amount, sat</th>\
         <th class=\"number\">fee, sat</th><th>last change</th><th>hash</th><th>why</th></tr>"
    )?;
    for payment in payments {
        let way = match payment.direction() {
            v1::PaymentDirection::Inbound => "in",
            v1::PaymentDirection::Outbound => "out",
            _ => "",
        };
        let (class, state) = match payment.status() {
            v1::PaymentStatus::Succeeded => ("good", "succeeded"),
            v1::PaymentStatus::Failed => ("bad", "failed"),
            v1::PaymentStatus::Accepted => ("soft", "held"),
            _ => ("soft", "pending"),
        };
        writeln!(
            out,
            "<tr><td class=\"{class}\">{state}</td><td>{way}</td><td class=\"number\">{}</td><td class=\"number\">{}</td>\
             <td>{}</td><td class=\"mono\">{}</td><td class=\"text soft\">{}</td></tr>",
            Sats(payment.amount_msat),
            Sats(payment.fee_msat),
            Utc(UNIX_EPOCH + Duration::from_millis(payment.updated_ms)),
            Short(&payment.payment_hash),
            Safe(&payment.failure),
        )?;
    }
    writeln!(out, "</table></div></section>")
}

fn takeovers(out: &mut String, leader: &Result<v1::GetLeaderResponse, String>) -> fmt::Result {
    write!(out, "<section id=\"takeovers\"><h2>Takeovers</h2>")?;
    let history = match leader {
        Ok(leader) if leader.history.is_empty() => return writeln!(out, "<p class=\"soft\">none</p></section>"),
        Ok(leader) => &leader.history[..leader.history.len().min(8)],
        Err(why) => return writeln!(out, "<p class=\"bad\">{}</p></section>", Safe(why)),
    };
    let total = |takeover: &v1::Takeover| takeover.phases_us.values().sum::<u64>();
    let longest = history.iter().map(total).max().unwrap_or(0);
    write!(out, "<div class=\"wide\"><table><tr><th class=\"number\">term</th><th>replica</th>")?;
    write!(out, "<th class=\"number\">took</th><th></th><th>began</th></tr>")?;
    for takeover in history {
        writeln!(
            out,
            "<tr><td class=\"number\">{}</td><td>{}</td><td class=\"number\">{}</td><td>{}</td><td>{}</td></tr>",
            takeover.term,
            Safe(&takeover.replica),
            Took(Duration::from_micros(total(takeover))),
            Share { part: total(takeover), whole: longest },
            Utc(UNIX_EPOCH + Duration::from_millis(takeover.at_ms)),
        )?;
    }
    writeln!(out, "</table></div>")?;
    if let Some(newest) = history.first() {
        let mut phases: Vec<_> = newest.phases_us.iter().collect();
        phases.sort_by_key(|(_, took)| std::cmp::Reverse(**took));
        writeln!(out, "<p class=\"soft\">What the newest spent its time on:</p><ol class=\"phases\">")?;
        for (phase, took) in phases {
            writeln!(
                out,
                "<li>{} <span class=\"soft\">{}</span></li>",
                Safe(phase),
                Took(Duration::from_micros(*took))
            )?;
        }
        writeln!(out, "</ol>")?;
    }
    writeln!(out, "</section>")
}

fn card(out: &mut String, name: &str, value: impl Display) -> fmt::Result {
    writeln!(out, "<div><dt>{name}</dt><dd>{value}</dd></div>")
}

/// Text that is not ours to trust: an alias, an error, a name.
struct Safe<'a>(&'a str);

impl Display for Safe<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// The beginning of a long name, enough to find it by.
struct Short<'a>(&'a str);

impl Display for Short<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.char_indices().nth(16) {
            Some((end, _)) => write!(f, "{}…", Safe(&self.0[..end])),
            None => Safe(self.0).fmt(f),
        }
    }
}

/// Thousands apart.
struct Grouped(u64);

impl Display for Grouped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        for (at, digit) in digits.chars().enumerate() {
            if at > 0 && (digits.len() - at).is_multiple_of(3) {
                // A thin space that does not break.
                f.write_char('\u{202f}')?;
            }
            f.write_char(digit)?;
        }
        Ok(())
    }
}

/// Millisatoshi, shown in satoshi.
struct Sats(Option<u64>);

impl Display for Sats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str(""),
            Some(msat) if msat.is_multiple_of(1000) => Grouped(msat / 1000).fmt(f),
            Some(msat) => write!(f, "{}.{:03}", Grouped(msat / 1000), msat % 1000),
        }
    }
}

struct Took(Duration);

impl Display for Took {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_micros() {
            us @ ..1_000_000 => write!(f, "{:.1} ms", us as f64 / 1e3),
            us => write!(f, "{:.2} s", us as f64 / 1e6),
        }
    }
}

/// A bar. SVG, because the policy forbids styles in the page.
struct Share {
    part: u64,
    whole: u64,
}

impl Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const WIDTH: u64 = 120;
        let bar = (u128::from(self.part) * u128::from(WIDTH)).checked_div(self.whole.into()).unwrap_or(0);
        write!(
            f,
            "<svg width=\"{WIDTH}\" height=\"8\" role=\"img\" aria-label=\"{} of {}\"><rect class=\"rest\" width=\"{WIDTH}\" \
             height=\"8\" rx=\"2\"/><rect class=\"bar\" width=\"{bar}\" height=\"8\" rx=\"2\"/></svg>",
            self.part, self.whole
        )
    }
}

/// A moment to the second, in UTC: replicas and their operators may be in different places.
struct Utc(SystemTime);

impl Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let (days, second) = (seconds / 86_400, seconds % 86_400);
        // Days since 0000-03-01 in cycles of 400 years: a year that begins in March has its odd day at the end.
        let days = days + 719_468;
        let (cycle, day) = (days / 146_097, days % 146_097);
        let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        let month = (5 * day + 2) / 153;
        let date = day - (153 * month + 2) / 5 + 1;
        let month = if month < 10 { month + 3 } else { month - 9 };
        let year = cycle * 400 + year + u64::from(month <= 2);
        let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
        write!(f, "{year}-{month:02}-{date:02} {hour:02}:{minute:02}:{second:02} UTC")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_is_text_and_never_markup() {
        let mut snapshot = crate::api::snapshot::tests::leading();
        if let Some(info) = &mut snapshot.info {
            info.alias = "<script>alert(1)</script>".into();
        }
        snapshot.away = vec!["signer: <b>".into()];
        snapshot.leader = Err("\"postgres\" & <i>friends</i>".into());
        let mut html = String::new();
        page(&mut html, &snapshot).unwrap();
        assert!(html.contains("&lt;script&gt;alert(1)&lt;/script&gt;"), "{html}");
        assert!(html.contains("&quot;postgres&quot; &amp; &lt;i&gt;friends&lt;/i&gt;"), "{html}");
        for markup in ["<script", "<b>", "<i>", "style=", "onload", "http://", "https://"] {
            assert!(!html.contains(markup), "{markup}: {html}");
        }
    }

    #[test]
    fn figures_from_before_are_told_as_such() {
        let mut snapshot = crate::api::snapshot::tests::leading();
        let shown = |snapshot: &Snapshot| {
            let mut html = String::new();
            page(&mut html, snapshot).unwrap();
            html
        };
        assert!(!shown(&snapshot).contains("does not answer"));
        snapshot.at = UNIX_EPOCH;
        let old = "The node does not answer: its figures are as of 1970-01-01 00:00:00 UTC.";
        assert!(shown(&snapshot).contains(old), "{}", shown(&snapshot));
    }

    #[test]
    fn channels_that_could_not_be_had_are_not_none() {
        let mut snapshot = crate::api::snapshot::tests::leading();
        snapshot.channels = None;
        let mut html = String::new();
        page(&mut html, &snapshot).unwrap();
        assert!(html.contains("<h2>Channels</h2><p class=\"soft\">not known now</p>"), "{html}");
    }

    #[test]
    fn moments_and_amounts_are_written_as_people_write_them() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_868_799, "2000-02-29 23:59:59 UTC"),
            (1_700_000_000, "2023-11-14 22:13:20 UTC"),
            (4_102_444_800, "2100-01-01 00:00:00 UTC"),
        ] {
            assert_eq!(Utc(UNIX_EPOCH + Duration::from_secs(seconds)).to_string(), text);
        }
        assert_eq!(Grouped(1_234_567).to_string(), "1\u{202f}234\u{202f}567");
        assert_eq!(Sats(Some(1_500)).to_string(), "1.500");
        assert_eq!(Sats(Some(2_000_000)).to_string(), "2\u{202f}000");
        assert_eq!(Took(Duration::from_micros(1_234)).to_string(), "1.2 ms");
        assert_eq!(Short(&"ab".repeat(32)).to_string(), "abababababababab…");
    }
}
