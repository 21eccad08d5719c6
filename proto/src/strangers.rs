//! Those who connect and have not shown yet who they are: whom to send away when they are too many, and how to tell of them
//! without filling the log.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    time::{Duration, Instant},
};

/// What counts as one place that strangers come from: an IPv4 address, or an IPv6 network of 64 bits, since who has one
/// address of that has all of them.
pub fn origin(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        v4 => v4,
    }
}

/// Whom to send away, of connections in the order in which they came: the first one of the origin that has most.
pub fn costliest<T>(mut held: impl Iterator<Item = (T, IpAddr)> + Clone) -> Option<T> {
    let mut places = HashMap::<IpAddr, usize>::new();
    held.clone().for_each(|(_, origin)| *places.entry(origin).or_default() += 1);
    let most = places.values().copied().max()?;
    held.find(|(_, origin)| places.get(origin) == Some(&most)).map(|(id, _)| id)
}

/// Something that strangers can make happen as often as they like: all of it is counted, and told at most once a minute.
#[derive(Debug, Default)]
pub struct Tally {
    untold: u64,
    told: Option<Instant>,
}

impl Tally {
    const TOLD_EVERY: Duration = Duration::from_secs(60);

    pub fn add(&mut self) {
        self.untold += 1;
    }

    /// How many there were since this was last told, when it is time to tell it.
    pub fn due(&mut self, now: Instant) -> Option<u64> {
        let due = self.told.is_none_or(|told| now.saturating_duration_since(told) >= Self::TOLD_EVERY);
        if self.untold == 0 || !due {
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_ipv6_network_and_an_ipv4_address_are_one_origin_each() {
        for (one, other, same) in [
            ("2001:db8::1", "2001:db8::2:3", true),
            ("2001:db8::1", "2001:db8:0:1::1", false),
            ("10.0.0.1", "::ffff:10.0.0.1", true),
            ("10.0.0.1", "10.0.0.2", false),
        ] {
            assert_eq!(origin(address(one)) == origin(address(other)), same, "{one} {other}");
        }
    }

    #[test]
    fn the_oldest_of_the_origin_that_has_most_goes_first() {
        let [a, b, c] = ["10.0.0.1", "10.0.0.2", "10.0.0.3"].map(address);
        let of = |held: &[IpAddr]| costliest(held.iter().copied().enumerate());
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[a, b, c, b]), Some(1));
        assert_eq!(of(&[a, b, c]), Some(0), "the oldest of all where nobody has more than others");
    }

    #[test]
    fn all_are_counted_and_told_of_once_a_minute() {
        let (mut tally, start) = (Tally::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(tally.due(at(0)), None, "there was nothing");
        tally.add();
        assert_eq!(tally.due(at(0)), Some(1));
        (0..3).for_each(|_| tally.add());
        assert_eq!(tally.due(at(59)), None);
        assert_eq!(tally.due(at(60)), Some(3));
        assert_eq!(tally.due(at(120)), None, "told once");
    }
}
