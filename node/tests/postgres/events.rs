//! The log of what happened: once, in order, with the state, and never behind a reader's back.

use std::time::Duration;

use holdfast_node::store::batch::{Direction, PaymentChange, PaymentKind, PaymentStatus};
use holdfast_node::store::postgres::{EventRow, PgConfig, PgReader, PgStore};
use holdfast_node::store::{Batch, CommitError, Effect, Store};
use tokio::time::timeout;

use crate::proxy::Proxy;
use crate::server::{NODE, Server, lead, open, until};
use crate::store::payment;

const IN: Direction = Direction::Inbound;
const OUT: Direction = Direction::Outbound;

fn batch(effects: impl IntoIterator<Item = Effect>) -> Batch {
    Batch { effects: effects.into_iter().collect(), ..Batch::default() }
}

fn paid(hash: u8, direction: Direction, status: PaymentStatus) -> Effect {
    Effect::Payment(payment(hash, direction, status))
}

/// All events after `after`, as "topic event", in pages of three.
async fn read(reader: &PgReader, after: u64) -> Vec<EventRow> {
    let mut all: Vec<EventRow> = Vec::new();
    loop {
        let after = all.last().map_or(after, |event| event.sequence);
        let (_, page) = reader.events(after, 3).await.unwrap();
        if page.is_empty() {
            return all;
        }
        all.extend(page);
    }
}

