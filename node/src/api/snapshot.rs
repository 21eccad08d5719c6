//! What a replica shows of itself at one moment: `/metrics` and the status page are two views of it.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use holdfast_proto::{error::Error, node::v1};
use tokio::{
    runtime::Handle,
    sync,
    task::spawn_blocking,
    time::{timeout, timeout_at},
};

use super::Backend;

/// All of it. What could not be learned in time is absent, never zero.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub at: SystemTime,
    /// Whether this replica leads, with its node running.
    pub leading: bool,
    /// One line a part that is away; none: ready.
    pub away: Vec<String>,
    pub info: Option<v1::GetInfoResponse>,
    /// Who leads as far as the database knows, with the latest takeovers, newest first.
    pub leader: Result<v1::GetLeaderResponse, String>,
    /// The newest ones, from the database.
    pub payments: Result<Vec<v1::Payment>, String>,
    pub watched: Watched,
    /// In flight; of the leader only.
    pub htlcs: Option<Htlcs>,
    /// Of the leader only.
    pub channels: Option<Vec<v1::Channel>>,
    pub peers: Option<Vec<v1::Peer>>,
    pub balance: Option<v1::GetBalanceResponse>,
}

/// What only the replica itself knows.
#[derive(Clone, Debug, Default)]
pub struct Watched {
    /// Postgres, signer, bitcoind.
    pub parts: Vec<Part>,
    /// Height of bitcoind's best chain.
    pub bitcoind_height: Option<u32>,
    pub database_bytes: Option<u64>,
    /// When this replica's certificate, or its authority's, expires.
    pub certificates_expire: Option<SystemTime>,
}

/// One part that the replica leans on, when it last asked.
#[derive(Clone, Debug)]
pub struct Part {
    pub name: &'static str,
    /// Why it gave no answer, if it did not.
    pub away: Option<String>,
    /// How long its answer took.
    pub took: Option<Duration>,
}

/// HTLCs that are not settled yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Htlcs {
    pub inbound: u64,
    pub inbound_msat: u64,
    pub outbound: u64,
    pub outbound_msat: u64,
    /// Blocks until the first of them expires; negative when it has.
    pub nearest_deadline_blocks: Option<i64>,
}

/// Takes snapshots, one at a time.
pub(super) struct Observer {
    backend: Arc<dyn Backend>,
    taking: Arc<sync::Mutex<()>>,
    latest: Arc<Mutex<Arc<Snapshot>>>,
}

impl Observer {
    pub fn new(backend: Arc<dyn Backend>) -> Self {
        let nothing = Snapshot {
            at: SystemTime::now(),
            leading: false,
            away: vec!["nothing was looked at yet".into()],
            info: None,
            leader: Err("not asked yet".into()),
            payments: Err("not asked yet".into()),
            watched: Watched::default(),
            htlcs: None,
            channels: None,
            peers: None,
            balance: None,
        };
        Self { backend, taking: Arc::default(), latest: Arc::new(Mutex::new(Arc::new(nothing))) }
    }

    /// A new one; or, when the node is stuck behind a signer that is away, the last one with what the replica knows without
    /// its node: monitoring must answer then.
    pub async fn look(&self) -> Arc<Snapshot> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let mut fresh = false;
        // Whoever comes while one is being taken waits for it and takes the next; not for one that is stuck.
        if let Ok(turn) = timeout(TURN, self.taking.clone().lock_owned()).await {
            let (backend, latest) = (self.backend.clone(), self.latest.clone());
            // The node's locks may be held by a thread that waits for the signer: on a thread that may block.
            let taken = spawn_blocking(move || {
                let _turn = turn;
                let snapshot = Handle::current().block_on(take(&*backend));
                *latest.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(snapshot);
            });
            // At the deadline, or when the runtime ends, the last one has to do.
            fresh = matches!(timeout_at(deadline, taken).await, Ok(Ok(())));
        }
        let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match fresh {
            true => latest,
            false => Arc::new(Snapshot {
                away: self.backend.readiness().err().unwrap_or_default(),
                watched: self.backend.watched(),
                ..Snapshot::clone(&latest)
            }),
        }
    }
}

/// Within which a scrape or a page is answered, whatever is away.
const PATIENCE: Duration = Duration::from_millis(1500);
/// How long it may be another one's turn; taking one takes milliseconds.
const TURN: Duration = Duration::from_millis(300);
/// How long one question to the database may take of it.
const DATABASE: Duration = Duration::from_millis(700);
const PAYMENTS: u32 = 12;

async fn take(backend: &dyn Backend) -> Snapshot {
    let (info, leader, payments) =
        tokio::join!(ask(backend.info()), ask(backend.leader()), ask(backend.payments(PAYMENTS, None)));
    let mut snapshot = Snapshot {
        at: SystemTime::now(),
        leading: false,
        away: backend.readiness().err().unwrap_or_default(),
        info: info.ok(),
        leader,
        payments,
        watched: backend.watched(),
        htlcs: None,
        channels: None,
        peers: None,
        balance: None,
    };
    if let Some(node) = backend.leading() {
        snapshot.leading = true;
        snapshot.htlcs = backend.htlcs();
        snapshot.channels = node.list_channels().await.map(|answer| answer.channels).ok();
        snapshot.peers = node.list_peers().await.map(|answer| answer.peers).ok();
        snapshot.balance = node.balance().await.ok();
    }
    snapshot
}

async fn ask<T>(question: impl Future<Output = Result<T, Error>>) -> Result<T, String> {
    match timeout(DATABASE, question).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err("no answer yet".into()),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::{super::testing::Fake, *};

    /// Of the made-up leader.
    pub(in super::super) fn leading() -> Snapshot {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(take(&Fake::leading()))
    }

    #[tokio::test]
    #[allow(clippy::await_holding_lock)] // Held is what it is about.
    async fn a_node_that_is_stuck_is_shown_as_it_was() {
        let fake = Fake::leading();
        let stuck = fake.stuck.clone();
        let observer = Observer::new(Arc::new(fake));
        let before = observer.look().await;
        assert!(before.leading && before.channels.as_ref().is_some_and(|channels| !channels.is_empty()));
        let held = stuck.lock().unwrap();
        let during = observer.look().await;
        assert_eq!((during.at, during.htlcs), (before.at, before.htlcs));
        assert_eq!(observer.look().await.at, before.at);
        // What the replica knows without its node is as of now: the signer is away.
        let away = |s: &Snapshot| s.watched.parts.iter().filter(|part| part.away.is_some()).count();
        assert_eq!((away(&before), before.away.len()), (0, 0));
        assert_eq!((away(&during), during.away.len()), (1, 1));
        drop(held);
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        while observer.look().await.at == before.at {
            assert!(tokio::time::Instant::now() < deadline, "never looked again");
        }
    }
}
