//! `holdfast-node`: one replica. The story of a start, and of an orderly end.

use std::{
    fmt,
    fs::File,
    io::Write,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    thread,
    time::Duration,
};

use clap::{CommandFactory, Parser, Subcommand};
use holdfast_node::{
    api::{self, Backend, Metrics},
    chain::BitcoindAuth,
    cli::Exit,
    config::{COMMENTED_DEFAULT, ConfigError, NodeConfig},
    leader::StandError,
    replica::{HandedOver, Replica, ReplicaError},
    store::postgres::{PgTls, StoreError},
};
use holdfast_proto::{
    identity::Role,
    manual::ManualCommand,
    telemetry::{self, LogFormat},
    tls::{Credentials, TlsError},
};
use sd_notify::NotifyState;
use tokio::{
    net::TcpListener,
    runtime,
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    task::JoinSet,
    time,
};
use tracing::{info, warn};

#[derive(Parser)]
#[command(name = "holdfast-node", version, about = "One replica of a Holdfast node: leads, or stands by to")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Stand by, lead when there is no other leader, and end when the lead is over
    Run {
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// How log lines look on stderr, text or json; RUST_LOG filters them
        #[arg(long, value_name = "FORMAT", default_value = "text")]
        log_format: LogFormat,
    },
    /// Print the default configuration, every key explained
    Config,
    #[command(flatten)]
    Manual(ManualCommand),
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Nothing is left to do when even this cannot be printed.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage.into() } else { Exit::Ok.into() };
        }
    };
    match cli.command {
        Command::Run { config, log_format } => match run(&config, log_format) {
            Ok(()) => Exit::Ok.into(),
            Err(failure) => {
                // As above.
                let _ = writeln!(std::io::stderr(), "holdfast-node: {failure}");
                failure.exit.into()
            }
        },
        Command::Config => match std::io::stdout().write_all(COMMENTED_DEFAULT.as_bytes()) {
            Ok(()) => Exit::Ok.into(),
            Err(_) => Exit::Io.into(),
        },
        Command::Manual(command) => match command.run(Cli::command()) {
            Ok(()) => Exit::Ok.into(),
            Err(error) => {
                // As above.
                let _ = writeln!(std::io::stderr(), "holdfast-node: {error}");
                Exit::Io.into()
            }
        },
    }
}

fn run(config: &Path, log_format: LogFormat) -> Result<(), Failure> {
    let config = NodeConfig::load(config)?;
    find_files(&config)?;
    harden()?;
    let credentials = Credentials::load(&config.tls.certificate, &config.tls.key, &config.tls.ca)?;
    if credentials.identity().role != Role::Replica {
        let why = format!("tls.certificate is of {}, and a replica needs one of role replica", credentials.identity());
        return Err(Failure { exit: Exit::Config, why });
    }
    let name = &credentials.identity().name;
    let _telemetry = telemetry::start(log_format, &config.telemetry, "holdfast-node", name)
        .map_err(|e| Failure { exit: Exit::Software, why: e.to_string() })?;
    runtime::Builder::new_multi_thread()
        // While the signer is away, threads wait inside LDK for locks that are held across calls to it.
        .worker_threads(thread::available_parallelism().map_or(8, |cores| cores.get().max(8)))
        .enable_all()
        .build()
        .map_err(|e| Failure { exit: Exit::Software, why: format!("no runtime: {e}") })?
        .block_on(serve(config, credentials))
}

