//! How often peers may open channels with us.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use bitcoin::secp256k1::PublicKey;

use super::{
    acceptance::{Acceptance, Refusal},
    bucket::{Bucket, Rate},
};

const HOUR: Duration = Duration::from_secs(3600);
/// Refusals that are told in the log in an hour; asking costs a stranger nothing.
const TOLD: Rate = Rate { at_once: 100, within: HOUR };

/// Who has opened channels lately. In memory only: a new leader begins anew.
#[derive(Debug, Default)]
pub struct Pace {
    all: Option<Bucket>,
    peers: HashMap<PublicKey, Bucket>,
    told: Option<Bucket>,
}

impl Pace {
    /// Counts a channel of `peer` that is about to be accepted, unless it is one too many in the hour before `now`. What
    /// is refused is not counted.
    pub fn count(&mut self, policy: &Acceptance, peer: PublicKey, now: Instant) -> Result<(), Refusal> {
        let in_all = hourly(policy.max_opens_per_hour);
        let of_peer = hourly(policy.max_opens_per_hour_per_peer);
        self.peers.retain(|_, bucket| !bucket.is_full(of_peer, now));
        let all = self.all.get_or_insert_with(|| Bucket::full(in_all, now));
        let peers = &mut self.peers;
        let peer = peers.entry(peer).or_insert_with(|| Bucket::full(of_peer, now));
        match (all.has(in_all, now), peer.has(of_peer, now)) {
            (_, false) => Err(Refusal::TooOftenByPeer { max: of_peer.at_once }),
            (false, _) => Err(Refusal::TooOften { max: in_all.at_once }),
            (true, true) => {
                all.take(in_all, now);
                peer.take(of_peer, now);
                Ok(())
            }
        }
    }

    /// Counts a refusal. Whether it belongs in the log.
    pub fn tell(&mut self, now: Instant) -> bool {
        self.told.get_or_insert_with(|| Bucket::full(TOLD, now)).take(TOLD, now)
    }
}

/// So many in an hour.
fn hourly(at_once: u32) -> Rate {
    Rate { at_once, within: HOUR }
}

#[cfg(test)]
mod tests {
    use bitcoin::secp256k1::{Secp256k1, SecretKey};

    use super::*;

    fn peer(n: u8) -> PublicKey {
        PublicKey::from_secret_key(&Secp256k1::signing_only(), &SecretKey::from_slice(&[n; 32]).unwrap())
    }

    /// How many of so many requests in one moment are accepted.
    fn accepted(pace: &mut Pace, policy: &Acceptance, n: u8, requests: usize, now: Instant) -> usize {
        (0..requests).filter(|_| pace.count(policy, peer(n), now).is_ok()).count()
    }

    #[test]
    fn a_peer_opens_so_many_channels_an_hour_and_all_of_them_so_many() {
        let policy = Acceptance::default();
        let (mut pace, start) = (Pace::default(), Instant::now());
        assert_eq!(accepted(&mut pace, &policy, 1, 100, start), 10);
        assert_eq!(pace.count(&policy, peer(1), start), Err(Refusal::TooOftenByPeer { max: 10 }));
        let others: usize = (2..40).map(|n| accepted(&mut pace, &policy, n, 7, start)).sum();
        assert_eq!(others, 50);
        assert_eq!(pace.count(&policy, peer(99), start), Err(Refusal::TooOften { max: 60 }));

        // A tenth of an hour later one more of the first peer, six in all.
        let later = start + HOUR / 10;
        assert_eq!(accepted(&mut pace, &policy, 1, 100, later), 1);
        assert_eq!(accepted(&mut pace, &policy, 99, 100, later), 5);
        // However long nobody came, no more at once than in the first hour.
        assert_eq!(accepted(&mut pace, &policy, 1, 100, start + HOUR * 100), 10);
    }

    #[test]
    fn refusals_without_end_are_not_lines_without_end() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        assert_eq!((0..10_000).filter(|_| pace.tell(start)).count(), TOLD.at_once as usize);
        assert_eq!((0..10_000).filter(|_| pace.tell(start + HOUR / 10)).count(), TOLD.at_once as usize / 10);
    }

    #[test]
    fn peers_who_are_at_rest_take_no_memory_and_zero_is_none() {
        let policy = Acceptance { max_opens_per_hour: 1_000_000, ..Acceptance::default() };
        let (mut pace, start) = (Pace::default(), Instant::now());
        (1..=200).for_each(|n| assert!(pace.count(&policy, peer(n), start).is_ok()));
        assert_eq!(pace.peers.len(), 200);
        assert!(pace.count(&policy, peer(1), start + HOUR).is_ok());
        assert_eq!(pace.peers.len(), 1);

        let none = Acceptance { max_opens_per_hour: 0, ..Acceptance::default() };
        assert_eq!(Pace::default().count(&none, peer(1), start), Err(Refusal::TooOften { max: 0 }));
    }
}
