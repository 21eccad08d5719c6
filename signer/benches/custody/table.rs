//! Rates and times, a line each.

use std::{
    hint::black_box,
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

const FOR: Duration = Duration::from_secs(2);

pub fn head() {
    println!("{:<13}{:<12}{:>8}{:>12}{:>12}{:>12}", "backend", "call", "callers", "per second", "p50 us", "p99 us");
}

/// How long each call took.
pub struct Times(pub Vec<Duration>);

impl Times {
    /// In microseconds; `share` is 0.5 for the median.
    pub fn at(&mut self, share: f64) -> f64 {
        self.0.sort_unstable();
        self.0[((self.0.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e6
    }

    /// `within` is what all of them took together.
    pub fn row(mut self, backend: &str, call: &str, callers: usize, within: Option<Duration>) {
        let rate = within.map_or(String::new(), |time| format!("{:.0}", self.0.len() as f64 / time.as_secs_f64()));
        let (p50, p99) = (self.at(0.5), self.at(0.99));
        println!("{backend:<13}{call:<12}{callers:>8}{rate:>12}{p50:>12.0}{p99:>12.0}");
    }
}

/// `work` gets the caller's number.
pub fn measure<T>(backend: &str, call: &str, callers: usize, work: impl Fn(usize) -> T + Sync) {
    let (times, took) = run(callers, FOR, work);
    times.row(backend, call, callers, Some(took));
}

/// So many callers at once, for so long.
pub fn run<T>(callers: usize, length: Duration, work: impl Fn(usize) -> T + Sync) -> (Times, Duration) {
    let times = Mutex::new(Vec::new());
    let started = Instant::now();
    thread::scope(|scope| {
        for caller in 0..callers {
            let (times, work) = (&times, &work);
            scope.spawn(move || {
                let mut own = Vec::new();
                while started.elapsed() < length {
                    let before = Instant::now();
                    black_box(work(caller));
                    own.push(before.elapsed());
                }
                times.lock().unwrap().extend(own);
            });
        }
    });
    (Times(times.into_inner().unwrap()), started.elapsed())
}