fn names(events: &[EventRow]) -> Vec<String> {
    events.iter().map(|event| format!("{} {}", event.topic, event.event)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_to_payments_channels_forwards_transactions_and_leaders_is_told_once_and_in_order() {
    use PaymentStatus::{Accepted, Failed, Pending, Succeeded};
    let server = Server::quick().await;
    let (leadership, store) = open(&server.config()).await;
    let reader = PgReader::of_primary(server.config());
    let commit = async |effects: Vec<Effect>| store.commit(&batch(effects)).await.unwrap();

    commit(vec![paid(1, IN, Pending), paid(2, OUT, Pending)]).await;
    commit(vec![paid(1, IN, Accepted), paid(2, OUT, Failed)]).await;
    // What changes nothing is no event: the same again, or more words about the same.
    let noted = PaymentChange { label: Some("rent".into()), ..payment(2, OUT, Failed) };
    commit(vec![paid(1, IN, Accepted), Effect::Payment(noted)]).await;
    commit(vec![paid(2, OUT, Pending), paid(1, IN, Succeeded)]).await;
    commit(vec![paid(2, OUT, Succeeded), paid(1, IN, Succeeded)]).await;
    // One that never was pending.
    commit(vec![paid(3, OUT, Failed)]).await;
    let told = read(&reader, 0).await;
    assert_eq!(
        names(&told),
        [
            "leader elected",
            "payment created",
            "payment created",
            "payment held",
            "payment failed",
            "payment pending",
            "payment succeeded",
            "payment succeeded",
            "payment created",
            "payment failed",
        ]
    );
    assert!(told.is_sorted_by(|a, b| a.sequence < b.sequence));
    let of = |hash: u8| hex::encode([hash; 32]);
    let whose: Vec<_> = told[1..].iter().map(|event| event.subject["payment_id"].as_str().unwrap()).collect();
    assert_eq!(whose, [1, 2, 1, 2, 2, 1, 2, 3, 3].map(of));
    assert_eq!(told[5].subject["label"], "rent");
    assert_eq!((&told[0].subject["term"], &told[0].subject["replica"]), (&1.into(), &"first".into()));

    let last = told.last().unwrap().sequence;
    let (channel_id, user_channel_id) = ([7; 32], 8);
    let ready = Effect::ChannelReady { channel_id, user_channel_id };
    let closed =
        |reason: &str| Effect::ChannelClosed { channel_id, user_channel_id, counterparty: None, reason: reason.into() };
    let pending = Effect::ChannelPending {
        channel_id,
        user_channel_id,
        counterparty: [2; 33],
        funding: bitcoin::OutPoint::null(),
    };
    let broadcast = || Effect::Broadcast { txid: bitcoin::hashes::Hash::all_zeros(), raw: vec![1, 2, 3] };
    let forward = || Effect::Forward {
        event_id: [9; 32],
        incoming_channel: [1; 32],
        outgoing_channel: channel_id,
        amount_msat: Some(1000),
        fee_msat: None,
    };
    commit(vec![pending.clone(), broadcast()]).await;
    commit(vec![ready.clone(), pending, broadcast(), forward(), forward()]).await;
    commit(vec![closed("the first reason"), ready, closed("another")]).await;
    leadership.release().await;
    let _second = lead(&server.config(), "second").await;
    let told = read(&reader, last).await;
    assert_eq!(
        names(&told),
        [
            "channel pending",
            "onchain broadcast",
            "channel ready",
            "forward settled",
            "channel closed",
            "leader released",
            "leader elected",
        ]
    );
    assert_eq!(told[4].subject["close_reason"], "the first reason");
    assert_eq!(told[3].subject.get("fee_msat"), None);
    assert_eq!((&told[5].subject["replica"], &told[6].subject["replica"]), (&"first".into(), &"second".into()));
}

/// An event is there if and only if its batch is.
#[tokio::test(flavor = "multi_thread")]
async fn p2_p3_a_repeated_batch_tells_once_and_a_fenced_or_refused_one_nothing() {
    let server = Server::quick().await;
    let proxy = Proxy::to(server.port).await;
    let first = lead(&server.config(), "first").await;
    let through = PgConfig { port: proxy.port, ..server.config() };
    let store = PgStore::open(&through, first.term, NODE).await.unwrap();
    let reader = PgReader::of_primary(server.config());
    for hash in 1..=3 {
        proxy.cut_next_answer();
        let batch = batch([paid(hash, OUT, PaymentStatus::Pending)]);
        timeout(Duration::from_secs(20), store.commit(&batch)).await.unwrap().unwrap();
        assert!(proxy.has_cut());
    }
    let told = names(&read(&reader, 0).await);
    assert_eq!(told, ["leader elected", "payment created", "payment created", "payment created"]);
    // What it came to goes with the batch that cannot be written.
    let key = |payment_id| Effect::PaymentKey { key: "k".into(), request: [1; 32], payment_id };
    store.commit(&batch([key([1; 32])])).await.unwrap();
    let refused = store.commit(&batch([paid(4, OUT, PaymentStatus::Pending), key([4; 32])])).await;
    assert!(matches!(refused, Err(CommitError::Broken(_))), "{refused:?}");
    drop(first);
    let _second = lead(&server.config(), "second").await;
    let fenced = store.commit(&batch([paid(5, OUT, PaymentStatus::Pending)])).await;
    assert!(matches!(fenced, Err(CommitError::Fenced { .. } | CommitError::Broken(_))), "{fenced:?}");
    let after = names(&read(&reader, 0).await);
    assert_eq!((after.len(), after.last().unwrap().as_str()), (told.len() + 1, "leader elected"));
}

/// A reader who reads on from the last event that he saw must never find an earlier one later. Terms change meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn who_reads_on_while_leaders_write_misses_nothing_and_sees_nothing_twice() {
    const TERMS: u8 = 6;
    const BATCHES: u64 = 60;
    let server = Server::quick().await;
    // The schema is there before anybody reads.
    drop(lead(&server.config(), "nobody").await);
    let reader = PgReader::of_primary(server.config());
    let config = server.config();
    let writing = tokio::spawn(async move {
        let mut hash = 0u64;
        for number in 0..TERMS {
            let leadership = lead(&config, &format!("r{number}")).await;
            let store = PgStore::open(&config, leadership.term, NODE).await.unwrap();
            for _ in 0..BATCHES {
                hash += 1;
                let mut id = [0; 32];
                id[..8].copy_from_slice(&hash.to_be_bytes());
                let created = PaymentChange::of_hash(id, OUT, PaymentKind::Keysend, PaymentStatus::Pending);
                let ended = PaymentChange { status: PaymentStatus::Succeeded, ..created.clone() };
                store.commit(&batch([created, ended].map(Effect::Payment))).await.unwrap();
            }
        }
        hash
    });
    let mut cursor = 0;
    let mut seen = Vec::new();
    loop {
        let done = writing.is_finished();
        let (_, page) = reader.events(cursor, 7).await.unwrap();
        match page.last() {
            Some(last) => cursor = last.sequence,
            None if done => break,
            None => tokio::task::yield_now().await,
        }
        seen.extend(page.into_iter().filter(|event| event.topic == "payment"));
    }
    let payments = writing.await.unwrap();
    assert_eq!(payments, u64::from(TERMS) * BATCHES);
    let expected = (1..=payments).flat_map(|hash| {
        let id = hex::encode([&hash.to_be_bytes()[..], &[0; 24]].concat());
        [(id.clone(), "created".to_owned()), (id, "succeeded".to_owned())]
    });
    let seen = seen.into_iter().map(|e| (e.subject["payment_id"].as_str().unwrap().to_owned(), e.event));
    assert!(seen.eq(expected), "the events of {payments} payments are not each there once and in order");
}

/// A batch that is on its way holds its event back, and with it all that come after.
#[tokio::test(flavor = "multi_thread")]
async fn no_event_overtakes_one_that_is_not_committed() {
    let server = Server::quick().await;
    let (_leadership, store) = open(&server.config()).await;
    let reader = PgReader::of_primary(server.config());
    let mut blocker = server.admin().await;
    let admin = server.admin().await;
    store.commit(&batch([paid(1, OUT, PaymentStatus::Pending)])).await.unwrap();
    // Holds up the second of two payments in one batch, when the event of the first has its sequence already.
    let held = blocker.transaction().await.unwrap();
    held.execute("SELECT FROM holdfast.payments FOR UPDATE", &[]).await.unwrap();
    let committing = tokio::spawn(async move {
        let both = [paid(2, OUT, PaymentStatus::Pending), paid(1, OUT, PaymentStatus::Succeeded)];
        store.commit(&batch(both)).await
    });
    let waits = "SELECT EXISTS (SELECT FROM pg_stat_activity
        WHERE wait_event_type = 'Lock' AND application_name = 'holdfast-write')";
    until(&admin, waits).await;
    // Another leader comes meanwhile, and has to wait for the row.
    let raise = tokio::spawn(async move {
        let raised = "UPDATE holdfast.leadership SET released_at = now()";
        admin.execute(raised, &[]).await.map(|_| admin)
    });
    let watcher = server.admin().await;
    until(&watcher, "SELECT count(*) = 2 FROM pg_stat_activity WHERE wait_event_type = 'Lock'").await;
    assert_eq!(names(&read(&reader, 0).await), ["leader elected", "payment created"]);
    held.rollback().await.unwrap();
    timeout(Duration::from_secs(20), committing).await.unwrap().unwrap().unwrap();
    timeout(Duration::from_secs(20), raise).await.unwrap().unwrap().unwrap();
    let all = names(&read(&reader, 0).await);
    assert_eq!(all[2..], ["payment created", "payment succeeded", "leader released"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_old_is_removed_and_who_missed_it_is_told() {
    const MONTH: u64 = 30 * 86_400;
    let server = Server::quick().await;
    let (leadership, store) = open(&server.config()).await;
    let reader = PgReader::of_primary(server.config());
    for hash in 1..=9 {
        store.commit(&batch([paid(hash, OUT, PaymentStatus::Pending)])).await.unwrap();
    }
    let all = read(&reader, 0).await;
    let term = leadership.term;
    assert_eq!(reader.prune_events(term, MONTH, 100).await.unwrap(), 0);
    let old = all[4].sequence as i64;
    let admin = server.admin().await;
    admin
        .execute("UPDATE holdfast.events SET at = at - interval '31 days' WHERE sequence <= $1", &[&old])
        .await
        .unwrap();

    // P3: only the newest term removes anything.
    assert_eq!(reader.prune_events(term - 1, MONTH, 100).await.unwrap(), 0);
    assert_eq!(reader.prune_events(term + 1, MONTH, 100).await.unwrap(), 0);
    // In pieces, so that no statement takes long.
    assert_eq!(reader.prune_events(term, MONTH, 3).await.unwrap(), 3);
    assert_eq!(reader.prune_events(term, MONTH, 3).await.unwrap(), 2);
    assert_eq!(reader.prune_events(term, MONTH, 3).await.unwrap(), 0);
    let (span, page) = reader.events(0, 100).await.unwrap();
    assert_eq!(span.pruned_through, all[4].sequence);
    assert_eq!((span.newest, page), (all.last().unwrap().sequence, all[5..].to_vec()));
    // With none left, the end is still known.
    admin.execute("UPDATE holdfast.events SET at = at - interval '31 days'", &[]).await.unwrap();
    assert_eq!(reader.prune_events(term, MONTH, 100).await.unwrap(), 5);
    let span = reader.event_span().await.unwrap();
    assert_eq!((span.pruned_through, span.newest), (all.last().unwrap().sequence, all.last().unwrap().sequence));
}
