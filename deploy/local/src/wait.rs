//! Waiting for a condition with a deadline, and saying what was seen last when it does not come.

use std::time::Duration;

use anyhow::{Result, anyhow};
use tokio::time::{Instant, sleep, timeout};

/// What a look at the world gave.
#[derive(Debug)]
pub enum Probe<T> {
    Ready(T),
    /// Not yet, and what was seen instead.
    Waiting(String),
    /// It will not come any more, and why.
    Hopeless(String),
}

impl<T> Probe<T> {
    /// Ready with `value` if `condition`, else waiting with what `seen` says.
    pub fn when(condition: bool, value: T, seen: impl FnOnce() -> String) -> Self {
        if condition { Probe::Ready(value) } else { Probe::Waiting(seen()) }
    }

    /// The same with another value.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Probe<U> {
        match self {
            Probe::Ready(value) => Probe::Ready(change(value)),
            Probe::Waiting(seen) => Probe::Waiting(seen),
            Probe::Hopeless(why) => Probe::Hopeless(why),
        }
    }
}

/// Probes until ready. An error of the probe counts as "not yet": parts come and go here. The error at the deadline
/// tells what was waited for and what was seen last.
pub async fn wait_for<T>(
    what: &str,
    deadline: Duration,
    mut probe: impl AsyncFnMut() -> Result<Probe<T>>,
) -> Result<T> {
    let end = Instant::now() + deadline;
    let mut seen = "nothing".to_owned();
    loop {
        match timeout(end.saturating_duration_since(Instant::now()), probe()).await {
            Ok(Ok(Probe::Ready(value))) => return Ok(value),
            Ok(Ok(Probe::Waiting(state))) => seen = state,
            Ok(Ok(Probe::Hopeless(why))) => return Err(anyhow!("no use to wait for {what}: {why}")),
            Ok(Err(error)) => seen = format!("{error:#}"),
            // The probe itself hung: what was seen before it is the better story.
            Err(_) => return Err(late(what, deadline, &seen)),
        }
        if Instant::now() >= end {
            return Err(late(what, deadline, &seen));
        }
        sleep(Duration::from_millis(20)).await;
    }
}

fn late(what: &str, deadline: Duration, seen: &str) -> anyhow::Error {
    anyhow!("waited {deadline:?} for {what}; seen last: {seen}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_last_thing_seen_is_in_the_error() {
        let mut looks = 0;
        let error = wait_for::<()>("rain", Duration::from_millis(100), async || {
            looks += 1;
            Ok(Probe::Waiting(format!("clouds, look {looks}")))
        })
        .await
        .unwrap_err()
        .to_string();
        assert!(error.contains("for rain") && error.contains(&format!("clouds, look {looks}")), "{error}");
    }

    #[tokio::test]
    async fn a_probe_that_hangs_meets_the_deadline() {
        let error = wait_for::<()>("an answer", Duration::from_millis(50), async || std::future::pending().await).await;
        assert!(error.unwrap_err().to_string().contains("for an answer"));
    }
}
