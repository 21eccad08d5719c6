//! A whole deployment on one machine, from an empty folder.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, ensure};
use bitcoin::Amount;
use futures::future::try_join_all;
use holdfast_proto::{identity::Role, node::v1, pki};
use tempfile::TempDir;

use crate::{
    bitcoind::Bitcoind,
    counterparty::Counterparty,
    operator::{Client, Operator},
    postgres::Postgres,
    process::Process,
    programs::Programs,
    replica::Replica,
    signer::{Custody, Signer},
    softhsm::SoftHsm,
    wait::{Probe, wait_for},
};

const DOMAIN: &str = "local.holdfast";

/// How a deployment is to be.
#[derive(Debug)]
pub struct Builder {
    replicas: usize,
    counterparties: Vec<String>,
    in_memory: Vec<String>,
    without_anchors: Vec<String>,
    custody: Custody,
    durable: bool,
    folder: Option<PathBuf>,
    node_tables: &'static str,
    progress: fn(&str),
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            replicas: 2,
            counterparties: Vec::new(),
            in_memory: Vec::new(),
            without_anchors: Vec::new(),
            custody: Custody::Pkcs11,
            durable: true,
            folder: None,
            node_tables: "",
            progress: |_| (),
        }
    }
}

impl Builder {
    pub fn replicas(mut self, replicas: usize) -> Self {
        self.replicas = replicas;
        self
    }

    /// Independent Lightning nodes, by name.
    pub fn counterparties(mut self, names: &[&str]) -> Self {
        self.counterparties = names.iter().map(|&name| name.to_owned()).collect();
        self
    }

    /// Counterparties whose state is to lie in memory, so that their own disk is in no figure. Nor is the
    /// writing of their logs, which hold only what goes wrong.
    pub fn in_memory(mut self, names: &[&str]) -> Self {
        self.in_memory = names.iter().map(|&name| name.to_owned()).collect();
        self
    }

    /// Counterparties whose channels are static-remote-key ones, without anchors.
    pub fn without_anchors(mut self, names: &[&str]) -> Self {
        self.without_anchors = names.iter().map(|&name| name.to_owned()).collect();
        self
    }

    pub fn custody(mut self, custody: Custody) -> Self {
        self.custody = custody;
        self
    }

    /// Whether Postgres waits for the disk. A killed process loses nothing either way; a killed machine may.
    pub fn durable(mut self, durable: bool) -> Self {
        self.durable = durable;
        self
    }

    /// An empty or absent folder, kept afterwards. Without one, a temporary folder that goes away unless something
    /// failed or `HOLDFAST_KEEP` is set.
    pub fn folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = Some(folder.into());
        self
    }

    /// TOML tables that every replica's configuration has as well.
    pub fn node_tables(mut self, tables: &'static str) -> Self {
        self.node_tables = tables;
        self
    }

    /// Told of each step, for those who watch.
    pub fn progress(mut self, progress: fn(&str)) -> Self {
        self.progress = progress;
        self
    }

    /// Sets everything up and waits until a replica leads and the others stand by.
    pub async fn start(self) -> Result<Deployment> {
        let mut deployment = self.infrastructure().await?;
        deployment.start_holdfast().await?;
        Ok(deployment)
    }

    /// Everything but the signer and the replicas.
    pub async fn infrastructure(self) -> Result<Deployment> {
        let Self { replicas, counterparties, in_memory, without_anchors, custody, .. } = self;
        let Self { durable, folder, node_tables, progress, .. } = self;
        let folder = Folder::make(folder)?;
        let logs = folder.path().join("logs");
        fs::create_dir(&logs)?;
        let certificates = folder.path().join("pki");
        let authority = folder.path().join("pki-authority");
        pki::init(&authority, DOMAIN)?;

        progress("Postgres, bitcoind and a SoftHSM token");
        let (postgres, bitcoind) =
            tokio::try_join!(Postgres::create(folder.path(), &logs, durable), Bitcoind::create(folder.path(), &logs))?;
        let token = SoftHsm::create(folder.path())?;
        if !counterparties.is_empty() {
            progress("the counterparties");
        }
        let memory = match in_memory.is_empty() {
            true => None,
            false => Some(tempfile::Builder::new().prefix("holdfast-").tempdir_in("/dev/shm")?),
        };
        let start = |name: String| {
            let in_memory = memory.as_ref().filter(|_| in_memory.contains(&name));
            let home = in_memory.map_or(folder.path(), TempDir::path);
            let anchors = !without_anchors.contains(&name);
            let (logs, bitcoind) = (&logs, &bitcoind);
            async move { Counterparty::start(&name, home, logs, bitcoind, anchors, in_memory.is_some()).await }
        };
        let counterparties = try_join_all(counterparties.into_iter().map(start)).await?;
        Ok(Deployment {
            holdfast: None,
            counterparties,
            postgres,
            bitcoind,
            token,
            plan: Plan { replicas, custody, authority, certificates, logs, node_tables, progress },
            folder,
            _memory: memory,
        })
    }
}

