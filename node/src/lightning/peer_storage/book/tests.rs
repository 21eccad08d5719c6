//! The book, told what happens and when.

use bitcoin::secp256k1::{Secp256k1, SecretKey};
use lightning::ln::types::ChannelId;

use super::*;
use crate::lightning::channel_backup::Entry;

fn node(number: u8) -> PublicKey {
    SecretKey::from_slice(&[number; 32]).unwrap().public_key(&Secp256k1::new())
}

fn named(number: u8, peer: u8) -> Named {
    let entry = Entry { counterparty: node(peer).to_string(), addresses: vec![], ..Entry::example() };
    (ChannelId([number; 32]), entry)
}

/// Channels with these peers, numbered from 1.
fn content(peers: &[u8]) -> Content {
    let named = peers.iter().zip(1..).map(|(peer, number)| named(number, *peer));
    let channels = named.map(|(id, entry)| Channel::of(id, &entry).unwrap()).collect();
    Content { channels, peers: peers.iter().map(|peer| node(*peer)).collect() }
}

/// One whose database holds channels with these peers, since commit 0.
fn book(peers: &[u8]) -> Book {
    let mut book = Book::default();
    book.changed(content(peers), 0);
    book
}

fn sent_to(book: &mut Book, committed: u64, now: Instant) -> Vec<PublicKey> {
    book.due(committed, now).into_iter().map(|(peer, _)| peer).collect()
}

/// A peer that has resumed its channels and gave nothing back.
fn resumed(book: &mut Book, peer: u8, now: Instant) {
    book.connected(node(peer), true, now);
    book.heard(&node(peer));
}

#[test]
fn a_peer_with_a_channel_is_sent_the_backup_once() {
    let (mut book, now) = (book(&[2]), Instant::now());
    resumed(&mut book, 2, now);
    assert_eq!(sent_to(&mut book, 0, now), [node(2)]);
    assert!(book.is_held_by(&node(2)));
    assert!(sent_to(&mut book, 1, now + PAUSE * 2).is_empty());

    // What a connection lost is sent on the next one.
    book.disconnected(&node(2));
    assert!(!book.is_held_by(&node(2)));
    resumed(&mut book, 2, now);
    assert_eq!(sent_to(&mut book, 1, now), [node(2)]);
}

#[test]
fn who_keeps_nothing_or_has_no_channel_is_sent_nothing() {
    let (mut book, now) = (book(&[2]), Instant::now());
    book.connected(node(2), false, now);
    book.heard(&node(2));
    resumed(&mut book, 3, now);
    assert!(sent_to(&mut book, 0, now + PAUSE).is_empty());
    // A channel makes the difference.
    book.changed(content(&[2, 3]), 1);
    assert_eq!(sent_to(&mut book, 1, now + PAUSE), [node(3)]);
}

#[test]
fn p2_what_is_not_committed_is_sent_to_nobody() {
    let (mut book, now) = (book(&[2]), Instant::now());
    resumed(&mut book, 2, now);
    book.changed(content(&[2, 3]), 5);
    assert!(sent_to(&mut book, 4, now).is_empty(), "commit 5 is not done");
    let sent = book.due(5, now);
    let (peer, packed) = &sent[0];
    assert_eq!((sent.len(), peer), (1, &node(2)));
    assert_eq!(packed.channels(peer).unwrap().len(), 2);
}

#[test]
fn changes_are_sent_and_not_more_often_than_peers_take_them() {
    let (mut book, now) = (book(&[2]), Instant::now());
    resumed(&mut book, 2, now);
    assert_eq!(sent_to(&mut book, 0, now), [node(2)]);
    book.changed(content(&[2]), 1);
    assert!(sent_to(&mut book, 1, now + PAUSE).is_empty(), "nothing changed");
    book.changed(content(&[2, 3]), 2);
    assert!(sent_to(&mut book, 2, now + PAUSE / 2).is_empty(), "too soon");
    book.changed(content(&[2, 3, 4]), 3);
    let sent = book.due(3, now + PAUSE);
    assert_eq!(sent[0].1.channels(&node(2)).unwrap().len(), 3, "all changes at once");
}

#[test]
fn nothing_is_left_with_a_peer_that_may_still_give_something_back() {
    let (mut book, now) = (book(&[2]), Instant::now());
    book.connected(node(2), true, now);
    assert!(sent_to(&mut book, 0, now + SILENCE / 2).is_empty());
    assert_eq!(sent_to(&mut book, 0, now + SILENCE), [node(2)], "it is silent");
}

#[test]
fn what_came_back_is_not_replaced_before_it_is_judged_and_committed() {
    let (mut book, now) = (book(&[2]), Instant::now());
    resumed(&mut book, 2, now);
    assert!(book.expects(&node(2)));
    // Channel 1 is known, channel 9 is not.
    let old = Packed::of(&node(2), &[]);
    assert!(book.gave_back(&node(2), old.clone(), vec![named(1, 2), named(9, 2)]));
    assert!(!book.expects(&node(2)), "once a connection");
    assert!(sent_to(&mut book, 0, now + PAUSE).is_empty());
    assert_eq!(book.take_unknown(), [(node(2), vec![named(9, 2)])]);
    assert!(book.take_unknown().is_empty());
    assert!(sent_to(&mut book, 0, now + PAUSE).is_empty());
    book.judged(&node(2));
    assert_eq!(sent_to(&mut book, 0, now + PAUSE), [node(2)]);

    // A verdict on what an earlier connection gave back is none on this one's.
    book.disconnected(&node(2));
    resumed(&mut book, 2, now);
    assert!(book.gave_back(&node(2), old, vec![named(9, 2)]));
    book.judged(&node(2));
    assert!(sent_to(&mut book, 0, now).is_empty());
}

#[test]
fn a_peer_that_gives_back_the_newest_is_not_sent_it_again() {
    let (mut book, now) = (book(&[2]), Instant::now());
    resumed(&mut book, 2, now);
    let (_, newest) = book.due(0, now).pop().unwrap();
    book.disconnected(&node(2));
    resumed(&mut book, 2, now);
    assert!(!book.gave_back(&node(2), newest, vec![named(1, 2)]), "nothing is unknown");
    assert!(sent_to(&mut book, 0, now + PAUSE).is_empty());
    assert!(book.is_held_by(&node(2)));
}

#[test]
fn rubbish_is_replaced() {
    let (mut book, now) = (book(&[2]), Instant::now());
    book.connected(node(2), true, now);
    book.gave_rubbish(&node(2));
    assert!(!book.expects(&node(2)));
    assert_eq!(sent_to(&mut book, 0, now), [node(2)]);
    // Nobody is there who could give anything back.
    assert!(!book.expects(&node(3)));
    assert!(!book.gave_back(&node(3), Packed::of(&node(3), &[]), vec![named(9, 3)]));
}

#[test]
fn many_peers_are_sent_theirs_a_few_at_a_time() {
    let peers: Vec<u8> = (2..42).collect();
    let (mut book, now) = (book(&peers), Instant::now());
    for peer in &peers {
        resumed(&mut book, *peer, now);
    }
    let counts: Vec<usize> = (0..4).map(|_| book.due(0, now).len()).collect();
    assert_eq!(counts, [16, 16, 8, 0]);
}
