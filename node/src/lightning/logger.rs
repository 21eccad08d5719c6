//! LDK's log lines in ours.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{LazyLock, Mutex, PoisonError},
    time::{Duration, Instant},
};

use lightning::util::logger::{Level, Logger, Record};

/// Passes LDK's records to `tracing`, under the target `ldk`. What LDK calls information is several lines a payment, of
/// use to those who debug; the node says itself what operators should know. A warning that LDK repeats, as it does for
/// every block in which a claim waits, is a line when it begins and one every [`AGAIN`] while it goes on.
#[derive(Default)]
pub struct TracingLogger;

/// Of the process, as its log is.
static SAID: LazyLock<Mutex<Said>> = LazyLock::new(Mutex::default);

/// How long after a line the same one is said again.
const AGAIN: Duration = Duration::from_secs(30 * 60);
/// How many lines are remembered. Beyond it the oldest are forgotten, and may be said again before their time.
const REMEMBERED: usize = 512;

impl Logger for TracingLogger {
    fn log(&self, record: Record) {
        let channel = record.channel_id.map(|id| id.to_string());
        let peer = record.peer_id.map(|id| id.to_string());
        macro_rules! emit {
            ($level:ident, $repeats:expr) => {
                tracing::event!(
                    target: "ldk",
                    tracing::Level::$level,
                    module = record.module_path,
                    channel,
                    peer,
                    repeats = $repeats,
                    "{}",
                    record.args
                )
            };
        }
        let level = match record.level {
            Level::Error if is_our_refusal(&record) => Level::Debug,
            level => level,
        };
        if !matches!(level, Level::Warn | Level::Error) {
            match level {
                Level::Gossip | Level::Trace => emit!(TRACE, None::<u64>),
                _ => emit!(DEBUG, None::<u64>),
            }
            return;
        }
        let line = (record.module_path, record.line, &channel, &peer, record.args.to_string());
        let say = SAID.lock().unwrap_or_else(PoisonError::into_inner).again(&line, Instant::now());
        match (say, level) {
            (None, _) => emit!(DEBUG, None::<u64>),
            (Some(repeats), Level::Error) => emit!(ERROR, repeats),
            (Some(repeats), _) => emit!(WARN, repeats),
        }
    }
}

/// A channel that a peer wanted to open and that we refused: the node says so itself, with the reason.
fn is_our_refusal(record: &Record) -> bool {
    record.args.to_string().starts_with("Force-closing inbound channel request")
}

/// What was said lately, by the hash of the line.
#[derive(Default)]
struct Said {
    hasher: RandomState,
    lines: HashMap<u64, (Instant, u64)>,
}

impl Said {
    /// Whether to say `line`: `None` if it was said lately, else how often it was left out since it was said last, if ever.
    fn again(&mut self, line: &impl std::hash::Hash, now: Instant) -> Option<Option<u64>> {
        let hash = self.hasher.hash_one(line);
        if let Some((at, repeats)) = self.lines.get_mut(&hash) {
            if now.duration_since(*at) < AGAIN {
                *repeats += 1;
                return None;
            }
            *at = now;
            let left_out = std::mem::take(repeats);
            return Some((left_out > 0).then_some(left_out));
        }
        if self.lines.len() >= REMEMBERED {
            let oldest = self.lines.iter().min_by_key(|(_, (at, _))| *at).map(|(hash, _)| *hash);
            oldest.map(|oldest| self.lines.remove(&oldest));
        }
        self.lines.insert(hash, (now, 0));
        Some(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_repeats_itself_is_said_once_in_a_while() {
        let (mut said, now) = (Said::default(), Instant::now());
        assert_eq!(said.again(&"no fee left", now), Some(None));
        for block in 1..5 {
            assert_eq!(said.again(&"no fee left", now + Duration::from_secs(block)), None);
        }
        assert_eq!(said.again(&"another", now), Some(None), "others are lines of their own");
        assert_eq!(said.again(&"no fee left", now + AGAIN), Some(Some(4)));
        assert_eq!(said.again(&"no fee left", now + AGAIN * 2), Some(None));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_the_newest_stay() {
        let (mut said, start) = (Said::default(), Instant::now());
        let at = |line: usize| start + Duration::from_millis(line as u64);
        for line in 0..2 * REMEMBERED {
            assert_eq!(said.again(&line, at(line)), Some(None));
        }
        assert_eq!(said.lines.len(), REMEMBERED);
        assert_eq!(said.again(&REMEMBERED, at(2 * REMEMBERED)), None);
        assert_eq!(said.again(&0, at(2 * REMEMBERED)), Some(None));
    }
}
