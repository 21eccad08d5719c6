//! What to say of a failure that lasts, so that neither its start, its length nor its end is missed, and no log is flooded.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

const AGAIN_AFTER: Duration = Duration::from_secs(30);

/// Something that is away for a while: worth a line at the first failure, one each half a minute while it lasts, and one
/// when it is over. What fails now and then within half a minute is told once.
#[derive(Debug, Default)]
pub struct Outage(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// When it began.
    since: Option<Instant>,
    /// The last line of a failure.
    told: Option<Instant>,
    /// Whether the end is worth a line.
    to_end: bool,
}

impl Outage {
    /// It failed; whether to say so.
    pub fn failed(&self) -> bool {
        self.failed_at(Instant::now())
    }

    /// It works; how long it did not, if that is to be said.
    pub fn over(&self) -> Option<Duration> {
        self.over_at(Instant::now())
    }

    fn failed_at(&self, now: Instant) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.since.get_or_insert(now);
        let due = state.told.is_none_or(|told| now.duration_since(told) >= AGAIN_AFTER);
        if due {
            state.told = Some(now);
            state.to_end = true;
        }
        due
    }

    fn over_at(&self, now: Instant) -> Option<Duration> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let lasted = state.since.take().map(|since| now.duration_since(since));
        lasted.filter(|_| std::mem::take(&mut state.to_end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_one_line_each_half_minute_and_the_end() {
        let (outage, start) = (Outage::default(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(outage.over_at(at(0)), None, "nothing was away");
        let told: Vec<_> = (0..=130).map(|half| half * 500).filter(|ms| outage.failed_at(at(*ms))).collect();
        assert_eq!(told, [0, 30_000, 60_000]);
        assert_eq!(outage.over_at(at(70_000)), Some(Duration::from_secs(70)));
        assert_eq!(outage.over_at(at(70_001)), None, "told once");

        // Another, later one is told at once; one that comes and goes is not told each time.
        assert!(outage.failed_at(at(100_000)));
        assert!(outage.over_at(at(100_100)).is_some());
        let quick: Vec<_> = (1..20).map(|i| at(100_100 + i * 200)).collect();
        assert!(quick.iter().all(|now| !outage.failed_at(*now) && outage.over_at(*now).is_none()));
    }
}
