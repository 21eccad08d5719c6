//! The leader's store: each batch in one statement, fenced by its term, repeated until it is durable.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};

use bitcoin::Network;
use tokio::sync::Mutex;
use tokio_postgres::types::Json;
use tokio_postgres::{Client, Statement};

use super::chunks::{self, ChunkHash, Difference, Tree};
use super::config::PgConfig;
use super::migrate::{self, SchemaState};
use super::rows::Rows;
use super::session::{Failure, Patience, Purpose, Session};
use super::{StoreError, from_bigint, load, to_bigint};
use crate::store::{Batch, CommitError, Loaded, Store};

/// Whose database it is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeIdentity {
    pub node_id: [u8; 33],
    pub network: Network,
}

/// The store of one term. Batches are committed one after another; the second caller waits for the first.
pub struct PgStore {
    config: PgConfig,
    term: i64,
    writer: Mutex<Writer>,
    stats: StoreStats,
}

/// Counted since the store was opened.
#[derive(Debug, Default)]
pub struct StoreStats {
    pub commits: AtomicU64,
    /// Attempts that had to be made again.
    pub retries: AtomicU64,
    /// Bytes of managers given to `commit`, and of chunks that went to the database for them.
    pub manager_bytes: AtomicU64,
    pub chunk_bytes: AtomicU64,
}

struct Writer {
    session: Option<(Session, Statement)>,
    /// Of the last batch of this term that is known to be committed.
    sequence: i64,
    /// The chunks that the database holds.
    stored: HashSet<ChunkHash>,
    /// The manager of the last batch that had one.
    manager: Tree,
    /// Set while a batch is on its way: if its future is dropped, nobody knows whether it arrived.
    in_doubt: bool,
}

enum Verdict {
    Committed,
    Fenced { newest: u64 },
    Gap { newest_batch: i64 },
}

const COMMIT: &str = "SELECT verdict, newest_term, last_sequence FROM holdfast.commit_batch(
    $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19)";

impl PgStore {
    /// Opens the store of `term`, which must be the newest, and claims an unclaimed database for `node`. Waits as long as
    /// the server is away.
    pub async fn open(config: &PgConfig, term: u64, node: NodeIdentity) -> Result<Self, StoreError> {
        let term = to_bigint("term", term).map_err(StoreError::Broken)?;
        let mut patience = Patience::new("open");
        loop {
            match Self::try_open(config, term, node).await {
                Ok(result) => return result,
                Err(Failure::Away(why)) => patience.wait(&why).await,
                Err(Failure::Wrong(why)) => return Err(StoreError::Broken(why)),
            }
        }
    }

    /// Everything that the node needs to start, in a constant number of queries. Waits as long as the server is away.
    pub async fn load(&self) -> Result<Loaded, StoreError> {
        let mut patience = Patience::new("load");
        loop {
            match load::load(&self.config).await {
                Ok(loaded) => return loaded,
                Err(Failure::Away(why)) => patience.wait(&why).await,
                Err(Failure::Wrong(why)) => return Err(StoreError::Broken(why)),
            }
        }
    }

    pub fn stats(&self) -> &StoreStats {
        &self.stats
    }

    pub fn term(&self) -> u64 {
        from_bigint(self.term)
    }

