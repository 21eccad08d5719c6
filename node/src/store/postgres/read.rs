//! Queries for operators. They need no term and run on any server, hot standbys included.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use holdfast_proto::error::Error;
use tokio::sync::Mutex;
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{Json, ToSql};

use super::config::PgConfig;
use super::from_bigint;
use super::session::{Failure, Purpose, Session};
use crate::aside::Aside;

/// One connection of its own, made when it is first needed and again when it has broken.
pub struct PgReader {
    config: PgConfig,
    purpose: Purpose,
    session: Mutex<Option<Arc<Session>>>,
    /// Whether the tables were seen. They never go away again.
    has_tables: AtomicBool,
    /// Where its connection lives; with whoever asks first, otherwise.
    aside: Option<Arc<Aside>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelState {
    Pending,
    Ready,
    Closed,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelRow {
    pub channel_id: [u8; 32],
    pub user_channel_id: u128,
    pub counterparty: Option<[u8; 33]>,
    /// txid:vout
    pub funding: Option<String>,
    pub state: ChannelState,
    /// Milliseconds since the Unix epoch, as every `_ms` below.
    pub pending_ms: Option<u64>,
    pub ready_ms: Option<u64>,
    pub closed_ms: Option<u64>,
    pub close_reason: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerRow {
    pub node_id: [u8; 33],
    pub address: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeadershipView {
    /// The newest term; 0 before the first leader.
    pub term: u64,
    /// Who leads; absent when the last leader handed over and none has followed yet.
    pub leader: Option<LeaderRow>,
    /// Newest first.
    pub history: Vec<TakeoverRow>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaderRow {
    pub replica: String,
    pub api_address: String,
    pub peer_address: String,
    pub since_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TakeoverRow {
    pub term: u64,
    pub replica: String,
    pub at_ms: u64,
    pub phases_us: BTreeMap<String, u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    #[error("postgres: {0}")]
    Unavailable(String),
    #[error("the store does not understand the database: {0}")]
    Broken(String),
}

impl PgReader {
    pub fn new(config: PgConfig) -> Self {
        Self::for_purpose(config, Purpose::Read)
    }

    /// For the leader, which decides by what it reads: asks no server that may lag behind what was committed.
    pub fn of_primary(config: PgConfig) -> Self {
        Self::for_purpose(config, Purpose::ReadOwn)
    }

    fn for_purpose(config: PgConfig, purpose: Purpose) -> Self {
        Self { config, purpose, session: Mutex::new(None), has_tables: AtomicBool::new(false), aside: None }
    }

    /// With a connection that goes on while the node's threads stand still.
    pub(crate) fn on(self, aside: Arc<Aside>) -> Self {
        Self { aside: Some(aside), ..self }
    }

    /// All channels that there have been.
    pub async fn channels(&self) -> Result<Vec<ChannelRow>, ReadError> {
        self.rows(CHANNEL, &[], channel).await
    }

    /// The peers that the node reconnects to by itself.
    pub async fn peers(&self) -> Result<Vec<PeerRow>, ReadError> {
        self.rows("SELECT node_id, address FROM holdfast.peers ORDER BY added_at, node_id", &[], |row| {
            Ok(PeerRow { node_id: array(row.try_get(0)?)?, address: row.try_get(1)? })
        })
        .await
    }

    /// All small records of one namespace, by key.
    pub async fn records(&self, primary: &str) -> Result<Vec<(String, Vec<u8>)>, ReadError> {
        self.rows("SELECT key, value FROM holdfast.kv WHERE primary_namespace = $1 ORDER BY key", &[&primary], |row| {
            Ok((row.try_get(0)?, row.try_get(1)?))
        })
        .await
    }

    /// Whose database this is, as (node id, network); none before the first leader wrote it, or before there are tables.
    pub async fn node(&self) -> Result<Option<([u8; 33], String)>, ReadError> {
        let there =
            self.rows("SELECT to_regclass('holdfast.node') IS NOT NULL", &[], |row| Ok(row.try_get(0)?)).await?;
        if there.first() != Some(&true) {
            return Ok(None);
        }
        let whose = |row: &Row| Ok((array(row.try_get(0)?)?, row.try_get(1)?));
        Ok(self.rows("SELECT node_id, network FROM holdfast.node", &[], whose).await?.pop())
    }

    /// The newest term, who leads, and the last `history` takeovers.
    pub async fn leadership(&self, history: u32) -> Result<LeadershipView, ReadError> {
        // A question that fails is an error in the server's log, at every first start.
        if !self.has_tables.load(Ordering::Relaxed) {
            let there = "SELECT to_regclass('holdfast.leadership') IS NOT NULL";
            if self.rows(there, &[], |row| Ok(row.try_get(0)?)).await?.first() != Some(&true) {
                return Err(ReadError::Unavailable("it has no tables yet: no replica has led".into()));
            }
            self.has_tables.store(true, Ordering::Relaxed);
        }
        // One statement, so that leader and history are of one moment.
        let limit = i64::from(history);
        let rows = self.rows(LEADERSHIP, &[&limit], leadership_row).await?;
        let Some((term, leader, _)) = rows.first().cloned() else {
            return Err(ReadError::Broken("the leadership row is missing".into()));
        };
        let history = rows.into_iter().filter_map(|(.., takeover)| takeover).collect();
        Ok(LeadershipView { term, leader, history })
    }

    /// The size of the whole database on its server's disk.
    pub async fn database_bytes(&self) -> Result<u64, ReadError> {
        let sizes = self.rows("SELECT pg_database_size(current_database())", &[], |row| Ok(row.try_get(0)?)).await?;
        sizes.first().copied().map(from_bigint).ok_or_else(|| ReadError::Broken("the database has no size".into()))
    }

    /// Runs a query; once more on a fresh connection if the one that was there has broken meanwhile.
    pub(super) async fn rows<T>(
        &self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
        decode: impl Fn(&Row) -> Result<T, Failure>,
    ) -> Result<Vec<T>, ReadError> {
        let rows = match self.session(false).await?.client.query(sql, params).await.map_err(ReadError::from) {
            Err(ReadError::Unavailable(_)) => self.session(true).await?.client.query(sql, params).await?,
            done => done?,
        };
        rows.iter().map(decode).collect::<Result<_, _>>().map_err(ReadError::from)
    }

    async fn session(&self, fresh: bool) -> Result<Arc<Session>, ReadError> {
        let mut current = self.session.lock().await;
        match &*current {
            Some(session) if !fresh && !session.client.is_closed() => Ok(session.clone()),
            _ => {
                let (config, purpose) = (self.config.clone(), self.purpose);
                let connecting = async {
                    let connecting = async move { Session::connect(&config, purpose).await };
                    match &self.aside {
                        Some(aside) => aside.spawn(connecting).await.map_err(|e| Failure::Away(e.to_string()))?,
                        None => connecting.await,
                    }
                };
                let connected = tokio::time::timeout(CONNECT_TIMEOUT, connecting)
                    .await
                    .unwrap_or_else(|_| Err(Failure::Away(format!("no answer in {CONNECT_TIMEOUT:?}"))))?;
                Ok(current.insert(Arc::new(connected)).clone())
            }
        }
    }
}

/// An operator is told soon that the database is away, rather than made to wait for it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

impl From<Failure> for ReadError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Away(why) => Self::Unavailable(why),
            Failure::Wrong(why) => Self::Broken(why),
        }
    }
}

impl From<tokio_postgres::Error> for ReadError {
    fn from(error: tokio_postgres::Error) -> Self {
        match error.code() {
            // The first leader makes the schema; until then a standby may ask in vain.
            Some(code) if [SqlState::UNDEFINED_TABLE, SqlState::INVALID_SCHEMA_NAME].contains(code) => {
                Self::Unavailable("this database has had no leader yet".into())
            }
            _ => Failure::from(error).into(),
        }
    }
}

impl From<ReadError> for Error {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Unavailable(_) => Self::unavailable(error.to_string()),
            ReadError::Broken(_) => Self::Internal(error.to_string()),
        }
    }
}

const CHANNEL: &str = "SELECT channel_id, user_channel_id, counterparty, funding, state,
    (extract(epoch FROM pending_at) * 1000)::bigint, (extract(epoch FROM ready_at) * 1000)::bigint,
    (extract(epoch FROM closed_at) * 1000)::bigint, close_reason
    FROM holdfast.channels ORDER BY COALESCE(pending_at, ready_at, closed_at), channel_id";

fn channel(row: &Row) -> Result<ChannelRow, Failure> {
    let states = [ChannelState::Pending, ChannelState::Ready, ChannelState::Closed];
    Ok(ChannelRow {
        channel_id: array(row.try_get(0)?)?,
        user_channel_id: u128::from_be_bytes(array(row.try_get(1)?)?),
        counterparty: row.try_get::<_, Option<&[u8]>>(2)?.map(array).transpose()?,
        funding: row.try_get(3)?,
        state: named(row.try_get(4)?, states, |state| match state {
            ChannelState::Pending => "pending",
            ChannelState::Ready => "ready",
            ChannelState::Closed => "closed",
        })?,
        pending_ms: unsigned(row, 5)?,
        ready_ms: unsigned(row, 6)?,
        closed_ms: unsigned(row, 7)?,
        close_reason: row.try_get(8)?,
    })
}

const LEADERSHIP: &str = "SELECT l.term, l.released_at IS NULL, l.replica, l.api_address, l.peer_address,
    (extract(epoch FROM l.since) * 1000)::bigint, h.term, h.replica, (extract(epoch FROM h.at) * 1000)::bigint,
    h.phases_us
    FROM holdfast.leadership l
    LEFT JOIN (SELECT * FROM holdfast.leadership_history ORDER BY term DESC LIMIT $1) h ON true
    ORDER BY h.term DESC";

type LeadershipRow = (u64, Option<LeaderRow>, Option<TakeoverRow>);

fn leadership_row(row: &Row) -> Result<LeadershipRow, Failure> {
    let leads: bool = row.try_get(1)?;
    let leader = match (leads, row.try_get(2)?, row.try_get(3)?, row.try_get(4)?, unsigned(row, 5)?) {
        (true, Some(replica), Some(api_address), Some(peer_address), Some(since_ms)) => {
            Some(LeaderRow { replica, api_address, peer_address, since_ms })
        }
        _ => None,
    };
    let takeover = match (unsigned(row, 6)?, row.try_get(7)?, unsigned(row, 8)?, row.try_get(9)?) {
        (Some(term), Some(replica), Some(at_ms), Some(Json(phases_us))) => {
            Some(TakeoverRow { term, replica, at_ms, phases_us })
        }
        _ => None,
    };
    Ok((from_bigint(row.try_get(0)?), leader, takeover))
}

pub(super) fn unsigned(row: &Row, column: usize) -> Result<Option<u64>, Failure> {
    Ok(row.try_get::<_, Option<i64>>(column)?.map(from_bigint))
}

pub(super) fn array<const N: usize>(bytes: &[u8]) -> Result<[u8; N], Failure> {
    bytes.try_into().map_err(|_| Failure::Wrong(format!("{} bytes where {N} belong", bytes.len())))
}

pub(super) fn named<T: Copy, const N: usize>(
    name: &str,
    all: [T; N],
    name_of: impl Fn(T) -> &'static str,
) -> Result<T, Failure> {
    all.into_iter()
        .find(|value| name_of(*value) == name)
        .ok_or_else(|| Failure::Wrong(format!("an unknown word in a column: {name}")))
}
