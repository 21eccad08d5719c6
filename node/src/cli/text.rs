//! Answers for people: aligned, with units, and nothing that has no value.

use std::fmt::Write;

use holdfast_proto::node::v1::{self, PaymentDirection, PaymentStatus};

use super::cluster::Seen;

pub(super) fn info(i: &v1::GetInfoResponse) -> String {
    let role = if i.is_leader { "leads" } else { "stands by" };
    let mut rows = vec![
        ("node id", i.node_id.clone()),
        ("alias", i.alias.clone()),
        ("network", i.network.clone()),
        ("replica", format!("{} ({role}, term {})", i.replica, i.term)),
        ("version", i.version.clone()),
    ];
    if i.is_leader {
        rows.push(("block", format!("{} {}", i.block_height, i.block_hash)));
        rows.push(("peers", i.peers.to_string()));
        rows.push(("channels", format!("{} ({} usable)", i.channels, i.usable_channels)));
        rows.push(("addresses", i.addresses.join(", ")));
    }
    pairs(&rows)
}

pub(super) fn balance(b: &v1::GetBalanceResponse) -> String {
    let sat = |amount| format!("{} sat", grouped(amount));
    pairs(&[
        ("on-chain", sat(b.onchain_confirmed_sat)),
        ("on-chain, pending", sat(b.onchain_pending_sat)),
        ("can be spent", sat(b.onchain_spendable_sat)),
        ("of which reserved", sat(b.onchain_reserve_sat)),
        ("in channels", sat(b.lightning_sat)),
        ("can send", msat(b.lightning_outbound_msat)),
        ("can receive", msat(b.lightning_inbound_msat)),
        ("closing", sat(b.closing_sat)),
    ])
}

pub(super) fn peers(peers: &[v1::Peer]) -> String {
    if peers.is_empty() {
        return "no peers".into();
    }
    let rows = peers.iter().map(|p| {
        let state = match (p.connected, p.inbound) {
            (true, true) => "connected (in)",
            (true, false) => "connected (out)",
            (false, _) => "away",
        };
        let kept = if p.persistent { "yes" } else { "" };
        let backup = if p.holds_backup { "yes" } else { "" };
        vec![p.node_id.clone(), p.address.clone(), state.into(), kept.into(), p.channels.to_string(), backup.into()]
    });
    table(&["node id", "address", "state", "kept", "channels", "holds backup"], rows)
}

pub(super) fn channels(channels: &[v1::Channel]) -> String {
    if channels.is_empty() {
        return "no channels".into();
    }
    let rows = channels.iter().map(|c| {
        let state = if c.is_ready && !c.is_usable { format!("{}, peer away", c.state) } else { c.state.clone() };
        vec![
            c.channel_id.clone(),
            short(&c.counterparty),
            state,
            c.channel_type.clone(),
            grouped(c.capacity_sat),
            grouped(c.outbound_msat / 1000),
            grouped(c.inbound_msat / 1000),
            c.pending_htlcs.to_string(),
            if c.is_announced { c.short_channel_id.clone() } else { "private".into() },
        ]
    });
    table(&["channel id", "peer", "state", "type", "sat", "can send", "can receive", "htlcs", "public"], rows)
}

pub(super) fn payments(payments: &[v1::Payment]) -> String {
    if payments.is_empty() {
        return "no payments".into();
    }
    let rows = payments.iter().map(|p| {
        vec![
            p.sequence.to_string(),
            time(p.created_ms),
            direction(p).into(),
            status(p).into(),
            p.amount_msat.map(msat).unwrap_or_default(),
            p.fee_msat.map(msat).unwrap_or_default(),
            p.payment_hash.clone(),
        ]
    });
    table(&["#", "made", "", "status", "amount", "fee", "hash"], rows)
}

