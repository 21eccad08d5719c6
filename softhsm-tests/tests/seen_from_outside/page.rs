//! The status page, read as text.

use anyhow::{Result, ensure};
use holdfast_local::web;
use holdfast_softhsm_tests::Scene;

use super::get;

pub async fn leader_and_standby_show_the_same_cluster(scene: &Scene) -> Result<()> {
    let (leader, _) = scene.leader().await?;
    let standby = scene.standby().await?;
    let (info, channels, payments) = (scene.info().await?, scene.channels().await?, scene.payments().await?);
    let (leads, stands_by) = (get(&leader.health(), "/").await?, get(&standby.health(), "/").await?);
    for page in [&leads, &stands_by] {
        let term = format!("<dt>term</dt><dd>{}</dd>", info.term);
        let ours = format!("<dt>leader</dt><dd>{}</dd>", leader.name());
        for text in [&*info.node_id, &term, &ours, "id=\"takeovers\"", "raise-term", "succeeded", "postgres", "signer"]
        {
            ensure!(page.contains(text), "no `{text}` in\n{page}");
        }
        for payment in &payments {
            // The proof of payment, and what may be paid once more, are nobody's who only looks.
            for secret in [&payment.preimage, &payment.invoice] {
                ensure!(secret.is_empty() || !page.contains(secret.as_str()), "`{secret}` is on the page");
            }
        }
        for forbidden in ["<script", "<form", "<button", "style=", "href=\"http"] {
            ensure!(!page.contains(forbidden), "`{forbidden}` is on the page");
        }
    }
    ensure!(leads.contains("leads</span>") && stands_by.contains("stands by</span>"));
    for channel in &channels {
        ensure!(leads.contains(&channel.short_channel_id) && !stands_by.contains(&channel.short_channel_id));
    }
    // Only GET, and nothing else is there.
    ensure!(web::get(&leader.health(), "/status.css").await?.status == 200);
    ensure!(web::get(&leader.health(), "/admin").await?.status == 404);
    Ok(())
}
