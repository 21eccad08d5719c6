//! One leader's use of the signer: a term, a deadline, and what to do when either is over.

use std::{
    fmt,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use holdfast_proto::{error::Error, signer::v1, tls::Credentials, trace::TARGET};
use tokio::runtime::{Handle, RuntimeFlavor};
use tracing::Span;

use crate::{grpc::Grpc, metrics::Metrics, signed::Signed, transport::Transport};

/// Where the signers are and how long to wait for them.
#[derive(Clone)]
pub struct ClientConfig {
    /// `host:port` of each signer; tried in this order, and the one that answers is kept to.
    pub endpoints: Vec<String>,
    /// How long a call is repeated while no signer answers. LDK's locks are held meanwhile, so the node stands still; but
    /// it stands still for good reason, so this should be minutes.
    pub deadline: Duration,
    /// Called, from the thread that made the call, when waiting is over. It must end the process (or, in a test, panic):
    /// an error returned to LDK there would close channels. If it returns, the thread sleeps for ever.
    pub on_fatal: Arc<dyn Fn(Fatal) + Send + Sync>,
}

impl ClientConfig {
    /// What is left of it once there is a transport.
    pub fn options(&self) -> Options {
        Options { deadline: self.deadline, on_fatal: self.on_fatal.clone() }
    }
}

/// [`ClientConfig`] without the network, for any [`Transport`].
#[derive(Clone)]
pub struct Options {
    pub deadline: Duration,
    pub on_fatal: Arc<dyn Fn(Fatal) + Send + Sync>,
}

/// Why the process must end: whatever LDK could be told now would be wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fatal {
    /// Another replica leads.
    StaleTerm { newest: u64 },
    /// No signer answered `call` in time.
    Deadline { call: &'static str, why: String },
    /// A rule refused a call that LDK cannot hear a refusal of, or refused this replica altogether.
    Refused { call: &'static str, why: String },
}

impl fmt::Display for Fatal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StaleTerm { newest } => write!(f, "the signer knows of term {newest}: another replica leads"),
            Self::Deadline { call, why } => write!(f, "no signer answered {call} before the deadline: {why}"),
            Self::Refused { call, why } => write!(f, "the signer refused {call}, which cannot be refused: {why}"),
        }
    }
}

/// Raises the signers' term before [`crate::RemoteKeys::connect`] uses it, repeating until the config's deadline. Returns
/// the newest term that the signers know, which is `term`. Blocks.
pub fn announce_term(config: &ClientConfig, credentials: &Credentials, term: u64) -> Result<u64, Error> {
    let session = Session::new(Arc::new(Grpc::new(&config.endpoints, credentials)?), config.options(), term);
    let request = v1::AnnounceTermRequest { term };
    session.attempt("announce_term", |signer| signer.announce_term(request)).map(|answer| answer.newest_term)
}

/// A value in an answer that is wrong is the signer's fault, not a misuse of ours.
pub(crate) fn not_ours(error: Error) -> Error {
    Error::Internal(format!("the signer's answer: {error}"))
}

/// A refusal: the one error that LDK gets to see.
#[derive(Debug)]
pub(crate) struct Refused;

pub(crate) struct Session {
    transport: Arc<dyn Transport>,
    options: Options,
    pub(crate) term: u64,
    pub(crate) metrics: Metrics,
    pub(crate) signed: Signed,
}

impl Session {
    pub(crate) fn new(transport: Arc<dyn Transport>, options: Options, term: u64) -> Self {
        Self { transport, options, term, metrics: Metrics::default(), signed: Signed::default() }
    }

    pub(crate) fn transport(&self) -> &dyn Transport {
        &*self.transport
    }

    /// A call whose refusal LDK understands.
    pub(crate) fn ask<T>(
        &self,
        call: &'static str,
        attempt: impl Fn(&dyn Transport) -> Result<T, Error>,
    ) -> Result<T, Refused> {
        match self.attempt(call, attempt) {
            Ok(answer) => Ok(answer),
            Err(Error::StaleTerm { newest }) => self.end(Fatal::StaleTerm { newest }),
            Err(Error::Refused { rule, why }) if rule == "identity" => {
                self.end(Fatal::Refused { call, why: format!("rule identity: {why}") })
            }
            // A signer that never heard of our term (another one, or one with an older guard) has judged nothing: an
            // `Err` would close channels that it knows nothing against.
            Err(Error::Misuse { field, why }) if field == "term" => {
                self.end(Fatal::Refused { call, why: format!("term: {why}") })
            }
            Err(error @ (Error::Refused { .. } | Error::Misuse { .. })) => {
                tracing::error!(call, %error, "the signer refused");
                Err(Refused)
            }
            Err(error @ (Error::Unavailable { .. } | Error::Internal(_))) => {
                self.end(Fatal::Deadline { call, why: error.to_string() })
            }
        }
    }

    /// A call that LDK takes for granted.
    pub(crate) fn demand<T>(&self, call: &'static str, attempt: impl Fn(&dyn Transport) -> Result<T, Error>) -> T {
        match self.ask(call, attempt) {
            Ok(answer) => answer,
            Err(Refused) => self.end(Fatal::Refused { call, why: "see the log".into() }),
        }
    }

    /// Repeats while nothing is decided, and gives up at the deadline. For calls of our own, which may fail.
    pub(crate) fn attempt<T>(
        &self,
        call: &'static str,
        attempt: impl Fn(&dyn Transport) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let started = Instant::now();
        // Calls that are nobody's in particular belong to no trace.
        let span = match Span::current().is_none() {
            true => Span::none(),
            false => tracing::info_span!(target: TARGET, "signer call", otel.name = call, otel.kind = "client"),
        };
        let _traced = span.enter();
        let result = off_the_workers(|| {
            let mut pause = FIRST_PAUSE;
            loop {
                let error = match attempt(&*self.transport) {
                    Err(error) if passes(&error) => error,
                    decided => {
                        if pause != FIRST_PAUSE {
                            tracing::info!(call, waited = ?started.elapsed(), "the signer answers again");
                        }
                        return decided;
                    }
                };
                if started.elapsed() + pause > self.options.deadline {
                    return Err(error);
                }
                if pause == FIRST_PAUSE {
                    tracing::warn!(call, %error, "waiting for the signer");
                }
                self.metrics.repeated(call);
                thread::sleep(pause);
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        });
        self.metrics.answered(call, started.elapsed());
        if let Err(Error::Refused { rule, .. }) = &result {
            self.metrics.refused(call, rule);
        }
        result
    }

    pub(crate) fn end(&self, fatal: Fatal) -> ! {
        tracing::error!(%fatal, "stopping");
        (self.options.on_fatal)(fatal);
        loop {
            thread::park();
        }
    }
}

const FIRST_PAUSE: Duration = Duration::from_millis(10);
/// Short, because a signer that is back should not be left waiting while payments stand still.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Whether asking again later may be answered otherwise. The operator's kill switch and the rate limit are pauses:
/// telling LDK about them would close channels.
fn passes(error: &Error) -> bool {
    match error {
        Error::Unavailable { .. } | Error::Internal(_) => true,
        Error::Refused { rule, .. } => rule == "paused" || rule == "rate",
        Error::StaleTerm { .. } | Error::Misuse { .. } => false,
    }
}

/// Blocks without holding up a tokio worker. Other flavours have nobody to hand the tasks to.
pub(crate) fn off_the_workers<T>(block: impl FnOnce() -> T) -> T {
    match Handle::try_current() {
        Ok(runtime) if runtime.runtime_flavor() == RuntimeFlavor::MultiThread => tokio::task::block_in_place(block),
        _ => block(),
    }
}
