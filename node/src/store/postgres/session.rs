//! One connection to the server: how it is made, and what its failures mean.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::poll_fn;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;
use tokio_postgres::config::{SslMode, TargetSessionAttrs};
use tokio_postgres::error::DbError;
use tokio_postgres::{AsyncMessage, Client, Connection, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;
use zeroize::Zeroizing;

use super::config::{PgConfig, PgTls};

/// What a session is for decides its limits and which servers will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Holds the leader's lock. The server ends it when it is silent for 1.5 s, and notices a dead client while it waits.
    Lock,
    /// Commits batches.
    Write,
    /// Loads the node, changes the schema: long statements on the primary.
    Setup,
    /// Answers queries; a hot standby will do.
    Read,
    /// Answers the leader's own questions: what it has committed must be there, so a standby, which may lag, will not do.
    ReadOwn,
}

impl Purpose {
    fn settings(self) -> &'static str {
        match self {
            Self::Lock => {
                "-c idle_session_timeout=1500 -c client_connection_check_interval=1000 -c tcp_keepalives_idle=1 \
                 -c tcp_keepalives_interval=1 -c tcp_keepalives_count=3 -c statement_timeout=0 -c lock_timeout=0"
            }
            // The plans of a batch are known: by key, always.
            Self::Write => {
                "-c idle_in_transaction_session_timeout=2000 -c statement_timeout=30000 -c lock_timeout=5000 \
                 -c jit=off -c enable_seqscan=off -c plan_cache_mode=force_generic_plan"
            }
            Self::Setup => "-c idle_in_transaction_session_timeout=10000 -c lock_timeout=10000 -c jit=off",
            // It may not make its transactions read-only: by that a server that can be written to is told from others.
            Self::ReadOwn => "-c idle_in_transaction_session_timeout=2000 -c statement_timeout=10000 -c jit=off",
            Self::Read => {
                "-c idle_in_transaction_session_timeout=2000 -c statement_timeout=10000 -c jit=off \
                 -c default_transaction_read_only=on"
            }
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Lock => "lock",
            Self::Write => "write",
            Self::Setup => "setup",
            Self::Read => "read",
            Self::ReadOwn => "read-own",
        }
    }
}

/// A connection and the task that drives it. Dropping it cuts the connection.
pub(crate) struct Session {
    pub client: Client,
    driver: JoinHandle<()>,
    warned: Arc<AtomicBool>,
}

impl Session {
    pub async fn connect(config: &PgConfig, purpose: Purpose) -> Result<Self, Failure> {
        let mut pg = tokio_postgres::Config::new();
        pg.host(&config.host)
            .port(config.port)
            .dbname(&config.database)
            .user(&config.user)
            .application_name(format!("holdfast-{}", purpose.name()))
            .options(purpose.settings())
            .connect_timeout(Duration::from_secs(3))
            .keepalives(true)
            .keepalives_idle(Duration::from_secs(1))
            .keepalives_interval(Duration::from_secs(1))
            .keepalives_retries(3)
            .tcp_user_timeout(Duration::from_secs(5));
        if purpose != Purpose::Read {
            pg.target_session_attrs(TargetSessionAttrs::ReadWrite);
        }
        if let Some(path) = &config.password_file {
            let text = Zeroizing::new(
                std::fs::read(path).map_err(|error| Failure::file("postgres.password_file", path, error))?,
            );
            let end = text.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n')).map_or(0, |last| last + 1);
            pg.password(&text[..end]);
        }
        let tls = match &config.tls {
            PgTls::Disable => None,
            PgTls::Require { ca_file } => Some(MakeRustlsConnect::new(client_config(ca_file)?)),
        };
        // `connect_timeout` is for the TCP handshake only; a server that accepts and then says nothing must not hold us.
        let connecting = async {
            match tls {
                None => {
                    let (client, connection) = pg.ssl_mode(SslMode::Disable).connect(NoTls).await?;
                    Ok(Self::start(client, connection))
                }
                Some(tls) => {
                    let (client, connection) = pg.ssl_mode(SslMode::Require).connect(tls).await?;
                    Ok(Self::start(client, connection))
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(10), connecting)
            .await
            .unwrap_or_else(|_| Err(Failure::Away("no answer to a connection attempt in 10 s".into())))
            .map_err(|failure| failure.at(config))
    }

    fn start<S, T>(client: Client, mut connection: Connection<S, T>) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let warned = Arc::new(AtomicBool::new(false));
        let flag = warned.clone();
        let driver = tokio::spawn(async move {
            while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
                if let AsyncMessage::Notice(notice) = message {
                    if notice.severity() == "WARNING" {
                        flag.store(true, Ordering::Release);
                        tracing::warn!("postgres warns: {}", notice.message());
                    } else {
                        tracing::debug!("postgres says: {}", notice.message());
                    }
                }
            }
        });
        Self { client, driver, warned }
    }

