//! Channels of a plain LDK node on a remote signer, over the network, with the signer killed again and again.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use holdfast_proto::identity::Role;
use holdfast_signer_client::{Destinations, RemoteKeys, announce_term};
use lightning::sign::KeysManager;

use super::{
    node::{Node, Pair},
    signer::{InProcess, Server, TERM, keys},
};

const ROUNDS: usize = 20;

#[test]
fn a_channel_lives_through_a_signer_that_does_not() {
    for anchors in [false, true] {
        let mut server = Server::start();
        let config = server.config(Duration::from_secs(60));
        let credentials = server.credentials(Role::Replica);
        announce_term(&config, &credentials, TERM).unwrap();
        let keys = RemoteKeys::connect(config, credentials, TERM, Destinations::Signer).unwrap();

        // Kills the signer somewhere in each round of payments: sooner in one, later in the next.
        let rounds = Arc::new(AtomicU64::new(0));
        let done = Arc::new(AtomicBool::new(false));
        let killer = thread::spawn({
            let (rounds, done) = (rounds.clone(), done.clone());
            move || {
                let mut kills = 0;
                while !done.load(Ordering::Relaxed) {
                    server.kill();
                    kills += 1;
                    thread::sleep(Duration::from_millis(20));
                    server.restart();
                    let round = rounds.load(Ordering::Relaxed);
                    while rounds.load(Ordering::Relaxed) == round && !done.load(Ordering::Relaxed) {
                        thread::sleep(Duration::from_millis(1));
                    }
                    thread::sleep(Duration::from_millis(3 * (kills % 8)));
                }
                (server, kills)
            }
        });

        let theirs = KeysManager::new(&[9; 32], 0, 0, true);
        let mut pair = Pair::new(Node::new(keys, anchors), Node::new(theirs, anchors));
        pair.open(1_000_000, 400_000_000);
        // Payments in both directions, several at once.
        for _ in 0..ROUNDS {
            let (a, b) = (pair.a.id(), pair.b.id());
            pair.a.pay(b, 2_000_000);
            pair.a.pay(b, 10_000);
            pair.b.pay(a, 2_000_000);
            pair.settle();
            rounds.fetch_add(1, Ordering::Relaxed);
        }
        done.store(true, Ordering::Relaxed);
        let (_server, kills) = killer.join().unwrap();
        assert!(kills >= 5, "only {kills} kills");
        let payments = 3 * ROUNDS;

        assert_eq!(pair.a.seen.sent + pair.b.seen.sent, payments);
        assert_eq!(pair.a.seen.claimed + pair.b.seen.claimed, payments);
        assert_eq!(pair.a.seen.failed + pair.b.seen.failed, 0);
        assert!(pair.a.seen.closed.is_empty() && pair.b.seen.closed.is_empty());

        close(&mut pair);
    }
}

#[test]
fn a_peer_may_open_the_channel() {
    let signer = InProcess::new();
    let keys = keys(&signer);
    let theirs = KeysManager::new(&[9; 32], 0, 0, true);
    // Here the first holder commitment is validated before the signer has seen the channel's parameters.
    let mut pair = Pair::new(Node::new(theirs, true), Node::new(keys, true));
    pair.open(1_000_000, 400_000_000);
    let (a, b) = (pair.a.id(), pair.b.id());
    pair.a.pay(b, 2_000_000);
    pair.b.pay(a, 1_000_000);
    pair.settle();
    assert_eq!((pair.a.seen.sent, pair.b.seen.sent), (1, 1));
    let calls = signer.calls();
    assert_eq!(calls.iter().filter(|call| **call == "register_funding").count(), 1);
    close(&mut pair);
}

/// Cooperatively, with one transaction that both sides agree on.
fn close<A: super::node::Keys, B: super::node::Keys>(pair: &mut Pair<A, B>) {
    let channel = pair.a.manager.list_channels()[0].channel_id;
    pair.a.mempool.take();
    pair.b.mempool.take();
    pair.a.manager.close_channel(&channel, &pair.b.id()).unwrap();
    pair.settle();
    let (ours, theirs) = (pair.a.mempool.take(), pair.b.mempool.take());
    assert_eq!(ours.len(), 1);
    assert_eq!(ours, theirs);
    assert_eq!((pair.a.seen.closed.len(), pair.b.seen.closed.len()), (1, 1));
}

#[test]
fn a_payment_asks_for_what_it_must_and_no_more() {
    let signer = InProcess::new();
    let keys = keys(&signer);
    let theirs = KeysManager::new(&[9; 32], 0, 0, true);
    let mut pair = Pair::new(Node::new(keys, true), Node::new(theirs, true));
    pair.open(1_000_000, 400_000_000);
    signer.calls();
    let b = pair.b.id();
    pair.a.pay(b, 2_000_000);
    pair.settle();
    let mut calls = signer.calls();
    // One in sixteen points is a call, for sixteen.
    calls.retain(|call| *call != "get_per_commitment_points");
    calls.sort_unstable();
    // Two commitments on each side: one with the HTLC, one without it.
    let each = ["release_commitment_secret", "sign_counterparty_commitment", "validate_counterparty_revocation"];
    let expected: Vec<_> = each.into_iter().chain(["validate_holder_commitment"]).flat_map(|call| [call; 2]).collect();
    assert_eq!(calls, expected);

    let a = pair.a.id();
    pair.b.pay(a, 2_000_000);
    pair.settle();
    let ecdh = signer.calls().into_iter().filter(|call| *call == "ecdh").count();
    assert_eq!(ecdh, 1, "an onion is peeled once");
}
