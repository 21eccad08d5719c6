//! The handler between two nodes of which one is made up.

use bitcoin::secp256k1::{Secp256k1, SecretKey};

use super::*;
use crate::lightning::queue::Pending;

fn node(number: u8) -> PublicKey {
    SecretKey::from_slice(&[number; 32]).unwrap().public_key(&Secp256k1::new())
}

fn storage(leaves: bool) -> PeerStorage {
    PeerStorage::new(&PeerStorageKey { inner: [1; 32] }, node(1), Arc::default(), leaves)
}

fn entry(peer: u8) -> Entry {
    Entry { counterparty: node(peer).to_string(), ..Entry::example() }
}

fn connect(storage: &PeerStorage, peer: u8, keeps: bool) {
    let mut features = InitFeatures::empty();
    if keeps {
        features.set_provide_storage_optional();
    }
    let init = Init { features, networks: None, remote_network_address: None };
    storage.peer_connected(node(peer), &init, true).unwrap();
    storage.heard(&node(peer));
}

fn commit(storage: &PeerStorage) {
    let (number, _) = Pending::take(&mut storage.queue.pending());
    storage.queue.mark_committed(number);
}

fn sent(storage: &PeerStorage) -> Vec<(PublicKey, Vec<u8>)> {
    let event = |event| match event {
        MessageSendEvent::SendPeerStorage { node_id, msg } => (node_id, msg.data),
        other => panic!("{other:?}"),
    };
    storage.get_and_clear_pending_msg_events().into_iter().map(event).collect()
}

#[test]
fn a_new_channel_is_left_with_its_peer_after_its_commit_and_given_back_to_a_node_that_lost_it() {
    let ours = storage(true);
    connect(&ours, 2, true);
    connect(&ours, 3, true);
    ours.changed(&[(ChannelId([7; 32]), entry(2))].into(), [node(2)].into());
    assert!(sent(&ours).is_empty(), "P2: it is not committed");
    commit(&ours);
    let sent_out = sent(&ours);
    let [(peer, blob)] = &sent_out[..] else { panic!("{} are sent", sent_out.len()) };
    assert_eq!((*peer, blob.len()), (node(2), 1024));
    assert!(sent(&ours).is_empty());
    assert!(ours.is_held_by(&node(2)));

    // The same keys, an empty database, and no channel with the peer.
    let fresh = storage(true);
    connect(&fresh, 2, true);
    fresh.returned(&node(2), blob);
    let [(from, channels)] = &fresh.book().take_unknown()[..] else { panic!("nothing came back") };
    assert_eq!((*from, channels[0].0, channels[0].1.capacity_sat), (node(2), ChannelId([7; 32]), 100_000));
    assert!(sent(&fresh).is_empty());
}

#[test]
fn what_others_send_is_passed_over_and_costs_nothing() {
    let ours = storage(true);
    connect(&ours, 2, true);
    ours.returned(&node(2), &[0; 65_531]);
    assert!(ours.book().take_unknown().is_empty());
    // A second one on the same connection is not even opened; nor is one of somebody who is not connected.
    let theirs = storage(true);
    ours.returned(&node(2), &theirs.seal.seal(&node(2), &blob::Packed::of(&node(2), &[]), [0; 24]));
    ours.returned(&node(3), &[]);
    assert!(!ours.is_held_by(&node(2)) && !ours.is_held_by(&node(3)));
}

#[test]
fn an_operator_who_wants_nothing_left_is_heeded_and_what_comes_back_is_taken_all_the_same() {
    let (leaving, ours) = (storage(true), storage(false));
    for storage in [&leaving, &ours] {
        connect(storage, 2, true);
        storage.changed(&[(ChannelId([7; 32]), entry(2))].into(), [node(2)].into());
        commit(storage);
    }
    assert!(sent(&ours).is_empty());
    let (_, blob) = sent(&leaving).remove(0);
    let fresh = storage(false);
    connect(&fresh, 2, true);
    fresh.returned(&node(2), &blob);
    assert_eq!(fresh.book().take_unknown().len(), 1);
}
