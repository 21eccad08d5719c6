//! What an operator waits for: the command line as a whole, and calls of the API one after another.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use holdfast_local::{Client, Deployment};
use holdfast_proto::node::v1;
use serde::Serialize;
use tokio::process::Command;

#[derive(Debug, Serialize)]
pub struct Latency {
    pub what: String,
    pub calls: usize,
    pub p50_ms: f64,
    pub p99_ms: f64,
}

const RUNS: usize = 50;
const CALLS: usize = 500;
const PAGE: u32 = 100;

pub async fn measure(deployment: &Deployment) -> Result<Vec<Latency>> {
    let cli = async || {
        let configuration = deployment.operator().cli_configuration();
        let mut command = Command::new(&deployment.programs().cli);
        let output = command.arg("--config").arg(configuration).arg("info").output().await?;
        ensure!(output.status.success(), "holdfast info: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    };
    let (_, client) = deployment.leader().await?;
    Ok(vec![
        timed("holdfast info, the whole program", RUNS, cli).await?,
        timed("GetInfo", CALLS, async || call(client.clone().get_info(v1::GetInfoRequest {})).await).await?,
        timed("GetBalance", CALLS, async || call(client.clone().get_balance(v1::GetBalanceRequest {})).await).await?,
        timed("CreateInvoice", CALLS, async || invoice(client.clone()).await).await?,
        timed(&format!("ListPayments, {PAGE} of them"), CALLS, async || {
            let request = v1::ListPaymentsRequest { limit: PAGE, ..Default::default() };
            call(client.clone().list_payments(request)).await
        })
        .await?,
    ])
}

async fn invoice(mut client: Client) -> Result<()> {
    let description = "measured".to_owned();
    let request = v1::CreateInvoiceRequest { amount_msat: Some(2_000_000), description, ..Default::default() };
    call(client.create_invoice(request)).await
}

async fn call<T>(answer: impl Future<Output = Result<T, tonic::Status>>) -> Result<()> {
    answer.await?;
    Ok(())
}

async fn timed(what: &str, calls: usize, mut call: impl AsyncFnMut() -> Result<()>) -> Result<Latency> {
    // The first ones find connections and caches cold.
    for _ in 0..3 {
        call().await?;
    }
    let mut times = Vec::with_capacity(calls);
    for _ in 0..calls {
        let began = Instant::now();
        call().await?;
        times.push(began.elapsed());
    }
    times.sort();
    let (p50_ms, p99_ms) = (percentile(&times, 50), percentile(&times, 99));
    Ok(Latency { what: what.to_owned(), calls, p50_ms, p99_ms })
}

/// Of times in rising order, in milliseconds.
pub fn percentile(sorted: &[Duration], percent: usize) -> f64 {
    sorted.get(sorted.len() * percent / 100).map_or(f64::NAN, |time| time.as_secs_f64() * 1000.0)
}

pub fn print(latencies: &[Latency]) {
    println!("\nWhat operators wait for, one call after another\n");
    println!("{:<36} {:>6} {:>9} {:>9}", "call", "calls", "p50 ms", "p99 ms");
    for Latency { what, calls, p50_ms, p99_ms } in latencies {
        println!("{what:<36} {calls:>6} {p50_ms:>9.1} {p99_ms:>9.1}");
    }
    println!();
}
