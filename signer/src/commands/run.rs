//! `holdfast-signer run`: the story of a start, and of an orderly end.

use std::{path::Path, sync::Arc, time::Duration};

use bitcoin::secp256k1::PublicKey;
use holdfast_proto::{
    identity::Role,
    telemetry::{self, LogFormat},
    tls::Credentials,
};
use holdfast_signer::{
    config::SignerConfig,
    custody,
    guard::EmbeddedStore,
    harden::{
        confine::{ConfineError, Confined, Plan},
        memory::on_clean_stack,
    },
    health,
    service::{self, SignerCore, StartError},
};
use sd_notify::NotifyState;
use tokio::{
    net::TcpListener,
    runtime,
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    time,
};
use tracing::{info, warn};

use super::{Exit, Failure, establish::guard_path, node_id};

/// How long calls in flight may take after the signal to end.
const GRACE: Duration = Duration::from_secs(10);

pub fn run(config: &Path, log_format: LogFormat) -> Result<(), Failure> {
    let config = SignerConfig::load(config)?;
    let credentials = Credentials::load(&config.tls.certificate, &config.tls.key, &config.tls.ca)?;
    if credentials.identity().role != Role::Signer {
        let why = format!("tls.certificate is of {}, and a signer needs one of role signer", credentials.identity());
        return Err(Failure::new(Exit::Config, why));
    }
    // Before the first thread, the first foreign library and the first secret but the certificate's key.
    let confined = Plan::of(&config)?.apply()?;
    let name = &credentials.identity().name;
    let _telemetry = telemetry::start(log_format, &config.telemetry, "holdfast-signer", name)
        .map_err(|e| Failure::new(Exit::Software, e))?;
    let node_id = node_id::read(&config.data_dir)?;
    let core = on_clean_stack(|| open(&config, &node_id))?;
    runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::new(Exit::Software, format!("no runtime: {e}")))?
        .block_on(serve(&config, Arc::new(core), credentials, confined))
}

fn open(config: &SignerConfig, node_id: &PublicKey) -> Result<SignerCore, Failure> {
    let custody = custody::open(&config.custody, config.network, &config.data_dir, node_id)?;
    custody.self_test()?;
    let guard = EmbeddedStore::open(&guard_path(&config.data_dir))?;
    Ok(SignerCore::new(custody, config.network, Arc::new(guard), config.rules.clone())?)
}

async fn serve(
    config: &SignerConfig,
    core: Arc<SignerCore>,
    credentials: Credentials,
    confined: Confined,
) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let (stop, stopped) = watch::channel(());
    let until_stopped = || {
        let mut stopped = stopped.clone();
        // An end of the sender is an end as well.
        async move { drop(stopped.changed().await) }
    };
    if let Some(address) = config.health_listen {
        let (listener, names) = (bind(address).await?, config.health_names.clone());
        tokio::spawn(health::serve(core.clone(), credentials.clone(), listener, names, until_stopped()));
    }
    let listener = bind(config.listen).await?;
    confined.seal()?;
    let status = core.status();
    let node_id = hex::encode(&status.node_id);
    info!(node_id, network = %config.network, custody = status.custody, listen = %config.listen, "signer is up");
    notify(&[NotifyState::Ready]);

    let mut serving = std::pin::pin!(service::serve(core, listener, credentials, until_stopped()));
    tokio::select! {
        served = &mut serving => return ended(served),
        signal = signals.next() => info!(signal, "ending: no new calls, those in flight are answered"),
    }
    notify(&[NotifyState::Stopping]);
    // Both servers may have ended already.
    let _ = stop.send(());
    match time::timeout(GRACE, serving).await {
        Ok(served) => ended(served),
        Err(_) => {
            warn!("calls were still in flight after {} s; each is safe to ask again", GRACE.as_secs());
            Ok(())
        }
    }
}

fn ended(served: Result<(), impl std::fmt::Display>) -> Result<(), Failure> {
    served.map_err(|e| Failure::new(Exit::Software, format!("serving: {e}")))
}

async fn bind(address: std::net::SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address)
        .await
        .map_err(|e| Failure::new(Exit::Unavailable, format!("listening on {address}: {e}")))
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        let on = |kind| signal(kind).map_err(|e| Failure::new(Exit::Software, format!("signals: {e}")));
        Ok(Self { terminate: on(SignalKind::terminate())?, interrupt: on(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// A service manager that cannot be told is no reason to stop serving.
fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        warn!(%error, "the service manager could not be told");
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Custody(error) => error.into(),
            StartError::Guard(error) => error.into(),
        }
    }
}

impl From<ConfineError> for Failure {
    fn from(error: ConfineError) -> Self {
        let exit = match error {
            ConfineError::Absent(_) => Exit::Config,
            ConfineError::Landlock(_) | ConfineError::Seccomp(_) => Exit::Unavailable,
        };
        Self::new(exit, error)
    }
}
