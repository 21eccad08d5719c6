//! The schema and how a database gets it.

use super::config::PgConfig;
use super::session::{Failure, Purpose, Session};

/// In order; a released one never changes.
const MIGRATIONS: &[(i32, &str, &str)] = &[
    (1, "tables", include_str!("migrations/0001_tables.sql")),
    (2, "commit_batch", include_str!("migrations/0002_commit_batch.sql")),
    (3, "public_views", include_str!("migrations/0003_public_views.sql")),
    (4, "payments_parts_keys_offers", include_str!("migrations/0004_payments_parts_keys_offers.sql")),
    (5, "channel_backups", include_str!("migrations/0005_channel_backups.sql")),
    (6, "events", include_str!("migrations/0006_events.sql")),
    (7, "archived_monitors", include_str!("migrations/0007_archived_monitors.sql")),
    (8, "returned_backups", include_str!("migrations/0008_returned_backups.sql")),
    (9, "deposits", include_str!("migrations/0009_deposits.sql")),
];

/// Any fixed number, shared by all that change the schema.
const MIGRATION_LOCK: i64 = 0x686f_6c64_6d69_6772;

/// The schema that this program is written for.
pub(crate) fn newest() -> i32 {
    // The list is a non-empty constant.
    MIGRATIONS.iter().map(|(version, ..)| *version).max().unwrap_or(0)
}

/// What the database has, compared with what this program wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SchemaState {
    Older,
    Same,
    Newer { database: i32 },
}

pub(crate) async fn state(client: &tokio_postgres::Client) -> Result<SchemaState, Failure> {
    let there: bool =
        client.query_one("SELECT to_regclass('holdfast.schema_version') IS NOT NULL", &[]).await?.try_get(0)?;
    if !there {
        return Ok(SchemaState::Older);
    }
    let row = client.query_one("SELECT COALESCE(max(version), 0) FROM holdfast.schema_version", &[]).await?;
    Ok(compare(row.try_get(0)?))
}

/// Brings the schema up to date, all of it or nothing of it. Two that do so at once take turns.
pub(crate) async fn migrate(config: &PgConfig) -> Result<SchemaState, Failure> {
    let mut session = Session::connect(config, Purpose::Setup).await?;
    let transaction = session.client.transaction().await?;
    transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&MIGRATION_LOCK]).await?;
    transaction
        .batch_execute(
            "CREATE SCHEMA IF NOT EXISTS holdfast;
             CREATE TABLE IF NOT EXISTS holdfast.schema_version (
                 version integer PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now());
             COMMENT ON TABLE holdfast.schema_version IS 'The migrations that this schema has had.';",
        )
        .await?;
    let row = transaction.query_one("SELECT COALESCE(max(version), 0) FROM holdfast.schema_version", &[]).await?;
    let database: i32 = row.try_get(0)?;
    for (version, name, sql) in MIGRATIONS.iter().filter(|(version, ..)| *version > database) {
        transaction.batch_execute(sql).await?;
        transaction
            .execute("INSERT INTO holdfast.schema_version (version, name) VALUES ($1, $2)", &[version, name])
            .await?;
        tracing::info!(version, name, "schema migrated");
    }
    transaction.commit().await?;
    Ok(compare(database.max(newest())))
}

fn compare(database: i32) -> SchemaState {
    match database.cmp(&newest()) {
        std::cmp::Ordering::Less => SchemaState::Older,
        std::cmp::Ordering::Equal => SchemaState::Same,
        std::cmp::Ordering::Greater => SchemaState::Newer { database },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn migrations_are_numbered_from_one_without_gaps() {
        for (index, (version, ..)) in MIGRATIONS.iter().enumerate() {
            assert_eq!(*version as usize, index + 1);
        }
        assert_eq!(compare(newest() + 1), SchemaState::Newer { database: newest() + 1 });
        assert_eq!(compare(0), SchemaState::Older);
    }
}