pub(super) fn payment(p: &v1::Payment) -> String {
    let mut rows = vec![
        ("payment", format!("{} {} ({})", direction(p), status(p), p.kind)),
        ("hash", p.payment_hash.clone()),
        ("amount", p.amount_msat.map(msat).unwrap_or_default()),
        ("fee", p.fee_msat.map(msat).unwrap_or_default()),
        ("preimage", p.preimage.clone()),
        ("failure", p.failure.clone()),
        ("invoice", p.invoice.clone()),
        ("offer", p.offer.clone()),
        ("label", p.label.clone()),
        ("payer's note", p.payer_note.clone()),
        ("metadata", p.metadata.clone()),
    ];
    if p.payment_id != p.payment_hash {
        rows.insert(1, ("id", p.payment_id.clone()));
    }
    if p.cancel_height != 0 {
        rows.push((
            "",
            format!(
                "paid and held: `holdfast settle` takes it, `cancel` gives it back, as does block {}",
                p.cancel_height
            ),
        ));
    }
    if p.created_ms != 0 {
        rows.push(("made", time(p.created_ms)));
        rows.push(("changed", time(p.updated_ms)));
    }
    if p.status() == PaymentStatus::Pending && p.direction() == PaymentDirection::Outbound {
        rows.push(("", format!("still under way: `holdfast payments {}` says what becomes of it", p.payment_id)));
    }
    let mut out = pairs(&rows);
    if !p.parts.is_empty() {
        let rows = p.parts.iter().map(|part| {
            let way: Vec<_> = part.hops.iter().map(|hop| hop.channel.as_str()).collect();
            vec![
                time(part.ended_ms),
                if part.succeeded { "succeeded".into() } else { "failed".into() },
                msat(part.amount_msat),
                msat(part.fee_msat),
                if way.is_empty() { part.channel.clone() } else { way.join(" > ") },
                [part.failure.as_str(), part.failed_channel.as_str()].join(" ").trim().to_owned(),
            ]
        });
        out += "\n";
        out += &table(&["part ended", "", "amount", "fee", "by", ""], rows);
    }
    out
}

pub(super) fn offers(offers: &[v1::Offer]) -> String {
    if offers.is_empty() {
        return "no offers".into();
    }
    let rows = offers.iter().map(|o| {
        let state = match (o.disabled_ms, o.expires_ms) {
            (0, 0) => String::new(),
            (0, expires) => format!("until {}", time(expires)),
            (disabled, _) => format!("disabled {}", time(disabled)),
        };
        let amount = o.amount_msat.map(msat).unwrap_or_else(|| "any".into());
        vec![
            o.sequence.to_string(),
            time(o.created_ms),
            amount,
            state,
            o.description.clone(),
            o.label.clone(),
            o.offer_id.clone(),
        ]
    });
    table(&["#", "made", "amount", "", "description", "label", "offer id"], rows)
}

pub(super) fn probe(p: &v1::ProbeResponse) -> String {
    let way: Vec<_> = p.hops.iter().map(|hop| hop.channel.as_str()).collect();
    let channel = if p.failed_channel.is_empty() { String::new() } else { format!(" ({})", p.failed_channel) };
    pairs(&[
        ("reachable", if p.reachable { "yes".into() } else { "no".into() }),
        ("fee", if p.attempts == 0 { String::new() } else { msat(p.fee_msat) }),
        ("parts", if p.attempts == 0 { String::new() } else { p.parts.to_string() }),
        ("attempts", p.attempts.to_string()),
        ("way", way.join(" > ")),
        ("why", if p.reachable { String::new() } else { format!("{}{channel}", p.failure) }),
    ])
}

pub(super) fn leader(l: &v1::GetLeaderResponse, all: &[Seen]) -> String {
    let mut out = if l.leader.is_empty() {
        format!("no replica leads; the newest term is {}\n", l.term)
    } else {
        format!("{} leads in term {} since {}\n", l.leader, l.term, time(l.since_ms))
    };
    out += "\n";
    out += &table(&["replica", "state"], all.iter().map(|s| vec![s.endpoint.clone(), seen(s)]));
    if !l.history.is_empty() {
        let rows = l.history.iter().map(|t| {
            let mut phases: Vec<_> = t.phases_us.iter().collect();
            phases.sort_by_key(|(name, us)| (std::cmp::Reverse(**us), (*name).clone()));
            let phases: Vec<_> = phases.into_iter().map(|(name, us)| format!("{name} {}", milliseconds(*us))).collect();
            let took = milliseconds(t.phases_us.values().sum());
            vec![t.term.to_string(), t.replica.clone(), time(t.at_ms), took, phases.join(", ")]
        });
        out += "\n";
        out += &table(&["term", "replica", "took the lead", "in", "of which"], rows);
    }
    out
}

pub(super) fn seen(seen: &Seen) -> String {
    match &seen.answer {
        Ok(answer) if answer.leader.is_this_replica => "leads".into(),
        Ok(_) => "stands by".into(),
        Err(why) => why.to_string(),
    }
}

pub(super) fn direction(p: &v1::Payment) -> &'static str {
    match p.direction() {
        PaymentDirection::Inbound => "inbound",
        PaymentDirection::Outbound => "outbound",
        PaymentDirection::Unspecified => "unknown",
    }
}

