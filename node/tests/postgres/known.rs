//! Which channels the database has heard of: what a peer gives back is held against it.

use holdfast_node::store::postgres::PgReader;
use holdfast_node::store::{Batch, Effect, MonitorKey, MonitorWrite, Store};

use crate::server::{Server, open};

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_is_known_while_it_is_open_and_for_ever_after() {
    let server = Server::quick().await;
    let (_leadership, store) = open(&server.config()).await;
    let reader = PgReader::of_primary(server.config());
    assert!(reader.known_channels(&[[1; 32]]).await.unwrap().is_empty());

    let monitor = |id| MonitorWrite::Full { key: MonitorKey([id; 32]), update_id: 0, bytes: vec![] };
    let funding = bitcoin::OutPoint::new(bitcoin::hashes::Hash::hash(b"funding"), 1);
    let pending = |id| Effect::ChannelPending {
        channel_id: [id; 32],
        user_channel_id: id.into(),
        counterparty: [3; 33],
        funding,
    };
    let closed = Effect::ChannelClosed {
        channel_id: [3; 32],
        user_channel_id: 3,
        counterparty: Some([3; 33]),
        reason: "cooperative".into(),
    };
    let monitors = vec![monitor(1), monitor(2), monitor(4), MonitorWrite::Archive { key: MonitorKey([2; 32]) }];
    let effects = vec![pending(3), closed];
    store.commit(&Batch { manager: Some(vec![1]), monitors, effects, ..Batch::default() }).await.unwrap();
    // An open one with nothing but its monitor, an archived one, a closed one; 4 is not asked for, 5 never was.
    let known = reader.known_channels(&[[1; 32], [2; 32], [3; 32], [5; 32]]).await.unwrap();
    assert_eq!(known, [[1; 32], [2; 32], [3; 32]].into());
}
