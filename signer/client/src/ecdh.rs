//! ECDH results asked for before LDK needs them.
//!
//! LDK peels onions one after another, each a round trip to the signer. The points are known as soon as the HTLCs arrive,
//! so they can be asked for all at once.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use bitcoin::secp256k1::PublicKey;
use zeroize::Zeroizing;

use crate::session::off_the_workers;

/// Two full channels' worth of HTLCs.
const CAPACITY: usize = 2 * 483;
/// So many are asked for at once. The signer takes a limited number of calls of one replica, and those that sign must not
/// wait behind what a peer sends.
const ASKED: usize = 64;

#[derive(Default)]
pub(crate) struct Ahead {
    state: Mutex<State>,
    arrived: Condvar,
}

#[derive(Default)]
struct State {
    slots: HashMap<PublicKey, Slot>,
    oldest_first: VecDeque<PublicKey>,
    /// How many of the slots wait for their answer.
    asked: usize,
}

enum Slot {
    Asked,
    Here(Zeroizing<[u8; 32]>),
}

impl Ahead {
    /// Takes note of a point; false if it is noted already or there are too many.
    pub(crate) fn note(&self, point: PublicKey) -> bool {
        let mut state = self.lock();
        if state.slots.contains_key(&point) || state.asked >= ASKED || !state.make_room() {
            return false;
        }
        state.asked += 1;
        state.slots.insert(point, Slot::Asked);
        state.oldest_first.push_back(point);
        true
    }

    /// The answer for a noted point; without one the point is forgotten, and whoever needs it asks for himself.
    pub(crate) fn answer(&self, point: PublicKey, secret: Option<Zeroizing<[u8; 32]>>) {
        let mut state = self.lock();
        // A slot that waits is never dropped to make room, so each answer finds its own.
        state.asked = state.asked.saturating_sub(1);
        match secret {
            Some(secret) => {
                if let Some(slot) = state.slots.get_mut(&point) {
                    *slot = Slot::Here(secret);
                }
            }
            None => state.forget(&point),
        }
        self.arrived.notify_all();
    }

    /// The secret if it was asked for, waiting until the answer is here. It stays: LDK peels some onions twice.
    pub(crate) fn get(&self, point: &PublicKey) -> Option<Zeroizing<[u8; 32]>> {
        match self.lock().slots.get(point)? {
            Slot::Here(secret) => return Some(secret.clone()),
            Slot::Asked => {}
        }
        off_the_workers(|| {
            let mut state = self.lock();
            loop {
                match state.slots.get(point)? {
                    Slot::Here(secret) => return Some(secret.clone()),
                    Slot::Asked => state = self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner),
                }
            }
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change leaves the state whole, so that a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn make_room(&mut self) -> bool {
        if self.slots.len() < CAPACITY {
            return true;
        }
        let here = |point: &PublicKey| matches!(self.slots.get(point), Some(Slot::Here(_)));
        match self.oldest_first.iter().copied().find(here) {
            Some(oldest) => {
                self.forget(&oldest);
                true
            }
            None => false,
        }
    }

    fn forget(&mut self, point: &PublicKey) {
        self.slots.remove(point);
        self.oldest_first.retain(|other| other != point);
    }
}

/// Answers with nothing if it is dropped, so that nobody waits for a task that died.
pub(crate) struct Promise {
    ahead: Arc<Ahead>,
    point: Option<PublicKey>,
}

impl Promise {
    pub(crate) fn new(ahead: Arc<Ahead>, point: PublicKey) -> Self {
        Self { ahead, point: Some(point) }
    }

    pub(crate) fn keep(mut self, secret: Option<Zeroizing<[u8; 32]>>) {
        if let Some(point) = self.point.take() {
            self.ahead.answer(point, secret);
        }
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        if let Some(point) = self.point.take() {
            self.ahead.answer(point, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::secp256k1::{Secp256k1, SecretKey};

    fn point(i: u32) -> PublicKey {
        let mut bytes = [1; 32];
        bytes[..4].copy_from_slice(&i.to_be_bytes());
        SecretKey::from_slice(&bytes).unwrap().public_key(&Secp256k1::new())
    }

    #[test]
    fn whoever_needs_a_result_waits_for_it() {
        let ahead = Arc::new(Ahead::default());
        assert!(ahead.get(&point(1)).is_none(), "never asked for");
        assert!(ahead.note(point(1)) && !ahead.note(point(1)));
        let waiting = std::thread::spawn({
            let ahead = ahead.clone();
            move || ahead.get(&point(1)).map(|secret| secret[0])
        });
        Promise::new(ahead.clone(), point(1)).keep(Some(Zeroizing::new([7; 32])));
        assert_eq!(waiting.join().unwrap(), Some(7));
    }

    #[test]
    fn a_lost_answer_leaves_nobody_waiting() {
        let ahead = Arc::new(Ahead::default());
        ahead.note(point(1));
        drop(Promise::new(ahead.clone(), point(1)));
        assert!(ahead.get(&point(1)).is_none());
    }

    #[test]
    fn the_oldest_make_room() {
        let ahead = Ahead::default();
        assert!(ahead.note(point(8888)));
        for i in 0..CAPACITY as u32 - 1 {
            assert!(ahead.note(point(i)));
            ahead.answer(point(i), Some(Zeroizing::new([3; 32])));
        }
        assert!(ahead.note(point(9999)));
        assert!(ahead.get(&point(0)).is_none() && ahead.get(&point(1)).is_some());
        assert!(!ahead.note(point(8888)), "what is waited for is not dropped");
    }

    #[test]
    fn only_so_many_are_asked_for_at_once_and_each_answer_makes_room_for_one() {
        let ahead = Ahead::default();
        for i in 0..ASKED as u32 {
            assert!(ahead.note(point(i)));
        }
        assert!(!ahead.note(point(9999)));
        ahead.answer(point(3), Some(Zeroizing::new([3; 32])));
        assert!(ahead.note(point(9999)) && !ahead.note(point(9998)));
        ahead.answer(point(4), None);
        assert!(ahead.note(point(9998)) && !ahead.note(point(9997)));
    }
}
