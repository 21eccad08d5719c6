use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use holdfast_node::leader::{Lost, StandError, stand};
use holdfast_node::store::postgres::{PgReader, PgStore, ReadError};
use holdfast_node::store::{Batch, CommitError, Store};
use tokio::time::timeout;

use crate::server::{NODE, Server, lead, open, replica, until};

const SOON: Duration = Duration::from_secs(20);

const LOCK_HELD: &str = "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted)";
const TWO_WAIT: &str = "SELECT count(*) = 2 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";
const ONE_WAITS: &str = "SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";

#[tokio::test(flavor = "multi_thread")]
async fn when_the_leader_dies_exactly_one_standby_takes_over() {
    let server = Server::quick().await;
    let admin = server.admin().await;
    let first = lead(&server.config(), "first").await;
    assert_eq!(first.term, 1);
    let (winners, mut won) = tokio::sync::mpsc::channel(2);
    for name in ["second", "third"] {
        let (config, winners) = (server.config(), winners.clone());
        tokio::spawn(async move {
            let leadership = lead(&config, name).await;
            winners.send((Instant::now(), name, leadership)).await.unwrap();
        });
    }
    until(&admin, TWO_WAIT).await;

    let died = Instant::now();
    drop(first);
    let (at, name, second) = timeout(SOON, won.recv()).await.unwrap().unwrap();
    println!("takeover after the leader's end: {:?}", at - died);
    assert_eq!(second.term, 2);
    until(&admin, ONE_WAITS).await;
    assert!(won.try_recv().is_err(), "two lead");

    let died = Instant::now();
    drop(second);
    let (at, other, third) = timeout(SOON, won.recv()).await.unwrap().unwrap();
    println!("takeover after the next one's end: {:?}, phases {:?}", at - died, third.phases());
    assert_eq!(third.term, 3);
    assert_ne!(name, other);
}

