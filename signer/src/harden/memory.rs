//! Where secrets lie while the process lives.
//!
//! What lasts is [`Locked`]: in pages of its own, never swapped, left out of core dumps, between two pages that nobody may
//! touch, read-only once written, and overwritten at the end. What passes (a channel's keys during one call) is `Zeroizing`
//! and lies on the stack, where moves and callees leave copies behind: [`on_clean_stack`] overwrites those.

use std::{fmt, hint::black_box, ops::Deref};

use dryoc::{
    protected::{HeapByteArray, HeapBytes, Lockable, LockedRO, NewLocked, ProtectReadOnly},
    types::{MutByteArray, MutBytes, NewBytes, ResizableBytes},
};
use rustix::process::{Resource, getrlimit};

/// `N` secret bytes in locked, guarded, undumpable pages. One takes a page of what `RLIMIT_MEMLOCK` allows.
pub struct Locked<const N: usize>(LockedRO<HeapByteArray<N>>);

impl<const N: usize> Locked<N> {
    /// `fill` writes the secret where it will stay.
    pub fn new(fill: impl FnOnce(&mut [u8; N])) -> Result<Self, MemoryError> {
        let mut pages = HeapByteArray::<N>::new_locked().map_err(|_| MemoryError::new())?;
        fill(pages.as_mut_array());
        pages.mprotect_readonly().map(Self).map_err(|_| MemoryError::new())
    }

    /// A copy of `secret`, which the caller overwrites.
    pub fn copy(secret: &[u8; N]) -> Result<Self, MemoryError> {
        Self::new(|bytes| bytes.copy_from_slice(secret))
    }
}

impl<const N: usize> Deref for Locked<N> {
    type Target = [u8; N];

    fn deref(&self) -> &[u8; N] {
        dryoc::types::ByteArray::as_array(&self.0)
    }
}

impl<const N: usize> fmt::Debug for Locked<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Locked<{N}>")
    }
}

/// Secret bytes of any length, kept as [`Locked`] keeps them: what is read from a file.
pub struct LockedBytes {
    pages: LockedRO<HeapBytes>,
    length: usize,
}

impl LockedBytes {
    /// `fill` writes the secret where it will stay, into at most `capacity` bytes, and says how many it wrote.
    pub fn new<E: From<MemoryError>>(
        capacity: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> Result<Self, E> {
        let mut pages = HeapBytes::new_bytes();
        // None would be no pages, which cannot be locked.
        pages.resize(capacity.max(1), 0);
        let mut pages = pages.mlock().map_err(|_| MemoryError::new())?;
        let length = fill(&mut pages.as_mut_slice()[..capacity])?;
        let pages = pages.mprotect_readonly().map_err(|_| MemoryError::new())?;
        Ok(Self { pages, length: length.min(capacity) })
    }

    /// Keeps the first `length` bytes.
    pub fn truncate(&mut self, length: usize) {
        self.length = self.length.min(length);
    }
}

impl Deref for LockedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &dryoc::types::Bytes::as_slice(&self.pages)[..self.length]
    }
}

/// Not even the length.
impl fmt::Debug for LockedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LockedBytes")
    }
}

/// A secret could not be locked into memory. It is kept nowhere else instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no more memory can be locked for keys (the limit is {}): set LimitMEMLOCK=64M in the service's unit, or raise `ulimit -l`",
    limit.map_or("none".to_owned(), |bytes| format!("{bytes} bytes"))
)]
pub struct MemoryError {
    limit: Option<u64>,
}

impl MemoryError {
    fn new() -> Self {
        Self { limit: getrlimit(Resource::Memlock).current }
    }
}

/// More than any call that handles a secret uses, in a build without optimisation as well.
const DEPTH: usize = 128 * 1024;

/// Runs `work`, then overwrites the part of the stack that it used. What it returns should own no secret by value.
#[inline(never)]
pub fn on_clean_stack<T>(work: impl FnOnce() -> T) -> T {
    let result = black_box(run(work));
    overwrite();
    result
}

/// A frame of its own, which begins where that of `overwrite` begins.
#[inline(never)]
fn run<T>(work: impl FnOnce() -> T) -> T {
    work()
}

#[inline(never)]
fn overwrite() {
    let mut area = [0xa5_u8; DEPTH];
    black_box(&mut area).fill(0);
    black_box(&area);
}

#[cfg(test)]
pub(crate) mod tests {
    use std::{fs, process::Command};

    use rustix::process::{Rlimit, setrlimit};

    use super::*;

    /// The lines of /proc/self/smaps about the mapping that holds `address`.
    fn mapping_of(address: usize) -> String {
        let maps = fs::read_to_string("/proc/self/smaps").unwrap();
        let begins = |line: &str| {
            let (from, to) = line.split_whitespace().next()?.split_once('-')?;
            Some(usize::from_str_radix(from, 16).ok()?..usize::from_str_radix(to, 16).ok()?)
        };
        let mut lines = maps.lines().skip_while(|line| !begins(line).is_some_and(|range| range.contains(&address)));
        let first = lines.next().expect("an address that is mapped").to_owned();
        let rest = lines.take_while(|line| begins(line).is_none());
        rest.fold(first, |all, line| all + "\n" + line)
    }

