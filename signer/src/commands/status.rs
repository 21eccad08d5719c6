//! `holdfast-signer status`: asks a running signer how it is.

use std::{path::PathBuf, time::Duration};

use holdfast_proto::{
    error::Error,
    identity::Role,
    signer::v1::{GetStatusRequest, GetStatusResponse, signer_client::SignerClient},
    tls::{self, Credentials},
};
use tokio::runtime;

use super::{Exit, Failure};

const TIMEOUT: Duration = Duration::from_secs(10);

#[derive(clap::Args)]
pub struct Args {
    /// The signer's address, host:port
    #[arg(long, default_value = "127.0.0.1:9911")]
    endpoint: String,
    /// An operator's certificate
    #[arg(long)]
    cert: PathBuf,
    /// The certificate's key
    #[arg(long)]
    key: PathBuf,
    /// The CA of the deployment
    #[arg(long)]
    ca: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Fails when the signer does not answer, and when it answers that it is not ready.
pub fn run(args: &Args) -> Result<(), Failure> {
    let credentials = Credentials::load(&args.cert, &args.key, &args.ca)?;
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::new(Exit::Software, format!("no runtime: {e}")))?;
    let status = runtime.block_on(ask(&args.endpoint, &credentials))?;
    match args.json {
        true => println!("{}", json(&status)),
        false => print!("{}", table(&status)),
    }
    match status.ready {
        true => Ok(()),
        false => Err(Failure::new(Exit::Unavailable, format!("not ready: {}", status.not_ready_reason))),
    }
}

async fn ask(endpoint: &str, credentials: &Credentials) -> Result<GetStatusResponse, Error> {
    let channel = tls::connect(endpoint, credentials, Role::Signer, TIMEOUT).await?;
    let mut request = tonic::Request::new(GetStatusRequest {});
    request.set_timeout(TIMEOUT);
    Ok(SignerClient::new(channel).get_status(request).await?.into_inner())
}

fn json(status: &GetStatusResponse) -> serde_json::Value {
    serde_json::json!({
        "node_id": hex::encode(&status.node_id),
        "network": status.network,
        "custody": status.custody,
        "ready": status.ready,
        "not_ready_reason": status.not_ready_reason,
        "newest_term": status.newest_term,
        "channels": status.channels,
        "signatures": status.signatures,
        "refusals": status.refusals,
        "version": status.version,
    })
}

fn table(status: &GetStatusResponse) -> String {
    let ready = match status.ready {
        true => "yes".to_owned(),
        false => format!("no: {}", status.not_ready_reason),
    };
    let mut refusals: Vec<_> = status.refusals.iter().map(|(rule, count)| format!("{rule} {count}")).collect();
    refusals.sort();
    let refusals = if refusals.is_empty() { "none".to_owned() } else { refusals.join(", ") };
    let rows = [
        ("node id", hex::encode(&status.node_id)),
        ("network", status.network.clone()),
        ("custody", status.custody.clone()),
        ("ready", ready),
        ("newest term", status.newest_term.to_string()),
        ("channels", status.channels.to_string()),
        ("signatures", format!("{} since start", status.signatures)),
        ("refusals", refusals),
        ("version", status.version.clone()),
    ];
    rows.map(|(name, value)| format!("{name:<12}{value}\n")).concat()
}
