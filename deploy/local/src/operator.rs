//! The operator's side: gRPC to the replicas, and to whichever of them leads.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, anyhow};
use holdfast_proto::{
    error::Error,
    identity::Role,
    node::v1::{self, node_client::NodeClient},
    pki::Issued,
    tls::{self, Credentials},
};
use tokio::time::timeout;
use tonic::{Code, Status, transport::Channel};

use crate::{
    files::quoted,
    wait::{Probe, wait_for},
};

/// A client of one replica. Cheap to clone.
pub type Client = NodeClient<Channel>;

/// What a call may take before the replica counts as hung and another one is looked for.
const ANSWER: Duration = Duration::from_secs(2);

/// Talks to all replicas with an operator's certificate. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Operator {
    replicas: Vec<(String, Client)>,
    cli_configuration: PathBuf,
}

impl Operator {
    /// Writes `<folder>/cli.toml` for the CLI as well. The replicas are given as name and API address.
    pub(crate) fn new(credentials: &Issued, replicas: &[(String, String)], folder: &Path) -> Result<Self> {
        let Issued { certificate, key, ca, .. } = credentials;
        let identity = Credentials::load(certificate, key, ca)?;
        let client = |api: &str| NodeClient::new(tls::connect_lazy(api, &identity, Role::Replica));
        let cli_configuration = folder.join("cli.toml");
        let endpoints: Vec<String> = replicas.iter().map(|(_, api)| format!("\"{api}\"")).collect();
        let content = format!(
            "endpoints = [{}]\ncertificate = {}\nkey = {}\nca = {}\n",
            endpoints.join(", "),
            quoted(certificate),
            quoted(key),
            quoted(ca)
        );
        fs::write(&cli_configuration, content)?;
        let replicas = replicas.iter().map(|(name, api)| (name.clone(), client(api))).collect();
        Ok(Self { replicas, cli_configuration })
    }

    /// For `holdfast --config`: all replicas, and the operator's certificate.
    pub fn cli_configuration(&self) -> &Path {
        &self.cli_configuration
    }

    /// A client of one replica, leading or not.
    pub fn replica(&self, index: usize) -> Client {
        self.replicas[index].1.clone()
    }

    /// Who leads now: one look.
    pub async fn find_leader(&self) -> Result<Probe<(usize, Client)>> {
        let mut seen = Vec::new();
        for (index, (name, client)) in self.replicas.iter().enumerate() {
            match timeout(ANSWER, client.clone().get_info(v1::GetInfoRequest {})).await {
                Ok(Ok(info)) if info.get_ref().is_leader => return Ok(Probe::Ready((index, client.clone()))),
                Ok(Ok(info)) => seen.push(format!("{name} stands by in term {}", info.get_ref().term)),
                Ok(Err(status)) => seen.push(format!("{name}: {}", Error::from(status))),
                Err(_) => seen.push(format!("{name} does not answer")),
            }
        }
        Ok(Probe::Waiting(seen.join(", ")))
    }

    /// Waits until a replica leads and acts.
    pub async fn leader(&self, deadline: Duration) -> Result<(usize, Client)> {
        wait_for("a leader", deadline, || self.find_leader()).await
    }

    /// Asks the leader, whoever that is, and asks again while nobody can answer. Only for calls that may be repeated.
    pub async fn ask<T>(
        &self,
        what: &str,
        deadline: Duration,
        mut call: impl AsyncFnMut(Client) -> Result<tonic::Response<T>, Status>,
    ) -> Result<T> {
        let mut refusal = None;
        let answer = wait_for(what, deadline, async || {
            let (_, client) = match self.find_leader().await? {
                Probe::Ready(leader) => leader,
                other => return Ok(other.map(|_| None)),
            };
            match call(client).await {
                Ok(answer) => Ok(Probe::Ready(Some(answer.into_inner()))),
                Err(status) if is_passing(&status) => Ok(Probe::Waiting(Error::from(status).to_string())),
                Err(status) => {
                    refusal = Some(Error::from(status));
                    Ok(Probe::Ready(None))
                }
            }
        })
        .await?;
        match (answer, refusal) {
            (Some(answer), _) => Ok(answer),
            (None, Some(refusal)) => Err(anyhow!(refusal)).context(what.to_owned()),
            (None, None) => Err(anyhow!("no answer")).context(what.to_owned()),
        }
    }
}

/// Would the same call perhaps be answered a moment later, or by another replica?
pub fn is_passing(status: &Status) -> bool {
    let cut = matches!(status.code(), Code::Cancelled | Code::Unknown | Code::DeadlineExceeded);
    cut || matches!(Error::from(status.clone()), Error::Unavailable { .. } | Error::StaleTerm { .. })
}
