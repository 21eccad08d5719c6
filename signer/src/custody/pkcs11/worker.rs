//! Threads that own the sessions with the token.
//!
//! A call into a PKCS#11 library may hang for minutes, so callers never make one themselves: they hand a job to a worker
//! and wait as long as their deadline. A worker that fails climbs a ladder: a new session, with login and key handles of
//! its own; then the library finalised and initialised again. What still fails at the top is unavailable, and the next
//! job climbs again, so that a token that comes back is used again without anybody's hand.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use bitcoin::secp256k1::PublicKey;
use cryptoki::session::Session;
use tracing::{info, warn};

use super::{
    error::CallError,
    login::{Pin, find_token},
    module::{Entered, Module},
    objects::Keys,
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
}

/// A logged-in session and the keys found and checked in it.
pub struct Connection {
    pub session: Session,
    pub keys: Keys,
    pub node_id: PublicKey,
    generation: u64,
}

/// The threads. Dropping this ends them and waits for it, because a library that is still being called while the process
/// exits may crash; one that hangs is left behind.
pub struct Workers {
    access: Arc<Access>,
    queue: Arc<Queue>,
    timeout: Duration,
}

impl Workers {
    pub fn start(access: Access, timeout: Duration) -> Result<Self, CustodyError> {
        let workers = Self { access: Arc::new(access), queue: Arc::default(), timeout };
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
        thread::Builder::new()
            .name("token".into())
            .spawn(move || run(worker, &place.0))
            .map(drop)
            .map_err(|e| CustodyError::Unavailable(format!("no thread for the token: {e}")))
    }

    /// Runs `work` on a connection and waits for its answer. It may run more than once, on a connection anew each time.
    pub fn call<T: Send + 'static>(
        &self,
        work: impl Fn(&Connection, &Entered<'_>) -> Result<T, CallError> + Send + 'static,
    ) -> Result<T, CustodyError> {
        let deadline = Instant::now() + self.timeout;
        let (answer, answered) = mpsc::sync_channel(1);
        let run = Box::new(move |worker: &mut Worker| {
            // The caller may have stopped waiting; then nobody wants the answer.
            let _ = answer.send(worker.climb(deadline, &work));
        });
        self.queue.push(Job { deadline, run });
        match answered.recv_timeout(self.timeout) {
            Ok(result) => result.map_err(|failure| self.named(failure.error)),
            Err(_) => {
                Err(self.named(CustodyError::Unavailable(format!("no answer within {} ms", self.timeout.as_millis()))))
            }
        }
    }

    fn named(&self, error: CustodyError) -> CustodyError {
        match error {
            CustodyError::Unavailable(what) => CustodyError::Unavailable(format!("{}: {what}", self.access.uri)),
            wrong => wrong,
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.queue.close(FAREWELL);
    }
}

/// How long an ending waits for calls in flight.
const FAREWELL: Duration = Duration::from_secs(2);

struct Job {
    deadline: Instant,
    run: Box<dyn FnOnce(&mut Worker) + Send>,
}

#[derive(Default)]
struct Queue {
    jobs: Mutex<Jobs>,
    ready: Condvar,
}

#[derive(Default)]
struct Jobs {
    waiting: VecDeque<Job>,
    closed: bool,
    workers: usize,
}

/// A worker's place at the queue, given up however its thread ends.
struct Place(Arc<Queue>);

impl Place {
    fn take(queue: &Arc<Queue>) -> Self {
        queue.lock().workers += 1;
        Self(queue.clone())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.lock().workers -= 1;
        self.0.ready.notify_all();
    }
}

impl Queue {
    fn push(&self, job: Job) {
        self.lock().waiting.push_back(job);
        self.ready.notify_one();
    }

    /// Takes no more jobs, and waits a while for the workers to end.
    fn close(&self, patience: Duration) {
        let mut jobs = self.lock();
        jobs.closed = true;
        self.ready.notify_all();
        drop(self.ready.wait_timeout_while(jobs, patience, |jobs| jobs.workers > 0));
    }

    /// The next job whose caller still waits; none when the queue is closed.
    fn pop(&self) -> Option<Job> {
        let mut jobs = self.lock();
        loop {
            if jobs.closed {
                return None;
            }
            match jobs.waiting.pop_front() {
                Some(job) if job.deadline > Instant::now() => return Some(job),
                Some(_) => continue,
                None => jobs = self.ready.wait(jobs).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Worker {
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
        while let Some(job) = queue.pop() {
            (job.run)(&mut self);
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
            match &result {
                Err(failure) if failure.curable && Instant::now() < deadline => {
                    result = self.attempt(rung, deadline, work);
                }
                _ => break,
            }
        }
        self.tell(result.as_ref().err());
        result
    }

    fn tell(&mut self, failure: Option<&CallError>) {
        let token = &self.access.uri;
        match (self.away, failure) {
            (false, Some(failure)) if failure.curable => {
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
            Ok(keys) => Ok(Self { session, keys, node_id: access.node_id, generation: entered.generation }),
            Err(failure) => {
                // The failure that came first is the one to tell.
                let _ = session.close();
                Err(failure)
            }
        }
    }
}
