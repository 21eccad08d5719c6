//! After the story: everything goes on running, for the reader to play with.

use std::time::Duration;

use anyhow::Result;
use holdfast_local::Deployment;
use tokio::time::{MissedTickBehavior, interval};

use crate::narrator::{detail, say};

/// Prints commands to try and keeps the deployment alive until it is interrupted: a dead replica is started again, as
/// systemd or Kubernetes would, and a block is found now and then.
pub async fn keep_running(deployment: &Deployment) -> Result<()> {
    start_again(deployment)?;
    print_commands(deployment).await?;
    let mut blocks = interval(Duration::from_secs(20));
    blocks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut watch = interval(Duration::from_secs(2));
    loop {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => break,
            _ = blocks.tick() => deployment.bitcoind().mine(1).await?,
            _ = watch.tick() => start_again(deployment)?,
        }
    }
    say("ending everything");
    Ok(())
}

fn start_again(deployment: &Deployment) -> Result<()> {
    for replica in deployment.replicas().iter().filter(|replica| !replica.process().is_running()) {
        say(&format!("{} ended; it is started again", replica.name()));
        replica.process().start()?;
    }
    Ok(())
}

async fn print_commands(deployment: &Deployment) -> Result<()> {
    let alice = deployment.counterparty("alice");
    let invoices = [alice.invoice(10_000_000, "try it").await?, alice.invoice(20_000_000, "try it again").await?];
    let postgres = deployment.postgres();

    say("left running; Ctrl-C ends it. In another terminal:");
    println!(
        "\nhf() {{ {} --config {} \"$@\"; }}",
        deployment.programs().cli.display(),
        deployment.operator().cli_configuration().display()
    );
    println!("hf info");
    println!("hf channels");
    for invoice in invoices {
        println!("hf pay {invoice}");
    }
    println!("hf keysend {} 1000sat", alice.node_id());
    println!("hf invoice 5000sat 'a coffee'");
    println!("hf payments");
    println!("hf leader");
    println!("hf handover");
    for replica in deployment.replicas() {
        if let Some(pid) = replica.process().pid() {
            println!("kill -9 {pid}   # {}", replica.name());
        }
    }
    println!("curl http://{}/metrics", deployment.replicas()[0].health());
    println!("curl http://{}/metrics", deployment.signer().health());
    println!(
        "PGPASSWORD=$(cat {}) psql -h 127.0.0.1 -p {} -U holdfast holdfast",
        postgres.password_file().display(),
        postgres.port()
    );
    println!("tail -f {}/*.log\n", deployment.logs().display());
    detail("a dead replica is started again within two seconds; a block is found every twenty");
    Ok(())
}