    #[test]
    fn pages_are_locked_undumpable_read_only_and_guarded() {
        let secret = Locked::copy(&[7; 32]).unwrap();
        assert_eq!(*secret, [7; 32]);
        is_guarded(secret.as_ptr() as usize);

        let mut read = LockedBytes::new::<MemoryError>(40, |bytes| {
            bytes[..5].copy_from_slice(b"12345");
            Ok(5)
        })
        .unwrap();
        assert_eq!(*read, *b"12345");
        read.truncate(4);
        assert_eq!(*read, *b"1234");
        is_guarded(read.as_ptr() as usize);
        assert!(LockedBytes::new::<MemoryError>(0, |_| Ok(0)).unwrap().is_empty());
    }

    pub(crate) fn is_guarded(address: usize) {
        let page = 4096;
        let mapping = mapping_of(address);
        let field = |name: &str| mapping.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
        let flags = field("VmFlags:");
        for flag in ["lo", "dd"] {
            assert!(flags.split(' ').any(|f| f == flag), "no {flag} in {mapping}");
        }
        assert_ne!(field("Locked:"), "0 kB");
        assert!(mapping.lines().next().unwrap().contains(" r--p "), "{mapping}");
        for neighbour in [address / page * page - 1, address / page * page + page] {
            let mapping = mapping_of(neighbour);
            assert!(mapping.lines().next().unwrap().contains(" ---p "), "no guard: {mapping}");
        }
    }

    /// Under a limit of one page, in a process of its own.
    #[test]
    fn a_limit_that_is_too_small_is_an_error_that_says_what_to_set() {
        const CHILD: &str = "HOLDFAST_TEST_MEMLOCK";
        if std::env::var_os(CHILD).is_some() {
            // Root may lock without limit until it gives that right up.
            let none = rustix::thread::CapabilitySets {
                effective: rustix::thread::CapabilitySet::empty(),
                permitted: rustix::thread::CapabilitySet::empty(),
                inheritable: rustix::thread::CapabilitySet::empty(),
            };
            rustix::thread::set_capabilities(None, none).unwrap();
            setrlimit(Resource::Memlock, Rlimit { current: Some(4096), maximum: Some(4096) }).unwrap();
            let _first = Locked::copy(&[1; 32]).unwrap();
            let read = LockedBytes::new::<MemoryError>(2, |_| panic!("a secret is read to where it cannot be locked"));
            for refusal in [Locked::copy(&[2; 32]).unwrap_err(), read.unwrap_err()] {
                let refusal = refusal.to_string();
                assert!(refusal.contains("4096 bytes") && refusal.contains("LimitMEMLOCK"), "{refusal}");
            }
            return;
        }
        let name = "harden::memory::tests::a_limit_that_is_too_small_is_an_error_that_says_what_to_set";
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env(CHILD, "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&child.stdout);
        assert!(
            child.status.success() && said.contains("1 passed"),
            "{said}{}",
            String::from_utf8_lossy(&child.stderr)
        );
    }

    /// Looks for what a call left on the stack, as a core dump would show it.
    #[test]
    fn a_clean_stack_keeps_nothing_of_the_work() {
        #[inline(never)]
        fn leave(secret: u64) -> u64 {
            let copies = black_box([secret.rotate_left(1).rotate_right(1); 512]);
            copies.iter().fold(0, |sum, copy| sum ^ copy)
        }
        let copies = |secret: u64| {
            let maps = fs::read_to_string("/proc/thread-self/maps").unwrap();
            let here = (&raw const secret) as usize;
            let range = maps.lines().find_map(|line| {
                let (from, to) = line.split_whitespace().next()?.split_once('-')?;
                let range = usize::from_str_radix(from, 16).ok()?..usize::from_str_radix(to, 16).ok()?;
                range.contains(&here).then_some(range)
            });
            let range = range.unwrap();
            let mut stack = vec![0; range.len()];
            std::os::unix::fs::FileExt::read_exact_at(
                &fs::File::open("/proc/self/mem").unwrap(),
                &mut stack,
                range.start as u64,
            )
            .unwrap();
            stack.windows(8).filter(|bytes| *bytes == secret.to_ne_bytes()).count()
        };
        let dirty = 0x5ec2_e715_0bad_cafe_u64;
        black_box(leave(black_box(dirty)));
        assert!(copies(dirty) > 100, "the search does not find what is there");
        let clean = 0x5ec2_e715_900d_cafe_u64;
        on_clean_stack(|| black_box(leave(black_box(clean))));
        assert!(copies(clean) < 20, "{} copies are left", copies(clean));
    }
}