    /// Whether the server has sent a warning. It arrives before the end of the statement that it is about; one of them says
    /// that a commit did not wait for its synchronous standby.
    pub fn warned(&self) -> bool {
        self.warned.load(Ordering::Acquire)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Why a statement or a connection failed, by what to do about it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Try again: the server is away, restarting, out of room, failing over, or chose this transaction as a victim.
    #[error("{0}")]
    Away(String),
    /// The schema or our statement is wrong; trying again will not help.
    #[error("{0}")]
    Wrong(String),
}

impl Failure {
    fn file(key: &str, path: &std::path::Path, error: io::Error) -> Self {
        Self::Away(format!("{key}: {}: {error}", path.display()))
    }

    /// Names the server that is away.
    fn at(self, PgConfig { host, port, .. }: &PgConfig) -> Self {
        match self {
            Self::Away(why) => Self::Away(format!("{host}:{port}: {why}")),
            wrong => wrong,
        }
    }

    fn of(error: &DbError) -> Self {
        let text = format!("{} ({}): {}", error.severity(), error.code().code(), error.message());
        match error.code().code().get(..2) {
            // feature not supported, data exception, integrity, syntax or access rule, raised by our own functions
            Some("0A" | "22" | "23" | "42" | "P0") => Self::Wrong(text),
            _ => Self::Away(text),
        }
    }
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Self {
        if let Some(db) = error.as_db_error() {
            return Self::of(db);
        }
        let mut text = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        if text.starts_with("error serializing") || text.starts_with("error deserializing") {
            return Self::Wrong(text);
        }
        Self::Away(text)
    }
}

/// Waits longer after each failure in a row, and says so once at the start of an outage and now and then during it.
pub(crate) struct Patience {
    what: &'static str,
    since: tokio::time::Instant,
    failures: u32,
}

impl Patience {
    pub fn new(what: &'static str) -> Self {
        Self { what, since: tokio::time::Instant::now(), failures: 0 }
    }

    pub async fn wait(&mut self, why: &str) {
        if self.failures == 0 {
            self.since = tokio::time::Instant::now();
        }
        // With the pause capped at a second, every 30th failure is about every half a minute.
        if self.failures.is_multiple_of(30) {
            tracing::warn!(
                what = self.what,
                waited_ms = self.waited().as_millis() as u64,
                "not possible yet, trying again: {why}"
            );
        }
        let pause = Duration::from_millis(20 << self.failures.min(6)).min(Duration::from_secs(1));
        self.failures = self.failures.saturating_add(1);
        tokio::time::sleep(pause).await;
    }

    pub fn over(&mut self) {
        if self.failures > 0 {
            tracing::info!(what = self.what, waited_ms = self.waited().as_millis() as u64, "possible again");
            self.failures = 0;
        }
    }

    fn waited(&self) -> Duration {
        self.since.elapsed()
    }
}

fn client_config(ca_file: &std::path::Path) -> Result<rustls::ClientConfig, Failure> {
    let pem = std::fs::read(ca_file).map_err(|error| Failure::file("postgres.ca_file", ca_file, error))?;
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let added = certificate
            .map_err(|error| error.to_string())
            .and_then(|der| roots.add(der).map_err(|error| error.to_string()));
        added.map_err(|error| Failure::Away(format!("postgres.ca_file: {}: {error}", ca_file.display())))?;
    }
    if roots.is_empty() {
        return Err(Failure::Away(format!("postgres.ca_file: {}: no certificate in it", ca_file.display())));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Failure::Wrong(error.to_string()))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn p7_a_password_file_that_goes_missing_is_an_outage_and_its_key_is_named() {
        let mut config = PgConfig {
            host: "127.0.0.1".into(),
            port: 1,
            database: "holdfast".into(),
            user: "holdfast".into(),
            password_file: Some("/nowhere/password".into()),
            tls: PgTls::Disable,
        };
        let away = async |config: &PgConfig| match Session::connect(config, Purpose::Read).await {
            Err(Failure::Away(why)) => why,
            Err(Failure::Wrong(why)) => panic!("not an outage: {why}"),
            Ok(_) => panic!("connected to nothing"),
        };
        assert!(away(&config).await.starts_with("postgres.password_file: /nowhere/password: No such file"));
        config.password_file = None;
        config.tls = PgTls::Require { ca_file: "/nowhere/ca.pem".into() };
        assert!(away(&config).await.starts_with("postgres.ca_file: /nowhere/ca.pem: No such file"));
    }
}
