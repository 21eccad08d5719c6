//! Loading a node: one snapshot, six queries, however many channels.

use std::collections::HashMap;

use futures::try_join;
use tokio_postgres::Client;

use super::StoreError;
use super::chunks::{self, ChunkHash};
use super::config::PgConfig;
use super::deposits::deposits;
use super::session::{Failure, Purpose, Session};
use crate::store::{KvKey, Loaded, LoadedMonitor, MonitorKey};

pub(super) async fn load(config: &PgConfig) -> Result<Result<Loaded, StoreError>, Failure> {
    let session = Session::connect(config, Purpose::Setup).await?;
    let client = &session.client;
    client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    let (manager, monitors, kv, deposits) = try_join!(manager(client), monitors(client), kv(client), deposits(client))?;
    client.batch_execute("COMMIT").await?;
    Ok(assemble(manager, monitors, kv).map(|loaded| Loaded { deposits, ..loaded }))
}

fn assemble(
    manager: Manager,
    monitors: Result<Vec<LoadedMonitor>, StoreError>,
    kv: HashMap<KvKey, Vec<u8>>,
) -> Result<Loaded, StoreError> {
    let monitors = monitors?;
    let manager = match manager.root {
        Some((depth, root)) => Some(
            chunks::join(depth, &root, &manager.chunks)
                .map_err(|error| StoreError::Damaged(format!("channel manager: {error}")))?,
        ),
        None if manager.expected || !monitors.is_empty() => {
            return Err(StoreError::Damaged("the channel manager is missing".into()));
        }
        None => None,
    };
    Ok(Loaded { manager, monitors, kv, ..Loaded::default() })
}

struct Manager {
    expected: bool,
    root: Option<(i16, Vec<u8>)>,
    chunks: HashMap<ChunkHash, Vec<u8>>,
}

async fn manager(client: &Client) -> Result<Manager, Failure> {
    let (row, rows) = try_join!(
        client.query_opt(
            "SELECT n.has_manager, m.depth, m.root FROM holdfast.node n LEFT JOIN holdfast.manager m ON true",
            &[],
        ),
        client.query("SELECT hash, bytes FROM holdfast.manager_chunk", &[]),
    )?;
    let row = row.ok_or_else(|| Failure::Wrong("this database belongs to no node".into()))?;
    let root = match (row.try_get(1)?, row.try_get(2)?) {
        (Some(depth), Some(root)) => Some((depth, root)),
        _ => None,
    };
    let mut chunks = HashMap::with_capacity(rows.len());
    for row in rows {
        let hash: &[u8] = row.try_get(0)?;
        // A name of another length is no hash of anything: its chunk will be found missing.
        if let Ok(hash) = hash.try_into() {
            chunks.insert(hash, row.try_get(1)?);
        }
    }
    Ok(Manager { expected: row.try_get(0)?, root, chunks })
}

async fn monitors(client: &Client) -> Result<Result<Vec<LoadedMonitor>, StoreError>, Failure> {
    let (fulls, updates) = try_join!(
        client.query("SELECT channel_id, bytes FROM holdfast.monitors WHERE archived_at IS NULL", &[]),
        client.query(
            "SELECT u.channel_id, u.update_id, u.bytes
             FROM holdfast.monitor_updates u LEFT JOIN holdfast.monitors m USING (channel_id)
             WHERE m.channel_id IS NULL OR (m.archived_at IS NULL AND u.update_id > m.update_id)
             ORDER BY u.channel_id, u.update_id",
            &[],
        ),
    )?;
    let mut monitors = HashMap::with_capacity(fulls.len());
    for row in fulls {
        let Some(key) = key(row.try_get(0)?) else {
            return Ok(Err(StoreError::Damaged("a monitor whose name is not a channel id".into())));
        };
        monitors.insert(key, LoadedMonitor { key, full: row.try_get(1)?, updates: Vec::new() });
    }
    for row in updates {
        let channel: &[u8] = row.try_get(0)?;
        let Some(monitor) = key(channel).and_then(|key| monitors.get_mut(&key)) else {
            let channel = hex::encode(channel);
            return Ok(Err(StoreError::Damaged(format!("the monitor of channel {channel} is missing"))));
        };
        let update_id: i64 = row.try_get(1)?;
        monitor.updates.push((super::from_bigint(update_id), row.try_get(2)?));
    }
    Ok(Ok(monitors.into_values().collect()))
}

async fn kv(client: &Client) -> Result<HashMap<KvKey, Vec<u8>>, Failure> {
    let rows = client.query("SELECT primary_namespace, secondary_namespace, key, value FROM holdfast.kv", &[]).await?;
    let mut kv = HashMap::with_capacity(rows.len());
    for row in rows {
        let key = KvKey { primary: row.try_get(0)?, secondary: row.try_get(1)?, key: row.try_get(2)? };
        kv.insert(key, row.try_get(3)?);
    }
    Ok(kv)
}

fn key(channel_id: &[u8]) -> Option<MonitorKey> {
    channel_id.try_into().ok().map(MonitorKey)
}
