//! Deposits, their events, and what the next leader goes on with; and the questions about forwards.

use bitcoin::{BlockHash, OutPoint, hashes::Hash};
use holdfast_node::store::batch::{Deposit, Standing};
use holdfast_node::store::postgres::{ForwardFilter, PgReader};
use holdfast_node::store::{Batch, Effect, Store};

use crate::server::{Server, open};

fn batch(effects: impl IntoIterator<Item = Effect>) -> Batch {
    Batch { effects: effects.into_iter().collect(), ..Batch::default() }
}

fn deposit(vout: u32, standing: Standing, height: Option<u32>, confirmations: u32) -> Deposit {
    Deposit {
        outpoint: OutPoint { vout, ..OutPoint::null() },
        address: "bcrt1q".into(),
        amount_sat: 5_000,
        label: None,
        standing,
        block: height.map(|height| (height, BlockHash::from_byte_array([height as u8; 32]))),
        confirmations,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deposit_s_steps_are_told_once_and_the_next_leader_loads_where_it_stands() {
    use Standing::{Confirmed, Gone, Mined, Unconfirmed};
    let server = Server::quick().await;
    let (_leadership, store) = open(&server.config()).await;
    let reader = PgReader::of_primary(server.config());
    let told = async |after: u64| {
        let events = reader.events(after, 100).await.unwrap().1.into_iter().filter(|event| event.topic == "deposit");
        events.map(|event| (event.event, event.subject["confirmations"].as_u64().unwrap())).collect::<Vec<_>>()
    };
    let newest = async || reader.event_span().await.unwrap().newest;
    let commit = async |deposits: Vec<Deposit>| {
        store.commit(&batch(deposits.into_iter().map(Effect::Deposit))).await.unwrap();
    };
    let before = newest().await;
    let seen = deposit(1, Unconfirmed, None, 0);
    let mined = Deposit { label: Some("rent".into()), ..deposit(1, Mined, Some(7), 1) };
    commit(vec![seen.clone()]).await;
    commit(vec![seen.clone(), mined.clone()]).await;
    // Another leader that tells the same again.
    commit(vec![mined.clone()]).await;
    let loaded = store.load().await.unwrap().deposits;
    assert_eq!(loaded, [Deposit { label: None, ..mined.clone() }]);
    let confirmed = deposit(1, Confirmed, Some(7), 6);
    commit(vec![confirmed.clone()]).await;
    commit(vec![deposit(1, Unconfirmed, None, 0), deposit(1, Mined, Some(8), 1)]).await;
    commit(vec![deposit(1, Unconfirmed, None, 0), deposit(1, Gone, Some(9), 0)]).await;
    commit(vec![deposit(1, Unconfirmed, None, 0)]).await;
    let step = |event: &str, confirmations| (event.to_owned(), confirmations);
    let story = [
        step("seen", 0),
        step("mined", 1),
        step("confirmed", 6),
        step("taken-back", 0),
        step("mined", 1),
        step("taken-back", 0),
        step("gone", 0),
        step("seen", 0),
    ];
    assert_eq!(told(before).await, story);
    let (_, events) = reader.events(before, 100).await.unwrap();
    assert_eq!((&events[1].subject["label"], &events[1].subject["block_height"]), (&"rent".into(), &7.into()));
    assert_eq!(events[0].subject.get("label"), None);

    // What is over is loaded no more, when the chain has gone on.
    commit(vec![deposit(2, Confirmed, Some(10), 6), deposit(3, Gone, Some(10), 0)]).await;
    commit(vec![deposit(4, Confirmed, Some(200), 6), deposit(5, Confirmed, Some(400), 6)]).await;
    let mut loaded: Vec<u32> = store.load().await.unwrap().deposits.iter().map(|known| known.outpoint.vout).collect();
    loaded.sort_unstable();
    assert_eq!(loaded, [1, 4, 5]);
}

#[tokio::test(flavor = "multi_thread")]
async fn forwards_are_found_by_time_and_channel_and_summed_up() {
    let server = Server::quick().await;
    let (_leadership, store) = open(&server.config()).await;
    let reader = PgReader::of_primary(server.config());
    let forward = |event: u8, incoming: u8, outgoing: u8, fee_msat| Effect::Forward {
        event_id: [event; 32],
        incoming_channel: [incoming; 32],
        outgoing_channel: [outgoing; 32],
        amount_msat: Some(1_000_000),
        fee_msat,
    };
    // The third is told of again, without its fee: its incoming channel has closed.
    let all = [forward(1, 1, 2, Some(10)), forward(2, 2, 3, None), forward(3, 3, 1, Some(7)), forward(3, 3, 1, None)];
    store.commit(&batch(all)).await.unwrap();
    // One an hour, the newest now.
    let aged = "UPDATE holdfast.forwards SET at = now() - make_interval(hours => 3 - sequence::integer)";
    server.admin().await.execute(aged, &[]).await.unwrap();

    let everything = ForwardFilter::default();
    let list = async |filter| reader.forwards(10, None, filter).await.unwrap();
    let rows = list(everything).await;
    assert_eq!(rows.iter().map(|row| row.fee_msat).collect::<Vec<_>>(), [Some(7), None, Some(10)]);
    let sums = async |filter| {
        let sums = reader.forward_totals(filter).await.unwrap();
        (sums.count, sums.amount_msat, sums.fee_msat)
    };
    assert_eq!(sums(everything).await, (3, 3_000_000, 17));
    let middle = rows[1].at_ms;
    let since = ForwardFilter { since_ms: Some(middle - 60_000), ..everything };
    let until = ForwardFilter { until_ms: Some(middle - 60_000), ..everything };
    assert_eq!((sums(since).await, sums(until).await), ((2, 2_000_000, 7), (1, 1_000_000, 10)));
    assert_eq!((list(since).await, list(until).await), (rows[..2].to_vec(), rows[2..].to_vec()));
    let channel = |channel: u8| ForwardFilter { channel: Some([channel; 32]), ..everything };
    assert_eq!((sums(channel(1)).await, sums(channel(2)).await), ((2, 2_000_000, 17), (2, 2_000_000, 10)));
    assert_eq!(sums(channel(9)).await, (0, 0, 0));
    let page = reader.forwards(1, Some(rows[0].sequence), channel(1)).await.unwrap();
    assert_eq!(page, rows[2..]);
}
