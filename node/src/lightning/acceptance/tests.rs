//! The decision against a restatement of it, and against what it may never do.

use bitcoin::secp256k1::{Secp256k1, SecretKey};
use proptest::{collection::btree_set, prelude::*, sample::select};

use super::*;

fn node_id(n: u8) -> PublicKey {
    PublicKey::from_secret_key(&Secp256k1::signing_only(), &SecretKey::from_slice(&[n; 32]).unwrap())
}

fn anchors() -> ChannelTypeFeatures {
    ChannelTypeFeatures::anchors_zero_htlc_fee_and_dependencies()
}

fn zero_conf(mut kind: ChannelTypeFeatures) -> ChannelTypeFeatures {
    kind.set_zero_conf_required();
    kind
}

fn wanted() -> Wanted {
    Wanted { peer: node_id(1), capacity_sat: 1_000_000, push_msat: 0, is_announced: true, kind: anchors() }
}

const RICH: Standing = Standing { channels: 0, channels_with_peer: 0, spendable_sat: u64::MAX, reserve_sat: 10_000 };

fn peers() -> impl Strategy<Value = BTreeSet<PublicKey>> {
    btree_set((1u8..5).prop_map(node_id), 0..3)
}

prop_compose! {
    fn policies()(
        sizes in (0u64..50, 0u64..50),
        counts in (0u32..5, 0u32..5),
        max_push_sat in 0u64..3,
        accept in any::<(bool, bool)>(),
        allowed_peers in peers(),
        zero_conf_peers in peers(),
    ) -> Acceptance {
        Acceptance {
            min_capacity_sat: sizes.0.min(sizes.1),
            max_capacity_sat: sizes.0.max(sizes.1),
            max_channels: counts.0,
            max_channels_per_peer: counts.1,
            max_push_sat,
            accept_announced: accept.0,
            accept_unannounced: accept.1,
            allowed_peers,
            zero_conf_peers,
            ..Acceptance::default()
        }
    }
}

prop_compose! {
    fn requests()(
        peer in 1u8..5,
        capacity_sat in 0u64..50,
        push_msat in select(vec![0, 1, 999, 1000, 1001, 2000, u64::MAX]),
        is_announced in any::<bool>(),
        kind in select(vec![
            anchors(),
            zero_conf(anchors()),
            ChannelTypeFeatures::only_static_remote_key(),
            zero_conf(ChannelTypeFeatures::only_static_remote_key()),
            ChannelTypeFeatures::empty(),
        ]),
    ) -> Wanted {
        Wanted { peer: node_id(peer), capacity_sat, push_msat, is_announced, kind }
    }
}

prop_compose! {
    fn standings()(
        channels in 0usize..6,
        channels_with_peer in 0usize..6,
        spendable_sat in 7_000_000u64..7_000_004,
        reserve_sat in 7_000_000u64..7_000_004,
    ) -> Standing {
        Standing { channels: channels.max(channels_with_peer), channels_with_peer, spendable_sat, reserve_sat }
    }
}

proptest! {
    #[test]
    fn a_channel_is_accepted_exactly_when_every_limit_allows_it(
        policy in policies(), wanted in requests(), now in standings()
    ) {
        let Wanted { peer, capacity_sat, push_msat, is_announced, kind } = &wanted;
        let trusted = policy.zero_conf_peers.contains(peer);
        let anchors = kind.requires_anchors_zero_fee_htlc_tx();
        let fits = (anchors || kind.requires_static_remote_key())
            && (trusted || policy.allowed_peers.is_empty() || policy.allowed_peers.contains(peer))
            && (trusted || !kind.requires_zero_conf())
            && (policy.min_capacity_sat..=policy.max_capacity_sat).contains(capacity_sat)
            && (trusted || *push_msat <= policy.max_push_sat * 1000)
            && if *is_announced { policy.accept_announced } else { policy.accept_unannounced }
            && now.channels < policy.max_channels as usize
            && now.channels_with_peer < policy.max_channels_per_peer as usize
            && (!anchors || now.spendable_sat >= now.reserve_sat);
        let decided = policy.decide(&wanted, &now);
        prop_assert_eq!(decided.is_ok(), fits, "{:?}", decided);
        if let Ok(confirmations) = decided {
            prop_assert_eq!(confirmations == Confirmations::Zero, trusted);
        }
    }

    /// What is in the wallet is nobody's business.
    #[test]
    fn a_refusal_says_why_and_tells_the_peer_nothing_of_the_wallet(
        policy in policies(), wanted in requests(), now in standings()
    ) {
        if let Err(refusal) = policy.decide(&wanted, &now) {
            let (told, logged) = (refusal.told(), refusal.to_string());
            for text in [&told, &logged] {
                prop_assert!(!text.is_empty() && !text.contains('\n'), "{}", text);
            }
            prop_assert!(!told.contains("700000"), "{}", told);
        }
    }

    /// Who is taken off the lists, or asked for more, gets no more than before.
    #[test]
    fn a_narrower_policy_accepts_nothing_new(
        policy in policies(), wanted in requests(), now in standings()
    ) {
        let narrower = [
            Acceptance { min_capacity_sat: policy.min_capacity_sat + 1, ..policy.clone() },
            Acceptance { max_capacity_sat: policy.max_capacity_sat.saturating_sub(1), ..policy.clone() },
            Acceptance { max_channels: policy.max_channels.saturating_sub(1), ..policy.clone() },
            Acceptance { max_push_sat: policy.max_push_sat.saturating_sub(1), ..policy.clone() },
            Acceptance { max_channels_per_peer: policy.max_channels_per_peer.saturating_sub(1), ..policy.clone() },
            Acceptance { accept_announced: false, ..policy.clone() },
            Acceptance { accept_unannounced: false, ..policy.clone() },
            Acceptance { zero_conf_peers: BTreeSet::new(), ..policy.clone() },
        ];
        for narrower in narrower {
            let before = policy.decide(&wanted, &now);
            if narrower.decide(&wanted, &now).is_ok() {
                prop_assert!(before.is_ok(), "{:?} {:?}", narrower, before);
            }
        }
    }
}

