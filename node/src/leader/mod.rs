//! Who leads, and in which term.
//!
//! A session advisory lock decides who tries; terms decide who acts. Nothing here has to be right for the node to be safe:
//! the store and the signer refuse every term but the newest. It has to be right for the node to be available.
//!
//! The lock's session lives on a thread of its own, so that a busy replica still shows signs of life. When the session
//! breaks but no other replica has taken over (the server restarted, the network blinked), the leader takes the lock
//! again and stays leader in the same term.

mod keeper;
mod takeover;
pub mod term;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::future::Future;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use crate::store::postgres::PgConfig;
use crate::store::postgres::session::{Failure, Patience};
use keeper::{Heart, Request};

/// What the database tells others about a leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaInfo {
    pub name: String,
    /// host:port of its operator API
    pub api_address: String,
    /// host:port where it takes peers
    pub peer_address: String,
}

/// Held while this replica leads. Dropping it frees the lock, as the end of the process does.
pub struct Leadership {
    pub term: u64,
    phases: BTreeMap<String, Duration>,
    requests: mpsc::Sender<Request>,
    lost: watch::Receiver<Option<Lost>>,
    _heart: Heart,
}

/// Why this replica no longer leads. It must stop at once; the store and the signer refuse it from now on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    #[error("another replica leads in term {newest}")]
    Superseded { newest: u64 },
    /// The server has forgotten our term: it was restored from a backup, or a standby that was behind was promoted.
    #[error("the database went back in time: its newest term is {newest}")]
    WentBack { newest: u64 },
    #[error("the leader's lock cannot be kept: {0}")]
    Broken(String),
}

/// Why this replica cannot stand at all. A server or signer that is away is none of these: it is waited for.
#[derive(Debug, thiserror::Error)]
pub enum StandError {
    #[error("the database's schema is version {database}, newer than this program's {program}: run a newer program")]
    SchemaTooNew { database: i32, program: i32 },
    #[error("{0}")]
    Broken(String),
}

/// Waits until this replica leads: it has the lock, the old leader's server processes are gone, and the new term is in the
/// database, above the database's and the signer's. It is the caller's to announce it to the signers.
///
/// `signer_term` asks for the newest term that the signers know. While it fails, the lock is left to the others.
pub async fn stand<F, A, E>(config: &PgConfig, replica: &ReplicaInfo, signer_term: F) -> Result<Leadership, StandError>
where
    F: Fn() -> A,
    A: Future<Output = Result<u64, E>>,
    E: Display,
{
    let heart = Heart::start().map_err(|error| StandError::Broken(format!("cannot start a thread: {error}")))?;
    let mut patience = Patience::new("stand");
    let won = loop {
        match takeover::campaign(&heart, config, replica, &signer_term).await {
            Ok(outcome) => break outcome?,
            Err(Failure::Away(why)) => patience.wait(&why).await,
            Err(Failure::Wrong(why)) => return Err(StandError::Broken(why)),
        }
    };
    let (requests, incoming) = mpsc::channel(8);
    let (lost_sender, lost) = watch::channel(None);
    heart.spawn(keeper::keep(config.clone(), won.term, won.session, incoming, lost_sender));
    tracing::info!(term = won.term, replica = replica.name, "this replica leads");
    Ok(Leadership { term: won.term, phases: won.phases, requests, lost, _heart: heart })
}

impl Leadership {
    /// Returns when this replica no longer leads, and why.
    pub async fn lost(&mut self) -> Lost {
        match self.lost.wait_for(Option::is_some).await {
            Ok(lost) => lost.clone().unwrap_or_else(|| Lost::Broken("its keeper gave no reason".into())),
            Err(_) => Lost::Broken("its keeper has ended".into()),
        }
    }

    /// How long each phase of winning the lead took.
    pub fn phases(&self) -> &BTreeMap<String, Duration> {
        &self.phases
    }

    /// Writes how long the phases of this takeover took into the history: those of winning it, and these.
    pub async fn record_phases(&self, phases: &BTreeMap<String, Duration>) -> Result<(), String> {
        let all = self.phases.iter().chain(phases);
        let phases = all.map(|(name, took)| (name.clone(), takeover::micros(*took))).collect();
        let (reply, answer) = oneshot::channel();
        self.ask(Request::RecordPhases { phases, reply }, answer).await?
    }

    /// Hands over: says so in the database and frees the lock. The caller has stopped writing before.
    pub async fn release(self) {
        let (reply, answer) = oneshot::channel();
        // What goes wrong here is set right by dropping ourselves, which frees the lock as well.
        if let Err(why) = self.ask(Request::Release { reply }, answer).await {
            tracing::warn!("the handover could not be recorded: {why}");
        }
    }

    async fn ask<T>(&self, request: Request, answer: oneshot::Receiver<T>) -> Result<T, String> {
        let asked = async {
            self.requests.send(request).await.map_err(|_| "no longer leader")?;
            answer.await.map_err(|_| "no longer leader")
        };
        match tokio::time::timeout(Duration::from_secs(3), asked).await {
            Ok(done) => done.map_err(str::to_owned),
            Err(_) => Err("no answer in 3 s".into()),
        }
    }
}
