//! How the demo talks: a clock in front of each step, thousands set apart, one line that updates itself while waiting.

use std::{
    io::{IsTerminal, Write, stdout},
    sync::OnceLock,
    time::Instant,
};

/// A step of the story.
pub fn say(step: &str) {
    println!("[{:6.1} s] {step}", clock());
}

/// Something that belongs to the step before.
pub fn detail(text: &str) {
    println!("           {text}");
}

/// A line that the next one of its kind replaces. Without a terminal it says nothing.
pub fn progress(text: &str) {
    if stdout().is_terminal() {
        print!("\r           {text}\x1b[K");
        // A terminal that is gone misses nothing.
        let _ = stdout().flush();
    }
}

/// Ends a line of `progress`.
pub fn progress_done() {
    if stdout().is_terminal() {
        print!("\r\x1b[K");
    }
}

/// Satoshi with thousands set apart, and what is left in millisatoshi.
pub fn sat(msat: u64) -> String {
    let digits = (msat / 1000).to_string();
    let mut spaced = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            spaced.push(' ');
        }
        spaced.push(digit);
    }
    match msat % 1000 {
        0 => format!("{spaced} sat"),
        rest => format!("{spaced}.{rest:03} sat"),
    }
}

fn clock() -> f64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_readable() {
        assert_eq!(sat(0), "0 sat");
        assert_eq!(sat(999_000), "999 sat");
        assert_eq!(sat(1_234_567_008), "1 234 567.008 sat");
    }
}
