//! Repeatable hashing, for tests that replay a run from its seed.
//!
//! The standard library keys its hash maps with what `getrandom` gives it, once for each thread, and so do LDK's maps; the
//! order in which they are walked then differs from run to run. It lets a program bring a `getrandom` of its own (a weak
//! symbol, "for consistency" in its words), and this is one: a thread that called [`seed_thread`] gets numbers drawn from
//! its seed, every other thread gets those of the kernel. Only for tests: keys made in a seeded thread can be guessed.

use std::{cell::Cell, ffi::c_void, fs::File, io::Read};

thread_local! {
    static STATE: Cell<Option<u64>> = const { Cell::new(None) };
}

/// From here on this thread's `getrandom` is a function of `seed`. To be called first thing in a new thread: the standard
/// library asks only once.
pub fn seed_thread(seed: u64) {
    // Mentioned, so that the linker keeps it.
    std::hint::black_box(getrandom as *const c_void);
    STATE.set(Some(seed));
}

/// `getrandom(2)`.
///
/// # Safety
///
/// `buffer` must be writable for `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(buffer: *mut c_void, length: usize, _flags: u32) -> isize {
    if length == 0 {
        return 0;
    }
    // SAFETY: as the caller promises; nothing is read from it before it is written.
    let bytes = unsafe {
        buffer.cast::<u8>().write_bytes(0, length);
        std::slice::from_raw_parts_mut(buffer.cast::<u8>(), length)
    };
    match STATE.get() {
        Some(mut state) => {
            for chunk in bytes.chunks_mut(8) {
                chunk.copy_from_slice(&split_mix(&mut state).to_le_bytes()[..chunk.len()]);
            }
            STATE.set(Some(state));
            length as isize
        }
        // The name of the kernel's function is taken. Callers fall back to other ways when this fails.
        None => File::open("/dev/urandom").and_then(|mut file| file.read(bytes)).map_or(-1, |n| n as isize),
    }
}

/// SplitMix64.
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, thread};

    use super::*;

    fn order(seed: Option<u64>) -> Vec<u32> {
        let walk = move || {
            seed.into_iter().for_each(seed_thread);
            (0..100).collect::<HashSet<u32>>().into_iter().collect()
        };
        thread::spawn(walk).join().unwrap()
    }

    #[test]
    fn a_seed_fixes_the_order_of_a_hash_set() {
        assert_eq!(order(Some(1)), order(Some(1)));
        assert_ne!(order(Some(1)), order(Some(2)));
        assert_ne!(order(None), order(None));
    }
}