#[test]
fn a_channel_that_could_not_be_closed_is_not_accepted() {
    let policy = Acceptance::default();
    let with = |kind, spendable_sat, reserve_sat| {
        policy.decide(&Wanted { kind, ..wanted() }, &Standing { spendable_sat, reserve_sat, ..RICH })
    };
    assert_eq!(with(anchors(), 0, 10_000), Err(Refusal::Reserve { spendable_sat: 0, reserve_sat: 10_000 }));
    assert_eq!(with(anchors(), 10_000, 10_000), Ok(Confirmations::Awaited));
    assert!(with(anchors(), 10_000, 20_000).is_err());
    assert!(with(ChannelTypeFeatures::only_static_remote_key(), 0, 60_000).is_ok());
}

/// Whoever invents a funding transaction would otherwise leave us with money that never was, and with what LDK knows of it.
#[test]
fn nobody_gives_us_money_with_a_channel_unless_the_operator_or_trust_allows_it() {
    let gift = Wanted { push_msat: 1, ..wanted() };
    let refused = Acceptance::default().decide(&gift, &RICH);
    assert_eq!(refused, Err(Refusal::Push { push_msat: 1, max_sat: 0 }));
    assert_eq!(refused.unwrap_err().told(), "channels that push money to us are not accepted");
    let generous = Acceptance { max_push_sat: 1, ..Acceptance::default() };
    assert!(generous.decide(&Wanted { push_msat: 1000, ..wanted() }, &RICH).is_ok());
    assert!(generous.decide(&Wanted { push_msat: 1001, ..wanted() }, &RICH).is_err());
    let trusting = Acceptance { zero_conf_peers: [node_id(1)].into(), ..Acceptance::default() };
    assert!(trusting.decide(&gift, &RICH).is_ok());
}

#[test]
fn only_trusted_peers_open_channels_that_nobody_confirms() {
    let trusting = Acceptance { zero_conf_peers: [node_id(1)].into(), ..Acceptance::default() };
    for kind in [anchors(), zero_conf(anchors())] {
        let wanted = Wanted { kind, ..wanted() };
        assert_eq!(trusting.decide(&wanted, &RICH), Ok(Confirmations::Zero));
        let other = Wanted { peer: node_id(2), ..wanted };
        assert_ne!(trusting.decide(&other, &RICH), Ok(Confirmations::Zero));
    }
    let wanted = Wanted { kind: zero_conf(anchors()), ..wanted() };
    assert_eq!(Acceptance::default().decide(&wanted, &RICH), Err(Refusal::ZeroConf));
    // The wallet's reserve is kept for theirs as well.
    let poor = Standing { spendable_sat: 0, ..RICH };
    assert!(matches!(trusting.decide(&wanted, &poor), Err(Refusal::Reserve { .. })));
}

#[test]
fn a_policy_that_makes_no_sense_is_refused_by_name() {
    #[derive(Debug, Deserialize)]
    struct Config {
        #[serde(deserialize_with = "checked")]
        channels: Acceptance,
    }
    let parse = |table: &str| toml::from_str::<Config>(&format!("[channels]\n{table}")).map(|config| config.channels);
    assert_eq!(parse("").unwrap(), Acceptance::default());
    let peer = node_id(3);
    assert_eq!(parse(&format!("allowed_peers = [\"{peer}\"]")).unwrap().allowed_peers, [peer].into());
    for (table, says) in [
        ("min_capacity_sat = 5\nmax_capacity_sat = 4", "min_capacity_sat = 5 is more than max_capacity_sat = 4"),
        ("zero_conf_peers = [\"02ab\"]", "`02ab` is not a node id"),
        ("max_channels = -1", "max_channels"),
        ("max_chanels = 1", "max_chanels"),
    ] {
        let error = parse(table).unwrap_err().to_string();
        assert!(error.contains(says), "{table}: {error}");
    }
}
