use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::custody::prove_identity;

struct InMemory {
    seed: Seed,
    identity: Arc<SeedIdentity>,
    in_token: bool,
}

impl InMemory {
    fn new(byte: u8) -> Self {
        let seed = Zeroizing::new([byte; 32]);
        let identity = Arc::new(SeedIdentity::new(&seed).unwrap());
        Self { seed, identity, in_token: false }
    }
}

impl Custody for InMemory {
    fn backend(&self) -> &'static str {
        "file"
    }

    fn identity(&self) -> Arc<dyn NodeIdentity> {
        self.identity.clone()
    }

    fn identity_in_token(&self) -> bool {
        self.in_token
    }

    fn unseal(&self) -> Result<Seed, CustodyError> {
        Ok(self.seed.clone())
    }

    fn self_test(&self) -> Result<(), CustodyError> {
        prove_identity(&*self.identity)
    }
}

fn shares(custody: &InMemory, threshold: u8, count: u8) -> Vec<Share> {
    split(custody, Network::Regtest, Plan::new(threshold, count).unwrap(), 1_795_252_393).unwrap()
}

fn lines(share: &Share) -> Vec<String> {
    share.to_text().lines().filter(|line| line.starts_with(text::PREFIX)).map(Into::into).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Any k shares, in any order, after their way over paper, and no fewer.
    #[test]
    fn enough_shares_give_the_seed_and_fewer_do_not(
        byte in 1u8..,
        (threshold, count) in (2u8..=9).prop_flat_map(|count| (2..=count, Just(count))),
        order in any::<prop::sample::Index>(),
        rotate in any::<prop::sample::Index>(),
    ) {
        let custody = InMemory::new(byte);
        let shares = shares(&custody, threshold, count);
        let mut shares: Vec<_> = shares.iter().map(|share| Share::parse(&share.to_text()).unwrap()).collect();
        let by = rotate.index(shares.len());
        shares.rotate_left(by);
        let last = shares.len() - 1;
        shares.swap(order.index(last), last);
        for given in 0..shares.len() {
            let result = join(&shares[..given]);
            match given {
                0 => prop_assert_eq!(result, Err(JoinError::None)),
                _ if given >= threshold.into() => prop_assert_eq!(*result.unwrap(), *custody.seed),
                _ => {
                    let Err(JoinError::TooFew { given: counted, needed, .. }) = result else { panic!("{given} shares") };
                    prop_assert_eq!((counted, needed), (given, threshold.into()));
                }
            }
        }
        prop_assert!(gives_back(&shares, &custody.seed).unwrap());
    }

    /// One wrong character is found, in its line.
    #[test]
    fn a_slip_of_the_pen_is_found_in_its_line(line in 0usize..6, at in any::<prop::sample::Index>(), to in any::<prop::sample::Index>()) {
        const ALPHABET: &[u8] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";
        let share = shares(&InMemory::new(7), 2, 2).remove(0);
        let mut lines = lines(&share);
        let mut wrong = lines[line].clone().into_bytes();
        let at = 8 + at.index(wrong.len() - 8);
        let to = ALPHABET[to.index(ALPHABET.len())];
        prop_assume!(wrong[at] != to);
        wrong[at] = to;
        lines[line] = String::from_utf8(wrong).unwrap();
        match Share::parse(&lines.join("\n")).map(|_| ()) {
            Err(ShareError::Line { line: named, .. }) => prop_assert_eq!(named, line + 1),
            other => prop_assert!(false, "{:?}", other),
        }
    }

    /// Bytes with good checksums that the node did not sign.
    #[test]
    fn a_changed_bit_is_no_share(bit in 0..share::LENGTH * 8) {
        let share = shares(&InMemory::new(7), 2, 2).remove(0);
        let mut bytes = text::decode(&share.to_text()).unwrap();
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(Share::parse(&text::encode(bytes.as_slice())).is_err());
    }

    #[test]
    fn no_text_is_taken_for_a_share(text in any::<String>()) {
        prop_assert!(Share::parse(&text).is_err());
    }
}