pub(super) fn status(p: &v1::Payment) -> &'static str {
    match p.status() {
        PaymentStatus::Pending => "pending",
        PaymentStatus::Accepted => "accepted",
        PaymentStatus::Succeeded => "succeeded",
        PaymentStatus::Failed => "failed",
        PaymentStatus::Unspecified => "unknown",
    }
}

/// `name  value` lines; those without a value are left out.
pub(super) fn pairs(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut out = String::new();
    for (name, value) in rows.iter().filter(|(_, value)| !value.is_empty()) {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{name:width$}  {}", printable(value));
    }
    out
}

/// Columns as wide as their widest cell; numbers to the right.
pub(super) fn table(heads: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let rows: Vec<Vec<String>> = rows.map(|row| row.iter().map(|cell| printable(cell)).collect()).collect();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([heads[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let heads: Vec<String> = heads.iter().map(ToString::to_string).collect();
    let mut out = String::new();
    for row in std::iter::once(&heads).chain(&rows) {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let number = cell.chars().next().is_some_and(|c| c.is_ascii_digit())
                && cell.chars().all(|c| c.is_ascii_digit() || c == ' ');
            // Writing to a String cannot fail.
            let _ = if number { write!(line, "{cell:>width$}  ") } else { write!(line, "{cell:width$}  ") };
        }
        out += line.trim_end();
        out.push('\n');
    }
    out
}

/// What peers wrote, on a terminal: nothing that moves its cursor, sets its title, starts a line or turns the text around.
pub(super) fn printable(text: &str) -> String {
    let is_harmful = |c: char| {
        // C0, DEL and C1; line and paragraph separators; the marks, embeddings, overrides and isolates of bidi text.
        c.is_control()
            || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|c| if is_harmful(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

pub(super) fn msat(amount: u64) -> String {
    match amount % 1000 {
        0 => format!("{} sat", grouped(amount / 1000)),
        rest => format!("{}.{rest:03} sat", grouped(amount / 1000)),
    }
}

fn milliseconds(us: u64) -> String {
    format!("{}.{} ms", us / 1000, us % 1000 / 100)
}

/// 1234567 as `1 234 567`.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i != 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}

pub(super) fn short(id: &str) -> String {
    match id.get(..16) {
        Some(start) => format!("{start}.."),
        None => id.to_owned(),
    }
}

/// Milliseconds since the Unix epoch as UTC.
pub(super) fn time(ms: u64) -> String {
    let (days, second) = (ms / 86_400_000, ms / 1000 % 86_400);
    // Howard Hinnant's civil_from_days, for days since 1970-01-01.
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_utc() {
        for (ms, text) in [
            (0, "1970-01-01 00:00:00Z"),
            (951_782_399_999, "2000-02-28 23:59:59Z"),
            (951_782_400_000, "2000-02-29 00:00:00Z"),
            (1_700_000_000_000, "2023-11-14 22:13:20Z"),
            (4_107_542_400_000, "2100-03-01 00:00:00Z"),
        ] {
            assert_eq!(time(ms), text);
        }
        assert!(time(u64::MAX).ends_with('Z'));
    }

    #[test]
    fn amounts_keep_their_thousandths() {
        assert_eq!(msat(1_234_567_000), "1 234 567 sat");
        assert_eq!(msat(1_001), "1.001 sat");
        assert_eq!(msat(0), "0 sat");
    }

    #[test]
    fn tables_line_up() {
        let rows = [vec!["a".to_owned(), "1 000".to_owned()], vec!["bcd".to_owned(), "5".to_owned()]];
        assert_eq!(table(&["id", "sat"], rows.into_iter()), "id   sat\na    1 000\nbcd      5\n");
    }
    #[test]
    fn what_peers_write_does_nothing_to_the_terminal() {
        let note = "a\x1b]0;title\x07\x1b[2J\nid  forged\u{9b}31m\x7f\u{202e}evil\u{2066} Zoë ☕";
        for text in [
            payment(&v1::Payment { payer_note: note.into(), failure: note.into(), ..v1::Payment::default() }),
            pairs(&[("note", note.into())]),
            table(&["note"], [vec![note.to_owned()]].into_iter()),
        ] {
            let harmful = |c: char| (c.is_control() && c != '\n') || "\u{202e}\u{2066}".contains(c);
            assert!(!text.contains(harmful), "{text:?}");
            assert!(text.contains("Zoë ☕") && !text.contains("\nid"), "{text:?}");
        }
    }
}