/// Fields are dropped in this order: what depends on others goes first.
#[derive(Debug)]
pub struct Deployment {
    holdfast: Option<Holdfast>,
    counterparties: Vec<Counterparty>,
    postgres: Postgres,
    bitcoind: Bitcoind,
    token: SoftHsm,
    plan: Plan,
    folder: Folder,
    _memory: Option<TempDir>,
}

#[derive(Debug)]
struct Holdfast {
    operator: Operator,
    replicas: Vec<Replica>,
    signer: Signer,
    programs: Programs,
}

#[derive(Debug)]
struct Plan {
    replicas: usize,
    custody: Custody,
    authority: PathBuf,
    certificates: PathBuf,
    logs: PathBuf,
    node_tables: &'static str,
    progress: fn(&str),
}

impl Deployment {
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn logs(&self) -> &Path {
        &self.plan.logs
    }

    pub fn postgres(&self) -> &Postgres {
        &self.postgres
    }

    pub fn bitcoind(&self) -> &Bitcoind {
        &self.bitcoind
    }

    pub fn token(&self) -> &SoftHsm {
        &self.token
    }

    pub fn counterparty(&self, name: &str) -> &Counterparty {
        let found = self.counterparties.iter().find(|counterparty| counterparty.name() == name);
        found.unwrap_or_else(|| panic!("the deployment was built without a counterparty {name}"))
    }

    pub fn counterparties(&self) -> &[Counterparty] {
        &self.counterparties
    }

    pub fn signer(&self) -> &Signer {
        &self.holdfast().signer
    }

    pub fn replicas(&self) -> &[Replica] {
        &self.holdfast().replicas
    }

    pub fn operator(&self) -> &Operator {
        &self.holdfast().operator
    }

    pub fn programs(&self) -> &Programs {
        &self.holdfast().programs
    }

    /// The replica that leads, and a client of it. Waits a while for one.
    pub async fn leader(&self) -> Result<(&Replica, Client)> {
        let (index, client) = self.explain(self.operator().leader(Duration::from_secs(60)).await)?;
        Ok((&self.replicas()[index], client))
    }

    /// The first replica that runs and does not lead.
    pub async fn standby(&self) -> Result<&Replica> {
        let (leader, _) = self.leader().await?;
        let others = self.replicas().iter().filter(|replica| replica.name() != leader.name());
        others.into_iter().find(|replica| replica.process().is_running()).context("no other replica runs")
    }

    /// Waits for a condition; the error at the deadline shows the ends of all logs.
    pub async fn wait_for<T>(
        &self,
        what: &str,
        deadline: Duration,
        probe: impl AsyncFnMut() -> Result<Probe<T>>,
    ) -> Result<T> {
        self.explain(wait_for(what, deadline, probe).await)
    }

    /// Mines blocks and waits until our node and all counterparties have seen them.
    pub async fn mine(&self, blocks: u32) -> Result<()> {
        self.bitcoind.mine(blocks).await?;
        self.synced().await
    }

    /// Waits until our node and all counterparties have seen bitcoind's tip.
    pub async fn synced(&self) -> Result<()> {
        let height = self.bitcoind.height().await?;
        try_join_all(self.counterparties.iter().map(Counterparty::sync)).await?;
        self.wait_for("all nodes to see the tip", Duration::from_secs(60), async || {
            for counterparty in self.counterparties.iter().filter(|counterparty| counterparty.is_running()) {
                let seen = counterparty.node().status().current_best_block.height;
                if seen < height {
                    return Ok(Probe::Waiting(format!("{} is at {seen} of {height}", counterparty.name())));
                }
            }
            if self.holdfast.is_some() {
                let ask = async |mut client: Client| client.get_info(v1::GetInfoRequest {}).await;
                let seen = self.operator().ask("the node's height", Duration::from_secs(10), ask).await?.block_height;
                return Ok(Probe::when(seen >= height, (), || format!("our node is at {seen} of {height}")));
            }
            Ok(Probe::Ready(()))
        })
        .await
    }

