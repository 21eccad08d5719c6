//! One trace from an operator's call to the signature that it needed.

use std::{collections::HashMap, time::Duration};

use anyhow::Result;
use holdfast_local::Probe;
use holdfast_softhsm_tests::Scene;

use super::collector::{Collector, Seen};

/// The exporters send every five seconds.
const EXPORTED: Duration = Duration::from_secs(40);

/// `PayInvoice`, the commit that it waited for, the database's part of it, and the signature of the peer's commitment, asked
/// for by the replica and answered by the signer: each a child of the one before.
const CHAIN: [(&str, &str); 4] = [
    ("holdfast-signer", "sign_counterparty_commitment"),
    ("holdfast-node", "sign_counterparty_commitment"),
    ("holdfast-node", "commit"),
    ("holdfast-node", "PayInvoice"),
];

pub async fn one_trace_covers_pay_commit_and_signer(scene: &Scene, collector: &Collector) -> Result<()> {
    scene
        .wait_for("a trace from the payment to the signer", EXPORTED, async || {
            let seen = collector.seen();
            let names = || seen.iter().map(|seen| format!("{} {}", seen.program, seen.span.name)).collect::<Vec<_>>();
            Ok(Probe::when(whole(&seen), (), || format!("spans so far: {:?}", names())))
        })
        .await?;
    for Seen { program, instance, span } in collector.seen() {
        anyhow::ensure!(!instance.is_empty(), "{program} does not say which one it is");
        // What a span may say of itself: what it is, not what is in it.
        for attribute in &span.attributes {
            let known = ["calls", "busy_ns", "idle_ns", "level"].contains(&attribute.key.as_str());
            anyhow::ensure!(known, "{program} {} says {attribute:?}", span.name);
        }
        anyhow::ensure!(span.events.is_empty(), "{program} {} has events: {:?}", span.name, span.events);
    }
    Ok(())
}

fn whole(seen: &[Seen]) -> bool {
    let by_id: HashMap<&[u8], &Seen> = seen.iter().map(|seen| (&seen.span.span_id[..], seen)).collect();
    let is = |seen: &Seen, (program, name): (&str, &str)| seen.program == program && seen.span.name == name;
    seen.iter().filter(|last| is(last, CHAIN[0])).any(|last| {
        let parent = |span: &Seen| by_id.get(&span.span.parent_span_id[..]).copied();
        let chain: Vec<&Seen> = std::iter::successors(Some(last), |span| parent(span)).collect();
        let whole = chain.len() == CHAIN.len() && chain.iter().zip(CHAIN).all(|(span, wanted)| is(span, wanted));
        let one = chain.iter().all(|span| span.span.trace_id == last.span.trace_id);
        let commit = chain.get(2).map(|commit| &commit.span.span_id);
        let written = seen.iter().any(|seen| seen.span.name == "postgres" && Some(&seen.span.parent_span_id) == commit);
        whole && one && written
    })
}
