//! The places at the door, with real sockets.

use std::{io::Read, net::TcpListener};

use super::*;

const GENEROUS: Limits = Limits { in_all: 1000, from_one_address: 1000 };

/// Both ends of a connection, ours first.
fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let theirs = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    theirs.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    (listener.accept().unwrap().0, theirs)
}

fn address(n: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, n])
}

fn strangers(door: &Door, address: IpAddr) -> usize {
    door.strangers().filter(|(_, other)| *other == address).count()
}

#[test]
fn strangers_hold_so_many_places_and_keep_nobody_out() {
    let mut door = Door::new(GENEROUS);
    let (ours, mut theirs) = connection();
    let first = door.admit(address(1), &ours).unwrap();
    let (honest, _theirs) = connection();
    let honest = door.admit(address(2), &honest).unwrap();
    for _ in 0..900 {
        assert!(door.admit(address(1), &ours).is_some());
        assert!(door.strangers().count() <= HANDSHAKES);
    }
    assert_eq!(strangers(&door, address(2)), 1, "the flood is of another address");
    assert!(door.guests[&first].stranger.is_none());
    assert_eq!(theirs.read(&mut [0; 1]).unwrap(), 0, "the oldest was ended");
    // Who is known is no stranger, however many come.
    door.known(honest);
    assert!(door.admit(address(3), &ours).is_some());
    assert_eq!(strangers(&door, address(3)), 1);
}

#[test]
fn an_address_and_all_of_them_have_a_limit() {
    let (ours, _theirs) = connection();
    let mut door = Door::new(Limits { in_all: 5, from_one_address: 3 });
    let ids: Vec<_> = (0..3).map(|_| door.admit(address(1), &ours).unwrap()).collect();
    ids.iter().for_each(|id| door.known(*id));
    assert_eq!(door.admit(address(1), &ours), None);
    assert!(door.admit(address(2), &ours).is_some());
    assert!(door.admit(address(2), &ours).is_some());
    assert_eq!(door.admit(address(3), &ours), None);
    door.gone(ids[0]);
    assert!(door.admit(address(1), &ours).is_some());
}

#[test]
fn the_addresses_of_one_network_share_its_places() {
    let (ours, _theirs) = connection();
    let mut door = Door::new(Limits { in_all: 5, from_one_address: 1 });
    assert!(door.admit("2001:db8::1".parse().unwrap(), &ours).is_some());
    assert_eq!(door.admit("2001:db8::ffff:1".parse().unwrap(), &ours), None);
    assert!(door.admit("2001:db8:0:1::1".parse().unwrap(), &ours).is_some());
}

#[test]
fn who_is_turned_away_is_counted() {
    let (ours, _theirs) = connection();
    let mut door = Door::new(Limits { in_all: 0, from_one_address: 1 });
    let now = Instant::now();
    assert_eq!(door.turned_away.due(now), None);
    (0..3).for_each(|_| assert_eq!(door.admit(address(1), &ours), None));
    assert_eq!(door.turned_away.due(now), Some(3));
}
