//! Blobs, made, opened, bent and made up.

use bitcoin::secp256k1::{Secp256k1, SecretKey};
use proptest::prelude::*;

use super::*;

fn node(number: u8) -> PublicKey {
    SecretKey::from_slice(&[number; 32]).unwrap().public_key(&Secp256k1::new())
}

fn seal(key: u8, number: u8) -> Seal {
    Seal::new(&PeerStorageKey { inner: [key; 32] }, node(number))
}

/// The `number`th channel, with that peer.
fn named(number: u16, peer: u8) -> Named {
    let mut txid = [7; 32];
    txid[..2].copy_from_slice(&number.to_be_bytes());
    let funding = OutPoint { txid: Txid::from_byte_array(txid), index: number };
    let entry = Entry {
        counterparty: node(peer).to_string(),
        addresses: vec![format!("peer-{peer}.example:9735"), "192.0.2.1:9735".into()],
        funding_outpoint: funding.into_bitcoin_outpoint().to_string(),
        capacity_sat: 1_000_000 + u64::from(number),
        channel_type: if number.is_multiple_of(2) { "anchors" } else { "static-remote-key" }.into(),
        channel_keys_id: hex::encode([peer; 32]),
        written_ms: 1_700_000_000_123,
        returned_by: None,
    };
    (ChannelId::v1_from_funding_outpoint(funding), entry)
}

fn packed(peer: u8, channels: &[Named]) -> Packed {
    let channels: Vec<Channel> = channels.iter().map(|(id, entry)| Channel::of(*id, entry).unwrap()).collect();
    Packed::of(&node(peer), &channels)
}

#[test]
fn what_is_left_with_a_peer_comes_back() {
    let mut spliced = named(4, 3);
    spliced.0 = ChannelId([9; 32]);
    let channels = [named(1, 2), named(2, 2), named(3, 3), spliced.clone()];
    let blob = seal(1, 1).seal(&node(2), &packed(2, &channels), [5; 24]);
    assert_eq!(blob.len(), BLOB);

    let back = seal(1, 1).open(&node(2), &blob).unwrap();
    let back = back.channels(&node(2)).unwrap();
    assert_eq!(back.len(), 4);
    for (id, entry) in &back {
        let (_, was) = channels.iter().find(|(known, _)| known == id).unwrap();
        // Seconds are enough, and so is one address.
        let addresses = was.addresses[..1].to_vec();
        let want =
            Entry { addresses, written_ms: 1_700_000_000_000, returned_by: Some(node(2).to_string()), ..was.clone() };
        assert_eq!(*entry, want);
    }
    assert!(back[..2].iter().all(|(_, entry)| entry.counterparty == node(2).to_string()), "the peer's own come first");
}

#[test]
fn a_blob_opens_for_our_key_our_node_and_the_peer_that_was_given_it_and_only_whole() {
    let blob = seal(1, 1).seal(&node(2), &packed(2, &[named(1, 2)]), [5; 24]);
    assert!(seal(1, 1).open(&node(2), &blob).is_ok());
    assert_eq!(seal(2, 1).open(&node(2), &blob), Err(Unreadable::Seal), "another key");
    assert_eq!(seal(1, 3).open(&node(2), &blob), Err(Unreadable::Seal), "another node");
    assert_eq!(seal(1, 1).open(&node(3), &blob), Err(Unreadable::Seal), "another peer");
    for place in 0..BLOB {
        let mut bent = blob.clone();
        bent[place] ^= 1;
        assert_eq!(seal(1, 1).open(&node(2), &bent), Err(Unreadable::Seal), "byte {place}");
    }
    for length in [0, 1, NONCE + TAG, BLOB - 1] {
        assert_eq!(seal(1, 1).open(&node(2), &blob[..length]), Err(Unreadable::Length(length)));
    }
    let longer = [&blob[..], &[0; 64_507]].concat();
    assert_eq!(seal(1, 1).open(&node(2), &longer), Err(Unreadable::Length(65_531)));
}