/// Files that the configuration names and that nobody makes later must be there at the start. One that goes missing after it
/// is an outage like that of the part it is for.
fn find_files(config: &NodeConfig) -> Result<(), Failure> {
    let mut files = Vec::new();
    files.extend(config.postgres.password_file.as_ref().map(|file| ("postgres.password_file", file)));
    if let PgTls::Require { ca_file } = &config.postgres.tls {
        files.push(("postgres.ca_file", ca_file));
    }
    // The cookie is bitcoind's to make, each time it starts.
    if let BitcoindAuth::Password { file, .. } = &config.bitcoind.auth {
        files.push(("bitcoind.password_file", file));
    }
    let rapid_sync_ca_file = config.gossip.rapid_sync.as_ref().and_then(|source| source.ca_file.as_ref());
    files.extend(rapid_sync_ca_file.map(|file| ("gossip.rapid_sync_ca_file", file)));
    for (key, path) in files {
        if let Err(error) = File::open(path) {
            let why = format!("{key}: {}: {error}: make this file, or leave the key out", path.display());
            return Err(Failure { exit: Exit::NoInput, why });
        }
    }
    Ok(())
}

async fn serve(config: NodeConfig, credentials: Credentials) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let api = bind(config.api.listen).await?;
    let health = match &config.health {
        Some(health) => Some((bind(health.listen).await?, health.names.clone())),
        None => None,
    };
    info!(replica = %credentials.identity().name, network = %config.network, api = %config.api.listen, "standing by");

    let replica = Replica::new(config)?;
    let backend: Arc<dyn Backend> = replica.clone();
    let metrics = Arc::new(Metrics::new());
    replica.report_to(metrics.clone());
    let (stop, stopped) = watch::channel(());
    let until_stopped = || {
        let mut stopped = stopped.clone();
        // An end of the sender is an end as well.
        async move { drop(stopped.changed().await) }
    };
    let mut servers = JoinSet::new();
    let serving = api::serve(backend.clone(), metrics.clone(), api, credentials, until_stopped());
    servers.spawn(async { serving.await.map_err(|e| format!("operators' API: {e}")) });
    if let Some((listener, names)) = health {
        let serving = api::serve_health(backend, metrics, listener, names, until_stopped());
        let serving = replica.aside().spawn(serving);
        servers.spawn(async { serving.await.map_err(|e| format!("health: {e}"))?.map_err(|e| format!("health: {e}")) });
    }
    notify(&[NotifyState::Ready]);

    let ended = lead_until_told(&replica, &mut signals, &mut servers).await;
    notify(&[NotifyState::Stopping]);
    // Servers that have ended already need not be told.
    let _ = stop.send(());
    // Whoever asked for the handover has his answer before we go.
    if time::timeout(GRACE, async { while servers.join_next().await.is_some() {} }).await.is_err() {
        warn!("calls were still in flight after {} s", GRACE.as_secs());
    }
    ended
}

/// Stands by and leads, until the lead was handed over, which a signal asks for as well; a second signal does not wait.
async fn lead_until_told(
    replica: &Arc<Replica>,
    signals: &mut Signals,
    servers: &mut JoinSet<Result<(), String>>,
) -> Result<(), Failure> {
    let running = {
        let replica = replica.clone();
        // On a worker thread: LDK and the signer's client block in place.
        tokio::spawn(async move { replica.run().await })
    };
    let mut running = std::pin::pin!(running);
    tokio::select! {
        ended = &mut running => return over(ended),
        Some(server) = servers.join_next() => {
            let why = match server {
                Ok(Ok(())) => "a server ended by itself".to_owned(),
                Ok(Err(why)) => why,
                Err(panic) => panic.to_string(),
            };
            return Err(Failure { exit: Exit::Software, why });
        }
        signal = signals.next() => info!(signal, "ending; a leader hands over first"),
    }
    tokio::select! {
        ended = &mut running => over(ended),
        () = replica.shutdown() => Ok(()),
        signal = signals.next() => {
            warn!(signal, "ending at once");
            Ok(())
        }
    }
}

/// How long answers to calls in flight may take at the end.
const GRACE: Duration = Duration::from_secs(5);

fn over(ended: Result<Result<HandedOver, ReplicaError>, tokio::task::JoinError>) -> Result<(), Failure> {
    match ended {
        Ok(Ok(HandedOver { term })) => {
            info!(term, "handed over; a new start stands by again");
            Ok(())
        }
        Ok(Err(error)) => Err(error.into()),
        Err(panic) => Err(Failure { exit: Exit::Software, why: panic.to_string() }),
    }
}

