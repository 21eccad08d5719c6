//! Threads that own the sessions with the token.
//!
//! A call into a PKCS#11 library may hang for minutes, so callers never make one themselves: they hand a job to a worker
//! and wait as long as their deadline. A worker that fails climbs a ladder: a new session, with login and key handles of
//! its own; then the library finalised and initialised again. What still fails at the top is unavailable, and the next
//! job climbs again, so that a token that comes back is used again without anybody's hand.

use std::{
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use bitcoin::secp256k1::PublicKey;
use cryptoki::session::Session;
use tracing::{info, warn};

use super::{
    error::{CallError, Cure},
    login::{Pin, find_token},
    module::{Entered, Module},
    objects::Keys,
    queue::{Job, Outcome, Place, Queue},
    uri::TokenUri,
};
use crate::custody::{CustodyError, sealed::TokenKeys};

/// What a session needs to reach the keys, as often as it has to.
pub struct Access {
    pub module: Arc<Module>,
    pub uri: TokenUri,
    pub pin: Pin,
    pub label: String,
    pub ids: TokenKeys,
    pub node_id: PublicKey,
    /// Held by each connection, so that a worker knows whether there are others.
    pub connected: Arc<()>,
}

impl Access {
    fn somebody_is_connected(&self) -> bool {
        Arc::strong_count(&self.connected) > 1
    }
}

/// A logged-in session and the keys found and checked in it.
pub struct Connection {
    pub session: Session,
    pub keys: Keys,
    pub node_id: PublicKey,
    generation: u64,
    _connected: Arc<()>,
}

/// The threads. Dropping this ends them and waits for it, because a library that is still being called while the process
/// exits may crash; one that hangs is left behind.
pub struct Workers {
    access: Arc<Access>,
    queue: Arc<Queue>,
    timeout: Duration,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// How long an ending waits for calls in flight.
const FAREWELL: Duration = Duration::from_secs(2);
/// How long a worker without a session leaves the work to those that have one.
const ASIDE: Duration = Duration::from_millis(500);

pub type Answer<T> = mpsc::Receiver<Result<T, CallError>>;

impl Workers {
    pub fn start(access: Access, timeout: Duration) -> Result<Self, CustodyError> {
        let workers = Self { access: Arc::new(access), queue: Arc::default(), timeout, threads: Mutex::default() };
        workers.spawn(|worker, queue| worker.run(queue))?;
        Ok(workers)
    }

    /// More threads, each with a session of its own. One that gets none ends: a token may allow fewer than it says.
    pub fn add(&self, count: usize) -> Result<(), CustodyError> {
        let timeout = self.timeout;
        (0..count).try_for_each(|_| {
            self.spawn(move |mut worker, queue| {
                match worker.attempt(Rung::Kept, Instant::now() + timeout, &|_, _| Ok(())) {
                    Ok(()) => worker.run(queue),
                    Err(failure) => warn!(token = %worker.access.uri, why = %failure.error, "one session less"),
                }
            })
        })
    }

    fn spawn(&self, run: impl FnOnce(Worker, &Queue) + Send + 'static) -> Result<(), CustodyError> {
        let worker = Worker { access: self.access.clone(), connection: None, generation: 0, away: false };
        let place = Place::take(&self.queue);
        let thread = thread::Builder::new()
            .name("token".into())
            .spawn(move || run(worker, &place.0))
            .map_err(|e| CustodyError::Unavailable(format!("no thread for the token: {e}")))?;
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        Ok(())
    }

    /// Runs `work` on a connection and waits for its answer. It may run more than once, on a connection anew each time.
    pub fn call<T: Send + 'static>(
        &self,
        work: impl Fn(&Connection, &Entered<'_>) -> Result<T, CallError> + Send + 'static,
    ) -> Result<T, CustodyError> {
        let deadline = self.deadline();
        let answer = self.submit(deadline, work);
        self.wait(deadline, &answer)
    }

    /// The same for two pieces of work, which run at once where two sessions are free.
    pub fn call_both<T: Send + 'static>(
        &self,
        one: impl Fn(&Connection, &Entered<'_>) -> Result<T, CallError> + Send + 'static,
        other: impl Fn(&Connection, &Entered<'_>) -> Result<T, CallError> + Send + 'static,
    ) -> Result<(T, T), CustodyError> {
        let deadline = self.deadline();
        let (one, other) = (self.submit(deadline, one), self.submit(deadline, other));
        Ok((self.wait(deadline, &one)?, self.wait(deadline, &other)?))
    }

    /// That of a call that begins now.
    pub fn deadline(&self) -> Instant {
        Instant::now() + self.timeout
    }

    /// As `call`, without waiting: the answer comes by [`Self::wait`].
    pub fn submit<T: Send + 'static>(
        &self,
        deadline: Instant,
        work: impl Fn(&Connection, &Entered<'_>) -> Result<T, CallError> + Send + 'static,
    ) -> Answer<T> {
        let (answer, answered) = mpsc::sync_channel(1);
        let run = Box::new(move |worker: &mut Worker| match worker.climb(deadline, &work) {
            Err(failure) if failure.cure == Cure::AnotherWorker && worker.access.somebody_is_connected() => {
                Outcome::ForAnother
            }
            result => {
                // The caller may have stopped waiting; then nobody wants the answer.
                let _ = answer.send(result);
                Outcome::Answered
            }
        });
        self.queue.push(Job { deadline, run });
        answered
    }

    pub fn wait<T>(&self, deadline: Instant, answer: &Answer<T>) -> Result<T, CustodyError> {
        let named = |error| match error {
            CustodyError::Unavailable(what) => CustodyError::Unavailable(format!("{}: {what}", self.access.uri)),
            wrong => wrong,
        };
        match answer.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(result) => result.map_err(|failure| named(failure.error)),
            Err(_) => {
                let why = format!("no answer within {} ms", self.timeout.as_millis());
                Err(named(CustodyError::Unavailable(why)))
            }
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        let ended = self.queue.close(FAREWELL);
        // A thread that has done its work still tells the library that it goes. The process must not end meanwhile: the library's
        // own ending would pull the rug from under it. One that hangs in a call is left behind.
        let threads = self.threads.get_mut().unwrap_or_else(PoisonError::into_inner);
        let us = thread::current().id();
        for thread in threads.drain(..).filter(|t| t.thread().id() != us && (ended || t.is_finished())) {
            // It panicked: that was said already.
            let _ = thread.join();
        }
    }
}

pub struct Worker {
    access: Arc<Access>,
    connection: Option<Connection>,
    /// Of the library, when it was last entered.
    generation: u64,
    /// The last job failed for want of the token; only the change is worth a line in the log.
    away: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Rung {
    /// The session that is there.
    Kept,
    NewSession,
    RestartedLibrary,
}

impl Worker {
    fn run(mut self, queue: &Queue) {
        while let Some(mut job) = queue.pop() {
            match (job.run)(&mut self) {
                Outcome::Answered => {}
                Outcome::ForAnother => queue.stand_aside(job, ASIDE),
            }
        }
        if let Ok(entered) = self.access.module.clone().enter(Instant::now()) {
            self.disconnect(&entered);
        }
    }

    fn climb<T>(
        &mut self,
        deadline: Instant,
        work: &impl Fn(&Connection, &Entered<'_>) -> Result<T, CallError>,
    ) -> Result<T, CallError> {
        let mut result = self.attempt(Rung::Kept, deadline, work);
        for rung in [Rung::NewSession, Rung::RestartedLibrary] {
            let cure = result.as_ref().err().map_or(Cure::None, |failure| failure.cure);
            // Without any connection in this process a restart of the library costs nothing, and frees what leaked.
            let lonely = cure == Cure::AnotherWorker && !self.access.somebody_is_connected();
            if Instant::now() >= deadline || !(cure == Cure::Reconnect || lonely) {
                break;
            }
            result = self.attempt(rung, deadline, work);
        }
        self.tell(result.as_ref().err());
        result
    }

    fn tell(&mut self, failure: Option<&CallError>) {
        let token = &self.access.uri;
        match (self.away, failure) {
            (false, Some(failure)) if failure.cure == Cure::Reconnect => {
                warn!(%token, why = %failure.error, "the token is away");
                self.away = true;
            }
            (true, None) => {
                info!(%token, "the token is back");
                self.away = false;
            }
            _ => {}
        }
    }

    fn attempt<T>(
        &mut self,
        rung: Rung,
        deadline: Instant,
        work: &impl Fn(&Connection, &Entered<'_>) -> Result<T, CallError>,
    ) -> Result<T, CallError> {
        let module = self.access.module.clone();
        if rung == Rung::RestartedLibrary {
            module.restart(self.generation, deadline)?;
        }
        let entered = module.enter(deadline)?;
        self.generation = entered.generation;
        let kept = self.connection.as_ref().is_some_and(|c| c.generation == entered.generation);
        if rung != Rung::Kept || !kept {
            self.disconnect(&entered);
        }
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => Connection::open(&self.access, &entered)?,
        };
        work(self.connection.insert(connection), &entered)
    }

    /// A session from before a restart is not closed: its number may be another session's by now.
    fn disconnect(&mut self, entered: &Entered<'_>) {
        match self.connection.take() {
            Some(connection) if connection.generation == entered.generation => {
                // It is given up either way.
                let _ = connection.session.close();
            }
            _ => {}
        }
    }
}

impl Connection {
    fn open(access: &Access, entered: &Entered<'_>) -> Result<Self, CallError> {
        let (slot, token) = find_token(&entered.library, &access.uri)?;
        let session = entered.library.open_ro_session_no_drop(slot)?;
        let keys = access
            .pin
            .log_in(&session, &token)
            .and_then(|()| Keys::find(&session, &access.label, &access.ids, &access.node_id));
        match keys {
            Ok(keys) => Ok(Self {
                session,
                keys,
                node_id: access.node_id,
                generation: entered.generation,
                _connected: access.connected.clone(),
            }),
            Err(failure) => {
                // The failure that came first is the one to tell.
                let _ = session.close();
                Err(failure)
            }
        }
    }
}