#[test]
fn nothing_is_seen_in_a_blob() {
    let channels: Vec<Named> = (0..5).map(|number| named(number, 2)).collect();
    let (one, five) = (packed(2, &channels[..1]), packed(2, &channels));
    let (one, five) = (seal(1, 1).seal(&node(2), &one, [5; 24]), seal(1, 1).seal(&node(2), &five, [6; 24]));
    assert_eq!(one.len(), five.len());
    let again = seal(1, 1).seal(&node(2), &packed(2, &channels), [7; 24]);
    let same = five.iter().zip(&again).filter(|(a, b)| a == b).count();
    assert!(same < 30, "the same content is other bytes each time, but for {same} by chance");
    let haystack = hex::encode(&five);
    for needle in [node(1).to_string(), node(2).to_string(), "07".repeat(8), "00".repeat(4), hex::encode("peer")] {
        assert!(!haystack.contains(&needle), "{needle}");
    }
}

#[test]
fn the_peers_own_channels_have_the_room_and_each_peer_holds_others_of_the_rest() {
    let of =
        |peer: u8, count: u16| -> Vec<Named> { (0..count).map(|n| named(u16::from(peer) * 100 + n, peer)).collect() };
    let channels: Vec<Named> = (2..42).flat_map(|peer| of(peer, 1)).collect();
    let mut held = std::collections::BTreeSet::new();
    for peer in 2..42 {
        let back = packed(peer, &channels).channels(&node(peer)).unwrap();
        assert_eq!(back[0].1.counterparty, node(peer).to_string());
        assert!(back.len() >= 7, "{} fit", back.len());
        held.extend(back[1..].iter().map(|(id, _)| *id));
    }
    assert!(held.len() > 35, "{} of 40 are also with somebody else than their own peer", held.len());

    let many = [of(2, 30), of(3, 1)].concat();
    let back = packed(2, &many).channels(&node(2)).unwrap();
    assert_eq!(back.len(), 12);
    assert!(back.iter().all(|(_, entry)| entry.counterparty == node(2).to_string()));
    assert_eq!(packed(2, &many), packed(2, &many.into_iter().rev().collect::<Vec<_>>()), "the order plays no part");
}

#[test]
fn an_entry_that_is_not_as_we_write_them_is_left_out() {
    let (id, entry) = named(1, 2);
    let wrong = [
        Entry { counterparty: "05".repeat(33), ..entry.clone() },
        Entry { funding_outpoint: "none".into(), ..entry.clone() },
        Entry { funding_outpoint: format!("{}:65536", "ab".repeat(32)), ..entry.clone() },
        Entry { channel_type: "of a later version".into(), ..entry.clone() },
        Entry { channel_keys_id: "12".into(), ..entry.clone() },
    ];
    assert!(wrong.iter().all(|entry| Channel::of(id, entry).is_none()));
    let far = Entry { addresses: vec!["x".repeat(101)], counterparty: node(3).to_string(), ..entry };
    let back = packed(2, &[(id, far)]).channels(&node(2)).unwrap();
    assert!(back[0].1.addresses.is_empty());
}

proptest! {
    /// Only we can make a content that opens; should somebody else, it does no harm.
    #[test]
    fn hostile_contents_are_read_or_refused(mut bytes in proptest::collection::vec(any::<u8>(), ROOM), sane in any::<bool>()) {
        if sane {
            bytes[..3].copy_from_slice(&[VERSION, 0, CHANNEL | SAME_PEER]);
        }
        let read = Packed(bytes).channels(&node(2));
        prop_assert!(read.is_err() || read.unwrap().len() <= ROOM / 79);
    }

    /// A content that was bent in one place is refused or says something else of one channel, and never panics.
    #[test]
    fn bent_contents_are_read_or_refused(place in 0..ROOM, byte in any::<u8>(), count in 0..9_u16) {
        let channels: Vec<Named> = (0..count).map(|number| named(number, 2 + number as u8)).collect();
        let mut content = packed(2, &channels);
        content.0[place] = byte;
        let _ = content.channels(&node(2));
    }

    #[test]
    fn hostile_blobs_are_refused(blob in proptest::collection::vec(any::<u8>(), 0..2 * BLOB)) {
        prop_assert!(seal(1, 1).open(&node(2), &blob).is_err());
    }
}