/// Why the program ends, and with which code.
#[derive(Debug)]
struct Failure {
    exit: Exit,
    why: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        let exit = match error {
            ConfigError::Read { .. } => Exit::NoInput,
            ConfigError::Parse { .. } => Exit::Config,
        };
        Self { exit, why: error.to_string() }
    }
}

impl From<TlsError> for Failure {
    fn from(error: TlsError) -> Self {
        Self { exit: Exit::Config, why: error.to_string() }
    }
}

impl From<ReplicaError> for Failure {
    fn from(error: ReplicaError) -> Self {
        use ReplicaError as E;
        let exit = match error {
            E::Tls(_) | E::WrongChain(_) | E::Bitcoind(_) | E::SignerNetwork { .. } => Exit::Config,
            E::Store(StoreError::OtherNode { .. } | StoreError::SchemaTooNew { .. }) => Exit::Config,
            E::Stand(StandError::SchemaTooNew { .. }) => Exit::Config,
            E::Store(StoreError::Damaged(_)) => Exit::Data,
            E::Listen { .. } => Exit::Unavailable,
            _ => Exit::Software,
        };
        Self { exit, why: error.to_string() }
    }
}

async fn bind(address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address)
        .await
        .map_err(|e| Failure { exit: Exit::Unavailable, why: format!("listening on {address}: {e}") })
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        let on = |kind| signal(kind).map_err(|e| Failure { exit: Exit::Software, why: format!("signals: {e}") });
        Ok(Self { terminate: on(SignalKind::terminate())?, interrupt: on(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// The three secrets that LDK keeps in this process must not end up in a file, nor in another process of the same user; and
/// no program that it might be made to start gains a privilege.
fn harden() -> Result<(), Failure> {
    use rustix::{
        process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit},
        thread::set_no_new_privs,
    };
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .and_then(|()| setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }))
        .and_then(|()| set_no_new_privs(true))
        .map_err(|e| Failure { exit: Exit::Software, why: format!("hardening the process: {e}") })
}

/// A service manager that cannot be told is no reason to stop serving.
fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        warn!(%error, "the service manager could not be told");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn completions_and_manual_know_every_command() {
        holdfast_proto::manual::covers_every_command(&Cli::command()).unwrap();
    }

    #[test]
    fn a_file_that_is_not_there_at_the_start_is_named_with_its_key() {
        let folder = tempfile::tempdir().unwrap();
        let missing = |text: &str| {
            let failure = find_files(&NodeConfig::parse(text, folder.path()).unwrap()).unwrap_err();
            assert_eq!(failure.exit, Exit::NoInput);
            failure.why
        };
        let default = COMMENTED_DEFAULT.replace("/etc/holdfast/", "");
        assert!(missing(&default).starts_with("postgres.password_file: "), "{}", missing(&default));
        File::create(folder.path().join("postgres.password")).unwrap();
        let without_ca = default.replace("tls/postgres-ca.pem", "ca.pem");
        assert!(missing(&without_ca).starts_with("postgres.ca_file: "));
        File::create(folder.path().join("ca.pem")).unwrap();
        // bitcoind makes its cookie when it starts: that one may come later.
        find_files(&NodeConfig::parse(&without_ca, folder.path()).unwrap()).unwrap();
        let password =
            without_ca.replace("cookie_file = ", "user = \"holdfast\"\npassword_file = \"bitcoind.password\" # ");
        assert!(missing(&password).starts_with("bitcoind.password_file: "));
        let mirror =
            without_ca.replace("# rapid_sync_", "rapid_sync_").replace("tls/rapidsync-ca.pem", "rapidsync-ca.pem");
        assert!(missing(&mirror).starts_with("gossip.rapid_sync_ca_file: "));
    }
}
