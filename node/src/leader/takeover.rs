//! From standby to leader: wait for the lock, end what is left of the old leader, raise the term.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_postgres::Client;

use super::keeper::{Heart, LOCK};
use super::{ReplicaInfo, StandError, term};
use crate::store::postgres::migrate::{self, SchemaState};
use crate::store::postgres::session::{Failure, Purpose, Session};
use crate::store::postgres::{PgConfig, from_bigint, to_bigint};

pub(super) struct Won {
    pub term: u64,
    pub session: Arc<Session>,
    pub phases: BTreeMap<String, Duration>,
}

/// How often the raise is tried anew after ending whatever holds the leadership row. Beyond that somebody else may try.
const RAISE_ATTEMPTS: u32 = 20;
const SIGNER_TIMEOUT: Duration = Duration::from_secs(10);

/// One try. `Away` drops the session and with it the lock, so that another replica gets its chance.
pub(super) async fn campaign<F, A, E>(
    heart: &Heart,
    config: &PgConfig,
    replica: &ReplicaInfo,
    signer_term: &F,
) -> Result<Result<Won, StandError>, Failure>
where
    F: Fn() -> A,
    A: Future<Output = Result<u64, E>>,
    E: Display,
{
    let session = Arc::new(heart.connect(config, Purpose::Lock).await?);
    let client = &session.client;
    if let SchemaState::Newer { database } = migrate::state(client).await? {
        return Ok(Err(StandError::SchemaTooNew { database, program: migrate::newest() }));
    }

    wait_for_lock(client).await?;
    let start = Instant::now();
    let _pulse = heart.pulse(session.clone());
    client.batch_execute("SET lock_timeout = 300; SET statement_timeout = 5000").await?;

    let mut phases = BTreeMap::new();
    let signer = async {
        match tokio::time::timeout(SIGNER_TIMEOUT, signer_term()).await {
            Ok(Ok(term)) => Ok((term, start.elapsed())),
            Ok(Err(why)) => Err(Failure::Away(format!("signer: {why}"))),
            Err(_) => Err(Failure::Away(format!("signer: no answer in {SIGNER_TIMEOUT:?}"))),
        }
    };
    let database = async {
        // A newer program may have migrated while we waited.
        let schema = migrate::state(client).await?;
        if schema == SchemaState::Same {
            end_old_leader(client).await?;
        }
        Ok((schema, start.elapsed()))
    };
    let ((signer_term, signer_took), (schema, mut old_leader_took)) = futures::try_join!(signer, database)?;
    match schema {
        SchemaState::Newer { database } => {
            return Ok(Err(StandError::SchemaTooNew { database, program: migrate::newest() }));
        }
        SchemaState::Same => {}
        // Nobody takes a migration back, so it waits for the signer: a replica that cannot lead changes nothing.
        SchemaState::Older => {
            end_old_leader_of_any_schema(client).await?;
            migrate::migrate(config).await?;
            old_leader_took = start.elapsed();
        }
    }
    phases.insert("signer-term".to_owned(), signer_took);
    phases.insert("end-old-leader".to_owned(), old_leader_took);

    let raising = Instant::now();
    let term = raise(client, replica, signer_term).await?;
    phases.insert("raise-term".to_owned(), raising.elapsed());
    Ok(Ok(Won { term, session, phases }))
}

/// Waits without polling: the server wakes us the moment that the holder's session ends. But a statement keeps its snapshot
/// while it waits, and no row that died since can be vacuumed: the database would grow for as long as we stand by. So each
/// wait is a short one. The timeout is caught in the server, which would log it as an error.
async fn wait_for_lock(client: &Client) -> Result<(), Failure> {
    const MINE: &str =
        "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted AND pid = pg_backend_pid())";
    let wait = format!(
        "DO $$ BEGIN
             SET LOCAL lock_timeout = '3s';
             PERFORM pg_advisory_lock({LOCK});
         EXCEPTION WHEN lock_not_available THEN NULL;
         END $$"
    );
    loop {
        client.batch_execute(&wait).await?;
        if client.query_one(MINE, &[]).await?.try_get(0)? {
            return Ok(());
        }
    }
}

/// Ends the server processes that the last leader registered: one whose client is frozen in mid-batch holds the leadership
/// row. Nobody waits for their end but the raise, which waits for the row.
async fn end_old_leader(client: &Client) -> Result<(), Failure> {
    let ended = client
        .query(
            "SELECT a.pid, pg_terminate_backend(a.pid)
             FROM holdfast.leader_backend b JOIN pg_stat_activity a USING (pid, backend_start)
             WHERE a.pid <> pg_backend_pid()",
            &[],
        )
        .await?;
    if !ended.is_empty() {
        tracing::info!(processes = ended.len(), "ended what was left of the last leader");
    }
    Ok(())
}

/// The same before a migration, when the table may not be there yet.
async fn end_old_leader_of_any_schema(client: &Client) -> Result<(), Failure> {
    let row = client.query_one("SELECT to_regclass('holdfast.leader_backend') IS NOT NULL", &[]).await?;
    if row.try_get(0)? { end_old_leader(client).await } else { Ok(()) }
}

async fn raise(client: &Client, replica: &ReplicaInfo, signer_term: u64) -> Result<u64, Failure> {
    let mut attempt = 0;
    loop {
        let row = client.query_one("SELECT term FROM holdfast.leadership", &[]).await?;
        let old: i64 = row.try_get(0)?;
        let new = term::next(from_bigint(old), signer_term).map_err(|error| Failure::Wrong(error.to_string()))?;
        let bigint = to_bigint("term", new).map_err(Failure::Wrong)?;
        let raised =
            client.query_opt(RAISE, &[&old, &bigint, &replica.name, &replica.api_address, &replica.peer_address]).await;
        match raised.map_err(Failure::from) {
            Ok(Some(_)) => return Ok(new),
            Ok(None) => return Err(Failure::Away("another replica raised the term".into())),
            // Somebody still holds the row: a session of the old leader that began after we had looked.
            Err(Failure::Away(why)) if attempt < RAISE_ATTEMPTS && !client.is_closed() => {
                tracing::info!("the leadership row is held, ending the old leader again: {why}");
                attempt += 1;
                end_old_leader(client).await?;
            }
            Err(failure) => return Err(failure),
        }
    }
}

/// One statement: the term, its history, the count of its batches, and the server process that holds the lock.
const RAISE: &str = "WITH raised AS (
    UPDATE holdfast.leadership
    SET term = $2, replica = $3, api_address = $4, peer_address = $5, since = now(), released_at = NULL
    WHERE term = $1 RETURNING term, replica, api_address, peer_address, since
), history AS (
    INSERT INTO holdfast.leadership_history (term, replica, api_address, peer_address, at) SELECT * FROM raised
), batches AS (
    UPDATE holdfast.last_batch b SET term = r.term, sequence = 0, committed_at = now() FROM raised r
), gone AS (
    DELETE FROM holdfast.leader_backend USING raised WHERE leader_backend.term < raised.term
), ours AS (
    INSERT INTO holdfast.leader_backend (pid, backend_start, term, purpose)
    SELECT a.pid, a.backend_start, r.term, 'lock' FROM raised r, pg_stat_activity a WHERE a.pid = pg_backend_pid()
) SELECT term FROM raised";

pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
