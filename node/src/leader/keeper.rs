//! Keeping the lock: a sign of life every 400 ms, and the lock again when its session broke and nobody else has it.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_postgres::Client;
use tokio_postgres::types::Json;

use super::Lost;
use super::term::{Standing, standing};
use crate::store::postgres::session::{Failure, Purpose, Session};
use crate::store::postgres::{PgConfig, from_bigint};

/// The advisory lock of the leader; locks are per database.
pub(super) const LOCK: i64 = 0x686f_6c64_6661_7374;

/// The server ends the session after 1.5 s of silence: three beats may be late before that happens.
const BEAT: Duration = Duration::from_millis(400);
/// An answer that takes longer will not come.
const PATIENCE: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_millis(200);

pub(super) enum Request {
    RecordPhases { phases: BTreeMap<String, u64>, reply: oneshot::Sender<Result<(), String>> },
    Release { reply: oneshot::Sender<()> },
}

/// A thread that does nothing but hold the lock.
pub(super) struct Heart(Option<Runtime>);

impl Heart {
    pub fn start() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("holdfast-leader")
            .enable_all()
            .build()?;
        Ok(Self(Some(runtime)))
    }

    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> Option<AbortHandle> {
        // It is there until it is dropped.
        self.0.as_ref().map(|runtime| runtime.spawn(task).abort_handle())
    }

    /// A session whose connection is driven by this thread.
    pub async fn connect(&self, config: &PgConfig, purpose: Purpose) -> Result<Session, Failure> {
        let (sender, receiver) = oneshot::channel();
        let config = config.clone();
        let connecting = self.spawn(async move {
            // Nobody waits any more: the session is dropped and closed.
            let _ = sender.send(Session::connect(&config, purpose).await);
        });
        let _stop = Pulse(connecting);
        receiver.await.unwrap_or_else(|_| Err(Failure::Away("the leader's thread has ended".into())))
    }

    /// Keeps a session from being silent, until the pulse is dropped.
    pub fn pulse(&self, session: Arc<Session>) -> Pulse {
        Pulse(self.spawn(async move {
            while session.client.batch_execute("").await.is_ok() {
                sleep(BEAT).await;
            }
        }))
    }
}

impl Drop for Heart {
    fn drop(&mut self) {
        // A runtime must not be waited for inside another one.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

pub(super) struct Pulse(Option<AbortHandle>);

impl Drop for Pulse {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

/// Runs until the leadership is lost, released or dropped.
pub(super) async fn keep(
    config: PgConfig,
    term: u64,
    session: Arc<Session>,
    mut requests: mpsc::Receiver<Request>,
    lost: watch::Sender<Option<Lost>>,
) {
    let mut beat = interval(BEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut held = Some(session);
    loop {
        let Some(session) = &held else {
            tokio::select! {
                request = requests.recv() => match request {
                    Some(Request::RecordPhases { reply, .. }) => {
                        // The other side may have given up.
                        let _ = reply.send(Err("the lock's session is broken".into()));
                    }
                    Some(Request::Release { .. }) | None => return,
                },
                regained = regain(&config, term) => match regained {
                    Ok(Regained::Lock(session)) => {
                        tracing::info!(term, "the leader has its lock again");
                        held = Some(session);
                    }
                    Ok(Regained::Lost(why)) => return give_up(&lost, why),
                    Ok(Regained::NotYet) | Err(Failure::Away(_)) => sleep(RETRY).await,
                    Err(Failure::Wrong(why)) => return give_up(&lost, Lost::Broken(why)),
                },
            }
            continue;
        };
        tokio::select! {
            request = requests.recv() => match request {
                Some(Request::RecordPhases { phases, reply }) => {
                    // As above.
                    let _ = reply.send(record_phases(&session.client, term, &phases).await.map_err(|e| e.to_string()));
                }
                Some(Request::Release { reply }) => {
                    if let Err(why) = release(&session.client, term).await {
                        tracing::warn!("the handover could not be recorded: {why}");
                    }
                    // As above.
                    let _ = reply.send(());
                    return;
                }
                None => return,
            },
            _ = beat.tick() => match timeout(PATIENCE, newest_term(&session.client)).await {
                Ok(Ok(newest)) => if let Some(why) = judge(term, newest) {
                    return give_up(&lost, why);
                },
                Ok(Err(Failure::Wrong(why))) => return give_up(&lost, Lost::Broken(why)),
                Ok(Err(Failure::Away(why))) => {
                    tracing::warn!(term, "the session of the leader's lock broke: {why}");
                    held = None;
                }
                Err(_) => {
                    tracing::warn!(term, "the session of the leader's lock gives no answer");
                    held = None;
                }
            },
        }
    }
}

fn give_up(lost: &watch::Sender<Option<Lost>>, why: Lost) {
    tracing::warn!("this replica no longer leads: {why}");
    lost.send_replace(Some(why));
}

fn judge(ours: u64, newest: u64) -> Option<Lost> {
    match standing(ours, newest) {
        Standing::Leads => None,
        Standing::Superseded => Some(Lost::Superseded { newest }),
        Standing::WentBack => Some(Lost::WentBack { newest }),
    }
}

enum Regained {
    Lock(Arc<Session>),
    /// Another replica has the lock; either it raises the term or it goes away.
    NotYet,
    Lost(Lost),
}

async fn regain(config: &PgConfig, term: u64) -> Result<Regained, Failure> {
    let session = Session::connect(config, Purpose::Lock).await?;
    let client = &session.client;
    if let Some(why) = judge(term, newest_term(client).await?) {
        return Ok(Regained::Lost(why));
    }
    let got: bool = client.query_one("SELECT pg_try_advisory_lock($1)", &[&LOCK]).await?.try_get(0)?;
    if !got {
        return Ok(Regained::NotYet);
    }
    let term_column = i64::try_from(term).map_err(|error| Failure::Wrong(error.to_string()))?;
    let registered = client
        .execute(
            "WITH fence AS (SELECT term FROM holdfast.leadership WHERE term = $1 FOR SHARE)
             INSERT INTO holdfast.leader_backend (pid, backend_start, term, purpose)
             SELECT a.pid, a.backend_start, f.term, 'lock' FROM fence f, pg_stat_activity a WHERE a.pid = pg_backend_pid()",
            &[&term_column],
        )
        .await?;
    Ok(match registered {
        1 => Regained::Lock(Arc::new(session)),
        _ => Regained::NotYet,
    })
}

async fn newest_term(client: &Client) -> Result<u64, Failure> {
    let row = client.query_one("SELECT term FROM holdfast.leadership", &[]).await?;
    Ok(from_bigint(row.try_get(0)?))
}

async fn record_phases(client: &Client, term: u64, phases: &BTreeMap<String, u64>) -> Result<(), Failure> {
    let term = i64::try_from(term).map_err(|error| Failure::Wrong(error.to_string()))?;
    client
        .execute(
            "UPDATE holdfast.leadership_history SET phases_us = phases_us || $2 WHERE term = $1",
            &[&term, &Json(phases)],
        )
        .await?;
    Ok(())
}

async fn release(client: &Client, term: u64) -> Result<(), Failure> {
    let term = i64::try_from(term).map_err(|error| Failure::Wrong(error.to_string()))?;
    client.execute("UPDATE holdfast.leadership SET released_at = now() WHERE term = $1", &[&term]).await?;
    client.execute("SELECT pg_advisory_unlock($1)", &[&LOCK]).await?;
    Ok(())
}