    async fn try_open(config: &PgConfig, term: i64, node: NodeIdentity) -> Result<Result<Self, StoreError>, Failure> {
        let session = Session::connect(config, Purpose::Write).await?;
        let client = &session.client;
        match migrate::state(client).await? {
            SchemaState::Same => {}
            SchemaState::Older => return Err(Failure::Wrong("its schema is older than this program's".into())),
            SchemaState::Newer { database } => {
                return Ok(Err(StoreError::SchemaTooNew { database, program: migrate::newest() }));
            }
        }
        if let Err(newest) = prepare_session(client, term).await? {
            return Ok(Err(StoreError::Fenced { ours: from_bigint(term), newest }));
        }
        let (node_id, network) = (&node.node_id[..], node.network.to_string());
        let row = client
            .query_one(
                "WITH claimed AS (
                     INSERT INTO holdfast.node (node_id, network)
                     SELECT $2, $3 FROM holdfast.leadership WHERE term = $1
                     ON CONFLICT DO NOTHING RETURNING node_id, network)
                 SELECT node_id, network FROM claimed UNION ALL SELECT node_id, network FROM holdfast.node LIMIT 1",
                &[&term, &node_id, &network],
            )
            .await?;
        let (found, found_network): (Vec<u8>, String) = (row.try_get(0)?, row.try_get(1)?);
        if found != node_id || found_network != network {
            return Ok(Err(StoreError::OtherNode {
                found: hex::encode(found),
                found_network,
                expected: hex::encode(node_id),
                expected_network: network,
            }));
        }
        let mut stored = HashSet::new();
        for row in client.query("SELECT hash FROM holdfast.manager_chunk", &[]).await? {
            let hash: &[u8] = row.try_get(0)?;
            match hash.try_into() {
                Ok(hash) => stored.insert(hash),
                Err(_) => return Ok(Err(StoreError::Damaged("a chunk whose name is not a hash".into()))),
            };
        }
        // Batches that this term has written before, should the store be opened twice in one term.
        let row = client.query_one("SELECT term, sequence FROM holdfast.last_batch", &[]).await?;
        let (batch_term, sequence): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
        if batch_term != term {
            return Ok(Err(StoreError::Damaged(format!("the last batch is of term {batch_term}, not of {term}"))));
        }
        let statement = client.prepare(COMMIT).await?;
        let writer =
            Writer { session: Some((session, statement)), sequence, stored, manager: Tree::default(), in_doubt: false };
        let store = Self { config: config.clone(), term, writer: Mutex::new(writer), stats: StoreStats::default() };
        Ok(Ok(store))
    }

    async fn attempt(
        &self,
        session: &mut Option<(Session, Statement)>,
        sequence: i64,
        rows: &Rows<'_>,
        manager: Option<&ManagerRows<'_>>,
    ) -> Result<Verdict, Failure> {
        let (session, statement) = match session {
            Some(ready) => ready,
            None => {
                let connected = Session::connect(&self.config, Purpose::Write).await?;
                if let Err(newest) = prepare_session(&connected.client, self.term).await? {
                    return Ok(Verdict::Fenced { newest });
                }
                let statement = connected.client.prepare(COMMIT).await?;
                if connected.warned() {
                    return Err(Failure::Away("the server warned a new session".into()));
                }
                session.insert((connected, statement))
            }
        };
        let none = ManagerRows::default();
        let chunks = manager.unwrap_or(&none);
        let row = session
            .client
            .query_one(
                &*statement,
                &[
                    &self.term,
                    &sequence,
                    &chunks.root,
                    &chunks.depth,
                    &chunks.hashes,
                    &chunks.bytes,
                    &chunks.gone,
                    &rows.full_channels,
                    &rows.full_update_ids,
                    &rows.full_bytes,
                    &rows.update_channels,
                    &rows.update_ids,
                    &rows.update_bytes,
                    &rows.archived_channels,
                    &rows.kv_primaries,
                    &rows.kv_secondaries,
                    &rows.kv_keys,
                    &rows.kv_values,
                    &rows.effects.as_ref().map(Json),
                ],
            )
            .await?;
        // The row comes before the commit, its end after it; `query_one` has waited for both. A warning in between may
        // say that the commit did not wait for its standby, so the batch is asked for once more.
        if session.warned() {
            return Err(Failure::Away("the server warned while it committed".into()));
        }
        match row.try_get(0)? {
            "committed" => Ok(Verdict::Committed),
            "fenced" => Ok(Verdict::Fenced { newest: from_bigint(row.try_get(1)?) }),
            "gap" => Ok(Verdict::Gap { newest_batch: row.try_get(2)? }),
            other => Err(Failure::Wrong(format!("an unknown verdict: {other}"))),
        }
    }
}

