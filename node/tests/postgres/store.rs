use std::time::Duration;

use holdfast_node::store::batch::{Direction, PaymentChange, PaymentKind, PaymentStatus};
use holdfast_node::store::postgres::{
    ChannelState, ForwardFilter, NodeIdentity, PgConfig, PgReader, PgStore, PgTls, StoreError,
};
use holdfast_node::store::{Batch, CommitError, Effect, KvKey, KvWrite, MonitorKey, MonitorWrite, Store};
use tokio::time::timeout;

use crate::proxy::Proxy;
use crate::server::{NODE, Server, lead, open, until};

pub fn kv_key(name: &str) -> KvKey {
    KvKey { primary: "test".into(), secondary: String::new(), key: name.into() }
}

pub fn put(name: &str, value: &[u8]) -> KvWrite {
    KvWrite::Put { key: kv_key(name), value: value.to_vec() }
}

pub fn payment(hash: u8, direction: Direction, status: PaymentStatus) -> PaymentChange {
    PaymentChange::of_hash([hash; 32], direction, PaymentKind::Bolt11, status)
}

fn effects(effects: impl IntoIterator<Item = PaymentChange>) -> Batch {
    Batch { effects: effects.into_iter().map(Effect::Payment).collect(), ..Batch::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_monitor_ends_its_updates_and_a_new_manager_its_old_chunks() {
    let server = Server::quick().await;
    let (_leadership, store) = open(&server.config()).await;
    let admin = server.admin().await;
    let key = MonitorKey([1; 32]);
    for round in 0..3u64 {
        let full = MonitorWrite::Full { key, update_id: round * 10, bytes: vec![] };
        let update = |number| MonitorWrite::Update { key, update_id: round * 10 + number, bytes: vec![] };
        let manager = (0..20_000u64).flat_map(|at| (at * at * (round + 1)).to_be_bytes()).collect();
        let monitors = [full].into_iter().chain((1..5).map(update)).collect();
        store.commit(&Batch { manager: Some(manager), monitors, ..Batch::default() }).await.unwrap();
        let updates: i64 = admin.query_one("SELECT count(*) FROM holdfast.monitor_updates", &[]).await.unwrap().get(0);
        assert_eq!(updates, 4);
        let bytes: i64 =
            admin.query_one("SELECT sum(length(bytes)) FROM holdfast.manager_chunk", &[]).await.unwrap().get(0);
        assert!((100_000..200_000).contains(&bytes), "{bytes}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archived_monitor_takes_its_updates_along_and_leaves_those_of_others() {
    let server = Server::quick().await;
    let (_leadership, store) = open(&server.config()).await;
    let admin = server.admin().await;
    let (gone, stays) = (MonitorKey([1; 32]), MonitorKey([2; 32]));
    let monitors = [gone, stays].into_iter().flat_map(|key| {
        let full = MonitorWrite::Full { key, update_id: 0, bytes: vec![] };
        [full].into_iter().chain((1..4).map(move |update_id| MonitorWrite::Update { key, update_id, bytes: vec![] }))
    });
    let manager = Some(vec![1]);
    store.commit(&Batch { manager, monitors: monitors.collect(), ..Batch::default() }).await.unwrap();
    let monitors =
        vec![MonitorWrite::Update { key: gone, update_id: 4, bytes: vec![] }, MonitorWrite::Archive { key: gone }];
    store.commit(&Batch { monitors, ..Batch::default() }).await.unwrap();
    let left = admin.query("SELECT channel_id FROM holdfast.monitor_updates", &[]).await.unwrap();
    let left: Vec<Vec<u8>> = left.iter().map(|row| row.get(0)).collect();
    assert_eq!(left, vec![stays.0.to_vec(); 3]);
    assert_eq!(store.load().await.unwrap().monitors.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn p3_an_old_term_writes_nothing() {
    let server = Server::quick().await;
    let (first, old) = open(&server.config()).await;
    let batch = |value: &[u8]| Batch { manager: Some(value.to_vec()), kv: vec![put("a", value)], ..Batch::default() };
    old.commit(&batch(b"one")).await.unwrap();
    drop(first);
    let second = lead(&server.config(), "second").await;
    assert_eq!(old.commit(&batch(b"two")).await, Err(CommitError::Fenced { ours: 1, newest: second.term }));
    assert_eq!(old.commit(&batch(b"two")).await, Err(CommitError::Fenced { ours: 1, newest: second.term }));
    assert!(matches!(PgStore::open(&server.config(), 1, NODE).await, Err(StoreError::Fenced { ours: 1, newest: 2 })));
    let new = PgStore::open(&server.config(), second.term, NODE).await.unwrap();
    let loaded = new.load().await.unwrap();
    assert_eq!(loaded.manager.as_deref(), Some(&b"one"[..]));
    assert_eq!(loaded.kv[&kv_key("a")], b"one");
    new.commit(&batch(b"three")).await.unwrap();
}

/// The old leader's session is alive, and its batch arrives while the term is being raised.
#[tokio::test(flavor = "multi_thread")]
async fn p3_a_batch_that_meets_the_raise_of_the_term_waits_for_it_and_writes_nothing() {
    let server = Server::quick().await;
    let (_leadership, store) = open(&server.config()).await;
    let mut taker = server.admin().await;
    let admin = server.admin().await;
    let raise = taker.transaction().await.unwrap();
    raise.execute("UPDATE holdfast.leadership SET term = 2", &[]).await.unwrap();
    let batch = Batch { kv: vec![put("a", b"1")], ..Batch::default() };
    let committing = tokio::spawn(async move { (store.commit(&batch).await, store) });
    until(
        &admin,
        "SELECT EXISTS (SELECT FROM pg_stat_activity
         WHERE wait_event_type = 'Lock' AND application_name = 'holdfast-write')",
    )
    .await;
    raise.commit().await.unwrap();
    let (outcome, store) = timeout(Duration::from_secs(20), committing).await.unwrap().unwrap();
    assert_eq!(outcome, Err(CommitError::Fenced { ours: 1, newest: 2 }));
    assert!(store.load().await.unwrap().kv.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_lost_on_its_way_is_asked_for_again_and_the_batch_is_there_once() {
    let server = Server::quick().await;
    let proxy = Proxy::to(server.port).await;
    let leadership = lead(&server.config(), "first").await;
    let through = PgConfig { port: proxy.port, ..server.config() };
    let store = PgStore::open(&through, leadership.term, NODE).await.unwrap();
    let admin = server.admin().await;
    for round in 1..=5u64 {
        proxy.cut_next_answer();
        let batch =
            Batch { manager: Some(vec![round as u8; 5000]), kv: vec![put("a", &[round as u8])], ..Batch::default() };
        timeout(Duration::from_secs(20), store.commit(&batch)).await.unwrap().unwrap();
        assert!(proxy.has_cut());
        let sequence: i64 = admin.query_one("SELECT sequence FROM holdfast.last_batch", &[]).await.unwrap().get(0);
        assert_eq!(sequence as u64, round);
        assert_eq!(store.load().await.unwrap().kv[&kv_key("a")], [round as u8]);
    }
    let retries = store.stats().retries.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(retries, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_server_process_is_killed_is_made_again() {
    let server = Server::quick().await;
    let (_leadership, store) = open(&server.config()).await;
    let mut blocker = server.admin().await;
    let admin = server.admin().await;
    let held = blocker.transaction().await.unwrap();
    held.execute("SELECT 1 FROM holdfast.last_batch FOR UPDATE", &[]).await.unwrap();
    let batch = Batch { kv: vec![put("a", b"1")], ..Batch::default() };
    let committing = tokio::spawn(async move { store.commit(&batch).await.map(|()| store) });
    let in_mid_batch = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock')";
    until(&admin, in_mid_batch).await;
    admin
        .execute("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE wait_event_type = 'Lock'", &[])
        .await
        .unwrap();
    until(&admin, in_mid_batch).await;
    assert!(!committing.is_finished());
    held.rollback().await.unwrap();
    let store = timeout(Duration::from_secs(20), committing).await.unwrap().unwrap().unwrap();
    assert_eq!(store.load().await.unwrap().kv[&kv_key("a")], b"1");
}

/// P2, on a server that is set to lose commits: the store overrules it.
#[tokio::test(flavor = "multi_thread")]
async fn p2_every_acknowledged_batch_survives_crashes_and_none_is_there_by_half() {
    let mut server = Server::start(&["synchronous_commit=off", "wal_writer_delay=10s", "fsync=off"]).await;
    let (_leadership, store) = open(&server.config()).await;
    let store = std::sync::Arc::new(store);
    let (acknowledged, mut seen) = tokio::sync::watch::channel(0u64);
    let committer = store.clone();
    let committing = tokio::spawn(async move {
        for number in 1u64.. {
            let bytes = number.to_be_bytes();
            let batch = Batch {
                manager: Some(bytes.repeat(2000)),
                monitors: vec![MonitorWrite::Full {
                    key: MonitorKey([1; 32]),
                    update_id: number,
                    bytes: bytes.to_vec(),
                }],
                kv: vec![put("a", &bytes)],
                effects: vec![Effect::Broadcast { txid: bitcoin::hashes::Hash::hash(&bytes), raw: bytes.to_vec() }],
            };
            committer.commit(&batch).await.unwrap();
            acknowledged.send(number).unwrap();
        }
    });
    for _ in 0..4 {
        let before = *seen.borrow();
        timeout(Duration::from_secs(30), seen.wait_for(|number| *number >= before + 20)).await.unwrap().unwrap();
        server.crash();
        let acknowledged = *seen.borrow();
        server.launch().await;
        let loaded = store.load().await.unwrap();
        let number = u64::from_be_bytes(loaded.kv[&kv_key("a")].as_slice().try_into().unwrap());
        assert!(number >= acknowledged, "{acknowledged} was acknowledged, {number} is there");
        assert_eq!(loaded.manager.unwrap(), number.to_be_bytes().repeat(2000));
        assert_eq!(loaded.monitors[0].full, number.to_be_bytes());
        let broadcasts = server.admin().await.query_one("SELECT count(*) FROM holdfast.onchain_broadcasts", &[]).await;
        assert!(broadcasts.unwrap().get::<_, i64>(0) as u64 >= number);
    }
    committing.abort();
}

/// The server answers "committed" to a commit whose wait for its standby was cancelled, and only warns.
#[tokio::test(flavor = "multi_thread")]
async fn p2_a_commit_that_its_standby_may_not_have_is_not_acknowledged() {
    let server = Server::quick().await;
    let (_leadership, store) = open(&server.config()).await;
    let admin = server.admin().await;
    admin.batch_execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'").await.unwrap();
    admin.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    let (acknowledged, mut seen) = tokio::sync::watch::channel(0u32);
    let committing = tokio::spawn(async move {
        for number in 1u32.. {
            store.commit(&Batch { kv: vec![put("a", &number.to_be_bytes())], ..Batch::default() }).await.unwrap();
            acknowledged.send(number).unwrap();
        }
    });
    let waiting = "SELECT EXISTS (SELECT FROM pg_stat_activity
        WHERE wait_event = 'SyncRep' AND application_name = 'holdfast-write')";
    // The setting takes a moment to reach every process; some batch is the first that waits.
    until(&admin, waiting).await;
    let before = *seen.borrow_and_update();
    for _ in 0..3 {
        until(&admin, waiting).await;
        let cancel = "SELECT pid, pg_cancel_backend(pid) FROM pg_stat_activity
            WHERE wait_event = 'SyncRep' AND application_name = 'holdfast-write'";
        let pid: i32 = admin.query_one(cancel, &[]).await.unwrap().get(0);
        until(
            &admin,
            &format!("SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = {pid} AND wait_event = 'SyncRep')"),
        )
        .await;
    }
    until(&admin, waiting).await;
    assert_eq!(*seen.borrow(), before, "acknowledged without its standby");
    admin.batch_execute("ALTER SYSTEM RESET synchronous_standby_names").await.unwrap();
    admin.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    timeout(Duration::from_secs(20), seen.wait_for(|number| *number > before + 1)).await.unwrap().unwrap();
    committing.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn p6_a_database_that_went_back_in_time_is_noticed() {
    let server = Server::quick().await;
    let (_leadership, store) = open(&server.config()).await;
    let admin = server.admin().await;
    for _ in 0..3 {
        store.commit(&Batch::default()).await.unwrap();
    }
    admin.execute("UPDATE holdfast.last_batch SET sequence = 1", &[]).await.unwrap();
    let Err(CommitError::Broken(why)) = store.commit(&Batch::default()).await else { panic!("committed") };
    assert!(why.contains("back in time"), "{why}");
    admin.execute("UPDATE holdfast.leadership SET term = 0", &[]).await.unwrap();
    let Err(CommitError::Broken(why)) = store.commit(&Batch::default()).await else { panic!("committed") };
    assert!(why.contains("back in time"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn p8_absent_is_not_empty() {
    let server = Server::quick().await;
    let (leadership, store) = open(&server.config()).await;
    let admin = server.admin().await;
    assert_eq!(store.load().await.unwrap().manager, None, "a new node has no manager yet");
    let key = MonitorKey([7; 32]);
    let batch = Batch {
        manager: Some((0..9000u32).flat_map(u32::to_be_bytes).collect()),
        monitors: vec![
            MonitorWrite::Full { key, update_id: 1, bytes: vec![1] },
            MonitorWrite::Update { key, update_id: 2, bytes: vec![2] },
        ],
        ..Batch::default()
    };
    store.commit(&batch).await.unwrap();
    let damaged = async |what: &str, sql: &str| {
        let database = format!("damaged_{}", what.replace([' ', ':'], "_"));
        admin.batch_execute(&format!("CREATE DATABASE {database}")).await.unwrap();
        let config = server.config_of(&database);
        let (_leadership, store) = open(&config).await;
        store.commit(&batch).await.unwrap();
        store.load().await.unwrap();
        server.admin_of(&database).await.batch_execute(sql).await.unwrap();
        match store.load().await {
            Err(StoreError::Damaged(why)) => assert!(why.contains(what), "{what}: {why}"),
            other => panic!("{what}: {:?}", other.map(|_| "loaded")),
        }
    };
    damaged("manager is missing", "DELETE FROM holdfast.manager").await;
    damaged("manager: chunk", "DELETE FROM holdfast.manager_chunk WHERE ctid = '(0,1)'").await;
    damaged("other bytes", "UPDATE holdfast.manager_chunk SET bytes = bytes || '\\x00'").await;
    damaged("monitor of channel 0707", "DELETE FROM holdfast.monitors").await;

    let other = NodeIdentity { node_id: [3; 33], ..NODE };
    let refused = PgStore::open(&server.config(), leadership.term, other).await;
    assert!(matches!(refused, Err(StoreError::OtherNode { .. })));
    let other = NodeIdentity { network: bitcoin::Network::Bitcoin, ..NODE };
    let refused = PgStore::open(&server.config(), leadership.term, other).await;
    assert!(matches!(refused, Err(StoreError::OtherNode { .. })));

    let stranger = MonitorWrite::Update { key: MonitorKey([9; 32]), update_id: 1, bytes: vec![] };
    let batch = Batch { monitors: vec![stranger], kv: vec![put("a", b"1")], ..Batch::default() };
    assert!(matches!(store.commit(&batch).await, Err(CommitError::Broken(_))));
    assert!(store.load().await.unwrap().kv.is_empty(), "half a batch");
    store.commit(&Batch::default()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_that_succeeded_stays_so_and_one_that_failed_may_be_tried_again() {
    use Direction::{Inbound, Outbound};
    use PaymentStatus::{Failed, Pending, Succeeded};
    let server = Server::quick().await;
    let (_leadership, store) = open(&server.config()).await;
    let reader = PgReader::new(server.config());
    let failed = PaymentChange { failure: Some("no route".into()), ..payment(1, Outbound, Failed) };
    let begun = PaymentChange { amount_msat: Some(5), invoice: Some("lnbcrt".into()), ..payment(1, Outbound, Pending) };
    store.commit(&effects([begun.clone(), failed.clone(), payment(2, Inbound, Pending)])).await.unwrap();
    let row = reader.payment([1; 32]).await.unwrap().unwrap();
    assert_eq!((row.status, row.failure.as_deref(), row.amount_msat), (Failed, Some("no route"), Some(5)));

    store.commit(&effects([begun])).await.unwrap();
    let row = reader.payment([1; 32]).await.unwrap().unwrap();
    assert_eq!((row.status, row.failure), (Pending, None), "an operator must not be told that it failed");

    let paid = PaymentChange { preimage: Some([9; 32]), fee_msat: Some(1), ..payment(1, Outbound, Succeeded) };
    store.commit(&effects([paid.clone()])).await.unwrap();
    let row = reader.payment([1; 32]).await.unwrap().unwrap();
    store.commit(&effects([paid, failed])).await.unwrap();
    assert_eq!(reader.payment([1; 32]).await.unwrap().unwrap(), row, "changed by a repeat or after its end");
    assert_eq!((row.status, row.preimage, row.fee_msat), (Succeeded, Some([9; 32]), Some(1)));

    // Begun again, it would be paid twice: the whole batch is refused.
    let again = Batch { kv: vec![put("x", b"1")], ..effects([payment(1, Outbound, Pending)]) };
    assert!(matches!(store.commit(&again).await, Err(CommitError::Broken(_))));
    assert!(!store.load().await.unwrap().kv.contains_key(&kv_key("x")));
    assert_eq!(reader.payment([1; 32]).await.unwrap().unwrap(), row);

    let newest = reader.payments(1, None).await.unwrap();
    assert_eq!(newest[0].payment_id, [2; 32]);
    let older = reader.payments(10, Some(newest[0].sequence)).await.unwrap();
    assert_eq!(older.iter().map(|row| row.payment_id[0]).collect::<Vec<_>>(), [1]);
    assert_eq!(reader.payment_in([2; 32], Outbound).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn money_that_comes_under_the_hash_of_an_invoice_does_not_rewrite_its_row() {
    use Direction::Inbound;
    use PaymentStatus::{Failed, Pending, Succeeded};
    let server = Server::quick().await;
    let (_leadership, store) = open(&server.config()).await;
    let reader = PgReader::new(server.config());
    let of = |hash, kind, status, amount| PaymentChange {
        amount_msat: Some(amount),
        preimage: (status == Succeeded).then_some([9; 32]),
        ..PaymentChange::of_hash([hash; 32], Inbound, kind, status)
    };
    let received = of(1, PaymentKind::Bolt11, Succeeded, 5000);
    let cancelled = of(2, PaymentKind::Bolt11, Failed, 5000);
    store.commit(&effects([received, cancelled, of(3, PaymentKind::Bolt11, Pending, 5000)])).await.unwrap();
    for (hash, status) in [(1, Succeeded), (2, Failed), (3, Pending)] {
        let row = reader.payment([hash; 32]).await.unwrap().unwrap();
        assert_eq!((row.status, row.amount_msat), (status, Some(5000)));
        let keysend = [Pending, Succeeded].map(|status| of(hash, PaymentKind::Keysend, status, 1));
        store.commit(&effects(keysend)).await.unwrap();
        assert_eq!(reader.payment([hash; 32]).await.unwrap().unwrap(), row);
    }
    // A second payment of the invoice itself does not change what the first one came to.
    let row = reader.payment([1; 32]).await.unwrap().unwrap();
    let second = [Pending, Succeeded].map(|status| of(1, PaymentKind::Bolt11, status, 7000));
    store.commit(&effects(second)).await.unwrap();
    assert_eq!(reader.payment([1; 32]).await.unwrap().unwrap(), row);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_from_before_payment_ids_can_still_commit() {
    let server = Server::quick().await;
    let (_leadership, _store) = open(&server.config()).await;
    let effect = r#"{"effect": "payment", "payment_hash": "\\x0101010101010101010101010101010101010101010101010101010101010101",
        "direction": "outbound", "kind": "bolt11", "status": "pending", "amount_msat": 5}"#;
    let sql = format!("SELECT holdfast.apply_effect('{effect}')");
    server.admin().await.batch_execute(&sql).await.unwrap();
    let row = PgReader::new(server.config()).payment([1; 32]).await.unwrap().unwrap();
    assert_eq!((row.payment_id, row.payment_hash, row.amount_msat), ([1; 32], Some([1; 32]), Some(5)));
}

#[tokio::test(flavor = "multi_thread")]
async fn effects_are_there_to_be_asked_for_and_repeats_change_nothing() {
    let mut server = Server::quick().await;
    let (_leadership, store) = open(&server.config()).await;
    let reader = PgReader::new(server.config());
    let funding = bitcoin::OutPoint::new(bitcoin::hashes::Hash::hash(b"funding"), 1);
    let (channel_id, user_channel_id) = ([4; 32], u128::MAX - 7);
    let batch = Batch {
        effects: vec![
            Effect::ChannelPending { channel_id, user_channel_id, counterparty: [3; 33], funding },
            Effect::ChannelReady { channel_id, user_channel_id },
            Effect::Forward {
                event_id: [1; 32],
                incoming_channel: channel_id,
                outgoing_channel: [5; 32],
                amount_msat: Some(10),
                fee_msat: None,
            },
            Effect::ChannelClosed {
                channel_id,
                user_channel_id,
                counterparty: Some([3; 33]),
                reason: "it said: \0\u{1f980}'; DROP TABLE".into(),
            },
            Effect::PeerAdded { node_id: [2; 33], address: "a:1".into() },
            Effect::PeerAdded { node_id: [3; 33], address: "b:1".into() },
            Effect::PeerRemoved { node_id: [2; 33] },
            Effect::PeerAdded { node_id: [3; 33], address: "b:2".into() },
            Effect::Broadcast { txid: funding.txid, raw: vec![1, 2] },
        ],
        ..Batch::default()
    };
    store.commit(&batch).await.unwrap();
    let (channels, forwards) =
        (reader.channels().await.unwrap(), reader.forwards(10, None, ForwardFilter::default()).await.unwrap());
    store.commit(&batch).await.unwrap();
    server.crash();
    server.launch().await;
    assert_eq!(reader.channels().await.unwrap(), channels, "changed by a repeat");
    assert_eq!(reader.forwards(10, None, ForwardFilter::default()).await.unwrap(), forwards, "changed by a repeat");
    assert_eq!(reader.peers().await.unwrap().into_iter().map(|peer| peer.address).collect::<Vec<_>>(), ["b:2"]);
    assert_eq!((forwards.len(), forwards[0].amount_msat, forwards[0].fee_msat), (1, Some(10), None));
    let [channel] = &channels[..] else { panic!("{channels:?}") };
    assert_eq!(
        (channel.channel_id, channel.user_channel_id, channel.state),
        (channel_id, user_channel_id, ChannelState::Closed)
    );
    assert_eq!(channel.funding, Some(funding.to_string()));
    assert_eq!(channel.close_reason.as_deref(), Some("it said: \u{fffd}\u{1f980}'; DROP TABLE"));
    assert!(channel.pending_ms.is_some() && channel.ready_ms.is_some() && channel.closed_ms.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_for_the_right_host_and_the_right_ca() {
    let key = rcgen::KeyPair::generate().unwrap();
    let ca_params = |name: &str| {
        let mut params = rcgen::CertificateParams::new(vec![]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params
    };
    let (ca_key, stranger_key) = (rcgen::KeyPair::generate().unwrap(), rcgen::KeyPair::generate().unwrap());
    let ca = ca_params("right").self_signed(&ca_key).unwrap();
    let stranger = ca_params("wrong").self_signed(&stranger_key).unwrap();
    let issuer = rcgen::Issuer::new(ca_params("right"), &ca_key);
    let certificate =
        rcgen::CertificateParams::new(vec!["127.0.0.1".into()]).unwrap().signed_by(&key, &issuer).unwrap();

    let mut server = Server::quick().await;
    let admin = server.admin().await;
    let folder = server.folder().to_path_buf();
    server.write_for_postgres("server.pem", &certificate.pem());
    server.write_for_postgres("server.key", &key.serialize_pem());
    for (file, pem) in [("ca.pem", ca.pem()), ("stranger.pem", stranger.pem())] {
        std::fs::write(folder.join(file), pem).unwrap();
    }
    for (setting, file) in [("ssl_cert_file", "server.pem"), ("ssl_key_file", "server.key")] {
        let path = folder.join(file);
        admin.batch_execute(&format!("ALTER SYSTEM SET {setting} = '{}'", path.display())).await.unwrap();
    }
    admin.batch_execute("ALTER SYSTEM SET ssl = on").await.unwrap();
    server.crash();
    server.launch().await;

    let with = |host: &str, ca: &str| PgConfig {
        host: host.into(),
        tls: PgTls::Require { ca_file: folder.join(ca) },
        ..server.config()
    };
    let good = with("127.0.0.1", "ca.pem");
    let leadership = lead(&good, "first").await;
    PgStore::open(&good, leadership.term, NODE).await.unwrap().commit(&Batch::default()).await.unwrap();
    let reader = PgReader::new(good);
    assert_eq!(reader.leadership(1).await.unwrap().term, 1);
    let encrypted = "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
        WHERE application_name LIKE 'holdfast%'";
    let admin = server.admin().await;
    assert!(admin.query_one(encrypted, &[]).await.unwrap().get::<_, bool>(0));
    for (host, ca) in [("127.0.0.1", "stranger.pem"), ("localhost", "ca.pem"), ("127.0.0.1", "absent.pem")] {
        let refused = PgReader::new(with(host, ca)).leadership(1).await;
        assert!(refused.is_err(), "{host} {ca}: {refused:?}");
    }
}