#[test]
fn lines_may_come_in_any_order_in_capitals_and_twice() {
    let custody = InMemory::new(7);
    let shares = shares(&custody, 2, 3);
    let mut shaped = lines(&shares[0]);
    shaped.reverse();
    shaped.push(shaped[0].clone());
    let shaped: Vec<_> = shaped.iter().map(|line| format!("  {}\r\n\n# a note", line.to_uppercase())).collect();
    let typed = Share::parse(&shaped.join("\n")).unwrap();
    assert_eq!(*join(&[typed, shares[2].clone()]).unwrap(), *custody.seed);

    let mut spaced = lines(&shares[0]);
    spaced[2].insert(30, ' ');
    assert!(Share::parse(&spaced.join("\n")).is_ok());
}

#[test]
fn missing_and_foreign_lines_are_named() {
    let custody = InMemory::new(7);
    let shares = shares(&custody, 2, 3);
    let (first, second) = (lines(&shares[0]), lines(&shares[1]));
    let parse = |lines: &[String]| Share::parse(&lines.join("\n")).map(|_| ()).unwrap_err();
    assert_eq!(parse(&[]), ShareError::NoLines);
    assert_eq!(parse(&first[..5]), ShareError::Missing(6));
    assert_eq!(parse(&[&first[..1], &first[2..]].concat()), ShareError::Missing(2));
    assert_eq!(parse(&[&first[..], &second[5..]].concat()), ShareError::Contradiction(6));
    // A line of another share, with its checksum right: only the signature tells.
    let node_id = custody.identity().public_key();
    assert_eq!(parse(&[&first[..5], &second[5..]].concat()), ShareError::NotAuthentic(node_id));
    assert!(matches!(parse(&["bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4".into()]), ShareError::Line { line: 1, .. }));
}

#[test]
fn shares_that_do_not_belong_together_are_refused() {
    let custody = InMemory::new(7);
    let (one, two) = (shares(&custody, 2, 3), shares(&custody, 2, 3));
    let other_node = shares(&InMemory::new(8), 2, 3);
    assert!(matches!(join(&[one[0].clone(), two[1].clone()]), Err(JoinError::Mixed { .. })));
    assert!(matches!(join(&[one[0].clone(), other_node[1].clone()]), Err(JoinError::Mixed { .. })));
    assert_eq!(join(&[one[0].clone(), one[0].clone()]), Err(JoinError::Twice { index: 1 }));
}

#[test]
fn a_token_s_identity_is_not_in_the_backup() {
    let custody = InMemory { in_token: true, ..InMemory::new(7) };
    let shares = shares(&custody, 2, 2);
    assert!(shares[0].to_text().contains("NOT in this backup"));
    assert_eq!(join(&shares), Err(JoinError::IdentityInToken(custody.identity().public_key())));
    let (seed, node_id) = join_as_another_node(&shares).unwrap();
    assert_eq!((*seed, node_id), (*custody.seed, SeedIdentity::new(&custody.seed).unwrap().public_key()));
    assert!(gives_back(&shares, &custody.seed).unwrap());
}

#[test]
fn plans_that_would_protect_nothing_are_refused() {
    for (threshold, shares) in [(0, 0), (0, 3), (1, 1), (1, 3), (4, 3)] {
        assert!(Plan::new(threshold, shares).is_err(), "{threshold} of {shares}");
    }
    for (threshold, shares) in [(2, 2), (3, 5), (255, 255)] {
        assert!(Plan::new(threshold, shares).is_ok());
    }
    let custody = InMemory::new(7);
    assert_eq!(*join(&shares(&custody, 255, 255)).unwrap(), *custody.seed);
}

#[test]
fn no_share_shows_the_seed_and_each_says_what_it_is() {
    let custody = InMemory::new(7);
    for (index, share) in (1..).zip(shares(&custody, 3, 5)) {
        let text = share.to_text();
        assert!(text.starts_with(&format!("# Share {index} of 5 ")) && text.contains("Any 3 shares"));
        assert!(text.contains(&custody.identity().public_key().to_string()) && text.contains("2026-11-21T09:13:13Z"));
        assert!(!text.contains(&hex::encode(*custody.seed)));
        assert!(text.lines().all(|line| line.len() <= 160));
    }
}