    /// Gives our node and every counterparty coins of the faucet, `coins` outputs of `each`, and confirms them.
    pub async fn fund_all(&self, coins: usize, each: Amount) -> Result<()> {
        let mut payments = Vec::new();
        for counterparty in &self.counterparties {
            for _ in 0..coins {
                payments.push((counterparty.new_address().await?, each));
            }
        }
        for _ in 0..coins {
            let ask = async |mut client: Client| client.new_address(v1::NewAddressRequest {}).await;
            let answer = self.operator().ask("a new address", Duration::from_secs(10), ask).await?;
            let address = answer.address.parse::<bitcoin::Address<_>>()?.require_network(bitcoin::Network::Regtest)?;
            payments.push((address, each));
        }
        self.bitcoind.pay(&payments).await?;
        self.mine(1).await
    }

    /// Adds the ends of all logs to an error, and keeps the folder.
    pub fn explain<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|error| {
            self.folder.keep.store(true, Ordering::Relaxed);
            let processes = self.processes().into_iter().map(|p| {
                let state = if p.is_running() { "running" } else { "ended" };
                format!("--- {} ({state}), {}\n{}\n", p.name(), p.log().display(), p.log_tail(12))
            });
            anyhow!("{error:#}\nthe logs' ends:\n{}", processes.collect::<String>())
        })
    }

    fn processes(&self) -> Vec<&Process> {
        let mut processes = vec![self.postgres.process(), self.bitcoind.process()];
        if let Some(holdfast) = &self.holdfast {
            processes.push(holdfast.signer.process());
            processes.extend(holdfast.replicas.iter().map(Replica::process));
        }
        processes
    }

    async fn start_holdfast(&mut self) -> Result<()> {
        let Plan { replicas, custody, authority, certificates, logs, node_tables, progress } = &self.plan;
        let folder = self.folder.path();
        let programs = Programs::find()?;
        let issue = |role, name: &str| pki::issue(authority, role, name, certificates, pki::LEAF_LIFETIME);

        progress("the signer");
        let identity = issue(Role::Signer, "signer-1")?;
        let signer = Signer::create(folder, logs, &programs, *custody, &self.token, &identity).await?;

        progress("the replicas");
        let replicas = (1..=*replicas)
            .map(|number| {
                let name = format!("replica-{number}");
                let identity = issue(Role::Replica, &name)?;
                Replica::create(&crate::replica::Setting {
                    name: &name,
                    folder,
                    logs,
                    programs: &programs,
                    identity: &identity,
                    postgres: &self.postgres,
                    bitcoind: &self.bitcoind,
                    signer_endpoint: &signer.endpoint(),
                    tables: node_tables,
                })
            })
            .collect::<Result<Vec<_>>>()?;
        let apis: Vec<_> = replicas.iter().map(|replica| (replica.name().to_owned(), replica.api())).collect();
        let operator = Operator::new(&issue(Role::Operator, "operator")?, &apis, folder)?;
        self.holdfast = Some(Holdfast { operator, replicas, signer, programs });

        // The first one alone, so that it is the one to lead.
        for (index, replica) in self.replicas().iter().enumerate() {
            self.explain(replica.start().await)?;
            if index == 0 {
                self.leader().await?;
            }
        }
        Ok(())
    }

    fn holdfast(&self) -> &Holdfast {
        self.holdfast.as_ref().expect("Builder::start gives a deployment that runs Holdfast")
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        // In an order in which nothing misses what it needs; what does not end in time is killed.
        if let Some(holdfast) = &self.holdfast {
            for replica in &holdfast.replicas {
                let _ = replica.kill();
            }
            let _ = holdfast.signer.stop();
        }
        for counterparty in &self.counterparties {
            counterparty.stop();
        }
        let _ = self.bitcoind.stop();
        let _ = self.postgres.stop();
    }
}

/// Where a deployment lives.
#[derive(Debug)]
struct Folder {
    path: PathBuf,
    /// None if the folder was given, and so is not ours to remove.
    temporary: Option<TempDir>,
    keep: AtomicBool,
}

impl Folder {
    fn make(given: Option<PathBuf>) -> Result<Self> {
        let (path, temporary) = match given {
            Some(folder) => {
                fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
                ensure!(fs::read_dir(&folder)?.next().is_none(), "{} is not empty", folder.display());
                (folder.canonicalize()?, None)
            }
            None => {
                let folder = tempfile::Builder::new().prefix("holdfast-").tempdir()?;
                (folder.path().to_owned(), Some(folder))
            }
        };
        // Postgres runs as another user when we are root, and must be able to pass through.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o711))?;
        let keep = AtomicBool::new(std::env::var_os("HOLDFAST_KEEP").is_some());
        Ok(Self { path, temporary, keep })
    }

    fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let failed = std::thread::panicking() || self.keep.load(Ordering::Relaxed);
        if failed && let Some(folder) = self.temporary.take() {
            eprintln!("the deployment's files are kept in {}", folder.keep().display());
        }
    }
}
