//! docs/metrics.md and what is served.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Context, Result, ensure};
use holdfast_local::web::metric;
use holdfast_softhsm_tests::Scene;

use super::get;

/// Labelled counts of what a healthy deployment never sees: served from the first one on.
const WHEN_IT_HAPPENS: [&str; 2] = ["holdfast_signer_client_repeats_total", "holdfast_signer_client_refusals_total"];

pub async fn every_name_is_documented_and_every_documented_name_is_served(scene: &Scene) -> Result<()> {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md"))?;
    let (replica, signer) = page.split_once("\n## Signer\n").context("the page has two parts")?;
    let (leader, _) = scene.leader().await?;
    for (documented, served) in [
        (documented(replica), served(&get(&leader.health(), "/metrics").await?)),
        (documented(signer), served(&get(&scene.signer().health(), "/metrics").await?)),
    ] {
        let undocumented: Vec<_> = served.difference(&documented).collect();
        ensure!(undocumented.is_empty(), "served, and not in docs/metrics.md: {undocumented:?}");
        let gone: Vec<_> =
            documented.difference(&served).filter(|(name, _)| !WHEN_IT_HAPPENS.contains(&&**name)).collect();
        ensure!(gone.is_empty(), "in docs/metrics.md, and not served: {gone:?}");
    }
    // The rules and dashboards ask for nothing else.
    let names: BTreeSet<String> = documented(&page).into_iter().map(|(name, _)| name).collect();
    for file in ["alerts.yml", "alerts_test.yml", "grafana/holdfast.json", "grafana/holdfast-signer.json"] {
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/monitoring").join(file))?;
        for word in text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|w| w.starts_with("holdfast_"))
        {
            let base = ["_bucket", "_count", "_sum"].iter().find_map(|end| word.strip_suffix(end)).unwrap_or(word);
            let known = names.contains(word) || names.contains(base) || word.starts_with("holdfast_public");
            ensure!(known, "{file} asks for {word}, which nobody serves");
        }
    }
    Ok(())
}

/// What the leader says of itself is what its API says, and a standby says nothing of what it does not know.
pub async fn figures_are_those_of_the_node(scene: &Scene) -> Result<()> {
    let (leader, _) = scene.leader().await?;
    let (text, info, balance) = (get(&leader.health(), "/metrics").await?, scene.info().await?, scene.balance().await?);
    for (name, value) in [
        ("holdfast_leading", 1),
        ("holdfast_ready", 1),
        ("holdfast_term", info.term),
        ("holdfast_block_height", info.block_height.into()),
        ("holdfast_channels", info.channels.into()),
        ("holdfast_chain_lag_blocks", 0),
        ("holdfast_part_up{part=\"signer\"}", 1),
        ("holdfast_part_up{part=\"postgres\"}", 1),
        ("holdfast_part_up{part=\"bitcoind\"}", 1),
        ("holdfast_balance_sat{where=\"lightning\"}", balance.lightning_sat),
        ("holdfast_liquidity_msat{direction=\"outbound\"}", balance.lightning_outbound_msat),
        ("holdfast_payments_total{direction=\"outbound\",outcome=\"succeeded\"}", 1),
        ("holdfast_payments_total{direction=\"inbound\",outcome=\"succeeded\"}", 1),
    ] {
        let line = format!("{name} {value}");
        ensure!(text.lines().any(|found| found == line), "no line `{line}` in\n{text}");
    }
    let year = metric(&text, "holdfast_certificate_remaining_seconds").context("no certificate")?;
    ensure!((300.0..400.0).contains(&(year / 86_400.0)), "{year} s of certificate left");
    ensure!(metric(&text, "holdfast_commit_seconds_count").unwrap_or(0.0) > 5.0, "no commits were timed");
    ensure!(metric(&text, "holdfast_takeover_seconds").unwrap_or(0.0) > 0.0, "no takeover");
    let answered = "holdfast_signer_call_seconds_count{call=\"sign-counterparty-commitment\"}";
    let signer = get(&scene.signer().health(), "/metrics").await?;
    ensure!(signer.lines().any(|line| line.starts_with(answered)), "the signer signed no commitment: {signer}");

    let standby = get(&scene.standby().await?.health(), "/metrics").await?;
    ensure!(metric(&standby, "holdfast_leading") == Some(0.0), "{standby}");
    ensure!(metric(&standby, "holdfast_term") == Some(info.term as f64), "{standby}");
    ensure!(metric(&standby, "holdfast_balance_sat").is_none(), "a standby knows no balance: {standby}");
    Ok(())
}

/// The names in the first column of the tables, with their types.
fn documented(page: &str) -> BTreeSet<(String, String)> {
    page.lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix("| `")?.split('|');
            let name = cells.next()?.trim().trim_end_matches('`').split('{').next()?.to_owned();
            Some((name, cells.next()?.trim().to_owned()))
        })
        .collect()
}

/// The same from OpenMetrics text, which says each name and type whether or not there is a value yet.
fn served(text: &str) -> BTreeSet<(String, String)> {
    text.lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .filter_map(|line| line.split_once(' '))
        .map(|(name, kind)| match kind {
            "counter" => (format!("{name}_total"), kind.to_owned()),
            "info" => (format!("{name}_info"), "gauge".to_owned()),
            _ => (name.to_owned(), kind.to_owned()),
        })
        .collect()
}