/// Rows that die while a standby waits must not stay: a database of one busy day would grow for a year.
#[tokio::test(flavor = "multi_thread")]
async fn a_standby_that_waits_does_not_keep_dead_rows_from_the_vacuum() {
    let server = Server::quick().await;
    let admin = server.admin().await;
    let _first = lead(&server.config(), "first").await;
    let config = server.config();
    let standby = tokio::spawn(async move { lead(&config, "second").await });
    until(&admin, ONE_WAITS).await;
    let row = admin.query_one("SELECT pg_current_xact_id()::text", &[]).await.unwrap();
    let now: String = row.get(0);
    let let_go = format!(
        "SELECT count(*) = 0 FROM pg_stat_activity
         WHERE pid <> pg_backend_pid() AND age(backend_xmin) >= age('{now}'::xid)"
    );
    until(&admin, &let_go).await;
    until(&admin, ONE_WAITS).await;
    standby.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_connection_is_cut_is_superseded_and_fenced() {
    let server = Server::quick().await;
    let admin = server.admin().await;
    let (mut first, old) = open(&server.config()).await;
    let config = server.config();
    let standby = tokio::spawn(async move { lead(&config, "second").await });
    until(&admin, ONE_WAITS).await;

    let cut = Instant::now();
    admin
        .execute("SELECT pg_terminate_backend(pid) FROM holdfast.leader_backend WHERE purpose = 'lock'", &[])
        .await
        .unwrap();
    let second = timeout(SOON, standby).await.unwrap().unwrap();
    println!("takeover after a cut connection: {:?}", cut.elapsed());
    assert_eq!(second.term, 2);
    assert_eq!(timeout(SOON, first.lost()).await.unwrap(), Lost::Superseded { newest: 2 });
    assert_eq!(old.commit(&Batch::default()).await, Err(CommitError::Fenced { ours: 1, newest: 2 }));
}

#[tokio::test(flavor = "multi_thread")]
async fn p7_a_broken_lock_session_without_a_rival_is_no_loss() {
    let mut server = Server::quick().await;
    let admin = server.admin().await;
    let (mut leadership, store) = open(&server.config()).await;
    let lock = "SELECT pg_terminate_backend(pid) FROM holdfast.leader_backend b
                WHERE purpose = 'lock' AND EXISTS (SELECT FROM pg_stat_activity a WHERE a.pid = b.pid)";
    admin.execute(lock, &[]).await.unwrap();
    until(&admin, "SELECT count(*) = 2 FROM holdfast.leader_backend WHERE purpose = 'lock'").await;
    until(&admin, LOCK_HELD).await;

    server.crash();
    server.launch().await;
    let admin = server.admin().await;
    until(&admin, LOCK_HELD).await;
    store.commit(&Batch::default()).await.unwrap();
    assert!(timeout(Duration::from_millis(600), leadership.lost()).await.is_err(), "lost without a rival");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_leader_in_mid_batch_does_not_block_the_next() {
    let server = Server::quick().await;
    let admin = server.admin().await;
    drop(lead(&server.config(), "first").await);
    // What is left of the old leader: a session with the row locked, and one with the lock, both clients frozen.
    let mut writer = server.psql();
    writer.say(
        "BEGIN;
         INSERT INTO holdfast.leader_backend SELECT pid, backend_start, 1, 'write' FROM pg_stat_activity
             WHERE pid = pg_backend_pid();
         COMMIT; BEGIN; SELECT term FROM holdfast.leadership WHERE term = 1 FOR SHARE;",
    );
    until(
        &admin,
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE state = 'idle in transaction' AND query LIKE '%FOR SHARE%')",
    )
    .await;
    writer.freeze();
    until(&admin, "SELECT NOT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory')").await;
    let mut holder = server.psql();
    let lock = 0x686f_6c64_6661_7374u64;
    holder.say(&format!("SET idle_session_timeout = 1500; SELECT pg_advisory_lock({lock});"));
    until(&admin, LOCK_HELD).await;
    holder.freeze();

    let start = Instant::now();
    let second = timeout(SOON, lead(&server.config(), "second")).await.unwrap();
    println!("takeover from a frozen leader: {:?}, phases {:?}", start.elapsed(), second.phases());
    assert_eq!(second.term, 2);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

/// The session that holds the row registered too late to be seen: it is found when the raise cannot get the row.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_appears_during_the_takeover_does_not_block_it() {
    let server = Server::quick().await;
    let admin = server.admin().await;
    drop(lead(&server.config(), "first").await);
    let mut writer = server.psql();
    writer.say("BEGIN; SELECT term FROM holdfast.leadership WHERE term = 1 FOR SHARE;");
    until(
        &admin,
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE state = 'idle in transaction' AND query LIKE '%FOR SHARE%')",
    )
    .await;
    let config = server.config();
    let standby = tokio::spawn(async move { lead(&config, "second").await });
    until(
        &admin,
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'WITH raised%')",
    )
    .await;
    admin
        .execute(
            "INSERT INTO holdfast.leader_backend SELECT pid, backend_start, 1, 'write' FROM pg_stat_activity
             WHERE state = 'idle in transaction'",
            &[],
        )
        .await
        .unwrap();
    assert_eq!(timeout(SOON, standby).await.unwrap().unwrap().term, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handover_is_recorded_and_the_next_leads_at_once() {
    let server = Server::quick().await;
    let admin = server.admin().await;
    let reader = PgReader::new(server.config());
    assert!(matches!(reader.leadership(20).await, Err(ReadError::Unavailable(_))), "there has been no leader");
    assert!(!server.log().contains("does not exist"), "the server was asked for what is not there: {}", server.log());
    let (first, store) = open(&server.config()).await;
    let phases = BTreeMap::from([("load".to_owned(), Duration::from_micros(1234))]);
    first.record_phases(&phases).await.unwrap();
    let view = reader.leadership(20).await.unwrap();
    assert_eq!((view.term, view.leader.unwrap().replica), (1, "first".to_owned()));
    assert_eq!(view.history[0].phases_us["load"], 1234);
    assert!(view.history[0].phases_us.contains_key("raise-term"));

    drop(store);
    first.release().await;
    assert_eq!(reader.leadership(20).await.unwrap().leader, None);
    until(&admin, "SELECT NOT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory')").await;
    let second = lead(&server.config(), "second").await;
    let view = reader.leadership(20).await.unwrap();
    assert_eq!((view.term, view.leader.unwrap().api_address), (2, "second:9736".to_owned()));
    assert_eq!(view.history.iter().map(|takeover| takeover.term).collect::<Vec<_>>(), [2, 1]);
    drop(second);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_term_is_above_the_signers_too() {
    let server = Server::quick().await;
    let ahead = stand(&server.config(), &replica("first"), async || Ok::<_, String>(41)).await.unwrap();
    assert_eq!(ahead.term, 42);
    assert!(PgStore::open(&server.config(), 42, NODE).await.is_ok());
    drop(ahead);
    let impossible = stand(&server.config(), &replica("first"), async || Ok::<_, String>(u64::MAX)).await;
    assert!(matches!(impossible, Err(StandError::Broken(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_cannot_reach_the_signer_leaves_the_lock_to_others() {
    let server = Server::quick().await;
    let asked = Arc::new(AtomicBool::new(false));
    let (config, flag) = (server.config(), asked.clone());
    let stuck = tokio::spawn(async move {
        let signer = async || {
            flag.store(true, Ordering::SeqCst);
            Err::<u64, _>("no route")
        };
        stand(&config, &replica("stuck"), signer).await.map(|_| ())
    });
    let deadline = Instant::now() + SOON;
    while !asked.load(Ordering::SeqCst) {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let other = timeout(SOON, lead(&server.config(), "other")).await.unwrap();
    assert_eq!(other.term, 1);
    assert!(!stuck.is_finished());
    stuck.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_migrated_before_the_signer_has_answered() {
    let server = Server::quick().await;
    let there = async || {
        let admin = server.admin().await;
        let row = admin.query_one("SELECT to_regclass('holdfast.leadership') IS NOT NULL", &[]).await.unwrap();
        row.get::<_, bool>(0)
    };
    let migrated_early = AtomicBool::new(false);
    let signer = async || {
        // Many times as long as a migration takes.
        let end = Instant::now() + Duration::from_secs(2);
        while Instant::now() < end && !migrated_early.load(Ordering::SeqCst) {
            migrated_early.store(there().await, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok::<_, String>(0)
    };
    let leadership = timeout(SOON, stand(&server.config(), &replica("first"), signer)).await.unwrap().unwrap();
    assert!(!migrated_early.load(Ordering::SeqCst), "the schema was changed by a replica that may never lead");
    assert!(there().await);
    drop(leadership);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_older_than_the_schema_says_so() {
    let server = Server::quick().await;
    let (leadership, store) = open(&server.config()).await;
    drop((leadership, store));
    let admin = server.admin().await;
    admin.execute("INSERT INTO holdfast.schema_version (version, name) VALUES (999, 'later')", &[]).await.unwrap();
    let refused = stand(&server.config(), &replica("old"), async || Ok::<_, String>(0)).await;
    assert!(matches!(refused, Err(StandError::SchemaTooNew { database: 999, .. })));
}