#[async_trait::async_trait]
impl Store for PgStore {
    async fn commit(&self, batch: &Batch) -> Result<(), CommitError> {
        let rows = Rows::of(batch).map_err(CommitError::Broken)?;
        let mut guard = self.writer.lock().await;
        let writer = &mut *guard;
        if writer.in_doubt {
            return Err(CommitError::Broken("the commit before this one was abandoned on its way".into()));
        }
        writer.in_doubt = true;
        let tree = batch.manager.as_deref().map(|manager| chunks::cut(manager, &writer.manager));
        let difference = tree.as_ref().map(|tree| tree.difference(&writer.stored)).unwrap_or_default();
        let manager = tree.as_ref().map(|tree| ManagerRows::of(tree, &difference));
        let sequence = writer.sequence + 1;
        let mut patience = Patience::new("commit");
        let verdict = loop {
            match self.attempt(&mut writer.session, sequence, &rows, manager.as_ref()).await {
                Ok(verdict) => break Ok(verdict),
                Err(Failure::Wrong(why)) => break Err(CommitError::Broken(why)),
                Err(Failure::Away(why)) => {
                    // A fresh session each time: whatever the old one still does, the batch's number decides.
                    writer.session = None;
                    self.stats.retries.fetch_add(1, Ordering::Relaxed);
                    patience.wait(&why).await;
                }
            }
        };
        patience.over();
        writer.in_doubt = false;
        let ours = from_bigint(self.term);
        match verdict? {
            Verdict::Committed => {}
            Verdict::Fenced { newest } if newest > ours => return Err(CommitError::Fenced { ours, newest }),
            Verdict::Fenced { newest } => {
                return Err(CommitError::Broken(format!(
                    "the database went back in time: its newest term is {newest}, this replica leads in {ours}"
                )));
            }
            Verdict::Gap { newest_batch } => {
                return Err(CommitError::Broken(format!(
                    "the database went back in time: its newest batch is {newest_batch}, it acknowledged {}",
                    writer.sequence
                )));
            }
        }
        self.stats.commits.fetch_add(1, Ordering::Relaxed);
        if let Some(manager) = manager {
            let sent = manager.bytes.iter().map(|bytes| bytes.len() as u64).sum();
            self.stats.chunk_bytes.fetch_add(sent, Ordering::Relaxed);
        }
        self.stats.manager_bytes.fetch_add(batch.manager.as_ref().map_or(0, |m| m.len() as u64), Ordering::Relaxed);
        writer.sequence = sequence;
        if let Some(tree) = tree {
            difference.lost.iter().for_each(|hash| {
                writer.stored.remove(hash);
            });
            writer.stored.extend(difference.gained.keys());
            writer.manager = tree;
        }
        Ok(())
    }
}

#[derive(Default)]
struct ManagerRows<'a> {
    root: Option<&'a [u8]>,
    depth: i16,
    hashes: Vec<&'a [u8]>,
    bytes: Vec<&'a [u8]>,
    gone: Vec<&'a [u8]>,
}

impl<'a> ManagerRows<'a> {
    fn of(tree: &'a Tree, difference: &'a Difference) -> Self {
        let (hashes, bytes) = difference.gained.iter().map(|(hash, bytes)| (&hash[..], &bytes[..])).unzip();
        let gone = difference.lost.iter().map(|hash| &hash[..]).collect();
        Self { root: Some(&tree.root), depth: tree.depth, hashes, bytes, gone }
    }
}

/// Registers this server process as the leader's, so that the next leader can end it, and makes its commits durable.
/// The error is the newest term, if it is not ours.
async fn prepare_session(client: &Client, term: i64) -> Result<Result<(), u64>, Failure> {
    // A server set to lose commits is overruled; one that asks for more than its own disk is honoured.
    client
        .query(
            "SELECT set_config('synchronous_commit', 'on', false)
             WHERE current_setting('synchronous_commit') IN ('off', 'local')",
            &[],
        )
        .await?;
    let registered = client
        .execute(
            "WITH fence AS (SELECT term FROM holdfast.leadership WHERE term = $1 FOR SHARE)
             INSERT INTO holdfast.leader_backend (pid, backend_start, term, purpose)
             SELECT a.pid, a.backend_start, f.term, 'write' FROM fence f, pg_stat_activity a WHERE a.pid = pg_backend_pid()",
            &[&term],
        )
        .await?;
    if registered == 1 {
        return Ok(Ok(()));
    }
    let row = client.query_one("SELECT term FROM holdfast.leadership", &[]).await?;
    Ok(Err(from_bigint(row.try_get(0)?)))
}
