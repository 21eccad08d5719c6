use super::super::{
    outputs::Closing,
    record::{Ours, Search},
};
use super::*;

fn wire(channel: u8) -> v1::ChannelBackupEntry {
    v1::ChannelBackupEntry {
        channel_id: hex::encode([channel; 32]),
        counterparty: "02eec7245d6b7d2ccb30380bfbe2a3648cd7a942653f5aa340edcea1f283686619".into(),
        addresses: vec!["peer.example:9735".into()],
        funding_outpoint: format!("{}:1", hex::encode([channel; 32])),
        capacity_sat: 100_000,
        channel_type: "anchors".into(),
        channel_keys_id: "11".repeat(32),
        ..Default::default()
    }
}

fn named(channel: u8) -> Named {
    Named::parse(&wire(channel)).unwrap()
}

fn recovery() -> Recovery {
    Recovery::new(named(1).entry, 0, 1)
}

fn close(takes: &[(Takes, bool)], given: bool) -> Close {
    let ours = |(vout, (takes, swept)): (u32, &(Takes, bool))| Ours {
        vout,
        value_sat: 5,
        takes: *takes,
        sweep: swept.then(|| "ef".repeat(32).parse().unwrap()),
    };
    Close {
        transaction: String::new(),
        txid: "ab".repeat(32).parse().unwrap(),
        height: 100,
        block: "cd".repeat(32).parse().unwrap(),
        how: Closing::Commitment,
        outputs: (0..).zip(takes).map(ours).collect(),
        given,
    }
}

fn field(refused: Result<impl Sized, Error>) -> String {
    match refused {
        Err(Error::Misuse { field, .. }) => field,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("not refused"),
    }
}

#[test]
fn the_backup_of_another_node_or_network_is_refused() {
    let request = |node_id: &str, network: &str| v1::RecoverChannelsRequest {
        node_id: node_id.into(),
        network: network.into(),
        ..Default::default()
    };
    assert!(check_whose(&request("03aa", "regtest"), "03aa", "regtest").is_ok());
    assert_eq!(field(check_whose(&request("03bb", "regtest"), "03aa", "regtest")), "node_id");
    assert_eq!(field(check_whose(&request("", "regtest"), "03aa", "regtest")), "node_id");
    assert_eq!(field(check_whose(&request("03aa", "bitcoin"), "03aa", "regtest")), "network");
}

#[test]
fn entries_are_taken_all_or_none_and_each_once() {
    assert_eq!(parse(&[wire(1), wire(2)]).unwrap().len(), 2);
    assert_eq!(field(parse(&[wire(1), wire(2), wire(1)])), "channels.channel_id");
    assert_eq!(
        field(parse(&[wire(1), v1::ChannelBackupEntry { capacity_sat: 0, ..wire(2) }])),
        "channels.capacity_sat"
    );
    assert_eq!(field(parse(&vec![wire(1); AT_ONCE + 1])), "channels");
}

#[test]
fn a_channel_that_the_database_has_is_left_alone() {
    let (by_id, by_funding) = (named(1), named(2));
    let live = Live { channels: [by_id.channel].into(), fundings: [by_funding.funding].into() };
    for known in [by_id, by_funding] {
        assert!(live.refuses(&known).is_some_and(|why| why.contains("the database has this channel")));
    }
    assert_eq!(live.refuses(&named(3)), None);
}

#[test]
fn the_same_entry_again_changes_nothing_and_a_better_one_counts_until_something_is_found() {
    assert_eq!(begin(None, &named(1)), Begin::With(named(1).entry));
    let mut was = recovery();
    assert_eq!(begin(Some(&was), &named(1)), Begin::Nothing);
    let elsewhere = Named::parse(&v1::ChannelBackupEntry { addresses: vec!["new:1".into()], ..wire(1) }).unwrap();
    let Begin::With(entry) = begin(Some(&was), &elsewhere) else { panic!("the new address is not taken") };
    assert_eq!(entry.addresses, ["new:1", "peer.example:9735"]);
    let other_keys = Named::parse(&v1::ChannelBackupEntry { channel_keys_id: "22".repeat(32), ..wire(1) }).unwrap();
    assert_eq!(begin(Some(&was), &other_keys), Begin::With(other_keys.entry.clone()));
    was.close = Some(close(&[], true));
    assert_eq!(begin(Some(&was), &other_keys), Begin::With(other_keys.entry.clone()));
    was.close = Some(close(&[(Takes::Sweeper, false)], false));
    assert!(matches!(begin(Some(&was), &other_keys), Begin::Refuse(_)));
    assert_eq!(begin(Some(&was), &elsewhere), Begin::Nothing);
}

#[test]
fn each_state_says_what_it_waits_for() {
    let seen = |connected, asked| Seen { connected, asked, height: 103, trouble: None };
    let says = |recovery: &Recovery, seen: &Seen, state: &str, words: &str| {
        let (is, detail) = describe(recovery, seen);
        assert!(is == state && detail.contains(words), "{is}: {detail}");
    };
    let mut recovery = recovery();
    says(&recovery, &seen(false, false), "waiting", "trying peer.example:9735");
    says(&recovery, &seen(true, false), "connected", "has not resumed");
    says(&recovery, &seen(false, true), "asked", "close it by force");
    recovery.search = Some(Search { top: 90, next: 70 });
    says(&recovery, &seen(true, true), "searching", "at block 70");
    (recovery.search, recovery.unspent_through) = (None, Some(90));
    says(&recovery, &seen(true, true), "not-found", "and the entry right");
    recovery.seen = true;
    says(&recovery, &seen(true, true), "asked", "told");
    recovery.taken_back = Some(String::new());
    says(&recovery, &seen(true, true), "taken-back", "handed to the network again");
    recovery.taken_back = None;
    let away = Seen { trouble: Some("bitcoind did not answer".into()), ..seen(false, false) };
    says(&recovery, &away, "waiting", "bitcoind did not answer");

    for (takes, given, state, words) in [
        (&[][..], false, "nothing", "no output for the entry's keys"),
        (&[(Takes::Sweeper, false)], false, "closed", "4 of 6"),
        (&[(Takes::Sweeper, false), (Takes::Wallet, false)], true, "sweeping", "on its way"),
        (&[(Takes::Sweeper, true), (Takes::Wallet, false)], true, "recovered", "is in the wallet"),
        (&[(Takes::Nobody, false)], true, "recovered", "swept before"),
    ] {
        recovery.close = Some(close(takes, given));
        says(&recovery, &seen(false, false), state, words);
    }
    recovery.close = Some(Close { how: Closing::OtherKeys, ..close(&[], true) });
    says(&recovery, &seen(false, false), "nothing", "not this channel's");
    recovery.close = Some(Close { how: Closing::Cooperative, ..close(&[], true) });
    says(&recovery, &seen(false, false), "nothing", "wallet rescan");
}
