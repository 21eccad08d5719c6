//! Several ECDHs for little more than one derivation each.
//!
//! A derivation gives x alone, so each ECDH needs to learn a sign. One more derivation, of the sum of all points and G, tells
//! all of them at once: n ECDHs that wait for a session take n + 1 derivations instead of 2n. It is for tokens that do one
//! thing at a time; where two sessions gain, each ECDH has its two derivations at once instead ([`super::ecdh::Pace`]).

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
};

use bitcoin::secp256k1::PublicKey;

use super::{
    ecdh::{both, derive_x},
    error::CallError,
    identity::identity,
    point::{self, Plan},
    worker::{Connection, Workers},
};
use crate::custody::{CustodyError, SharedSecret};

/// So many at once: which signs they have is found among 2^n sums.
const MOST: usize = 4;

/// The ECDHs that wait. For each of them one job waits at the workers; it serves those that came first, its own or not.
#[derive(Default)]
pub struct Batches {
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    wanted: VecDeque<Wanted>,
    next: u64,
}

struct Wanted {
    number: u64,
    point: PublicKey,
    answer: mpsc::SyncSender<Result<SharedSecret, CallError>>,
}

impl Batches {
    /// SHA-256 of the compressed point `k * point`. `point` is not `-G`.
    pub fn shared(self: &Arc<Self>, workers: &Workers, point: PublicKey) -> Result<SharedSecret, CustodyError> {
        let deadline = workers.deadline();
        let (answer, answered) = mpsc::sync_channel(1);
        let number = self.lock().want(point, answer);
        let batches = self.clone();
        let served = workers.submit(deadline, move |connection, _| batches.serve(connection));
        if let Err(failure) = workers.wait(deadline, &served)
            && self.lock().forget(number)
        {
            return Err(failure);
        }
        // Answered, or with another session, which answers it or gives it back.
        workers.wait(deadline, &answered).inspect_err(|_| {
            self.lock().forget(number);
        })
    }

    fn serve(&self, connection: &Connection) -> Result<(), CallError> {
        let batch = self.lock().take();
        let points: Vec<_> = batch.iter().map(|wanted| wanted.point).collect();
        match derive(connection, &points) {
            Ok(secrets) => {
                for (wanted, secret) in batch.into_iter().zip(secrets) {
                    // The caller may have stopped waiting; then nobody wants it.
                    let _ = wanted.answer.send(Ok(secret));
                }
                Ok(())
            }
            Err(failure) => {
                self.lock().give_back(batch);
                Err(failure)
            }
        }
    }

    /// A holder that panicked left nothing half done: no step below does.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn want(&mut self, point: PublicKey, answer: mpsc::SyncSender<Result<SharedSecret, CallError>>) -> u64 {
        self.next += 1;
        self.wanted.push_back(Wanted { number: self.next, point, answer });
        self.next
    }

    fn take(&mut self) -> Vec<Wanted> {
        let most = MOST.min(self.wanted.len());
        self.wanted.drain(..most).collect()
    }

    fn give_back(&mut self, batch: Vec<Wanted>) {
        batch.into_iter().rev().for_each(|wanted| self.wanted.push_front(wanted));
    }

    /// Whether it was still waiting.
    fn forget(&mut self, number: u64) -> bool {
        let before = self.wanted.len();
        self.wanted.retain(|wanted| wanted.number != number);
        self.wanted.len() < before
    }
}

/// All of them in one session.
fn derive(connection: &Connection, points: &[PublicKey]) -> Result<Vec<SharedSecret>, CallError> {
    let (session, key, node_id) = (&connection.session, identity(connection)?, &connection.node_id);
    if points.len() > 1
        && let Some(shifted) = point::shifted_sum(points)
    {
        let xs = points.iter().map(|point| derive_x(session, key, point)).collect::<Result<Vec<_>, _>>()?;
        if let Some(products) = point::resolve_all(&xs, &derive_x(session, key, &shifted)?, node_id) {
            return Ok(products.iter().map(point::shared_secret).collect());
        }
        // The points are related, as only somebody who tries makes them, or an answer was not the key's. Each by itself tells.
    }
    let one = |point: &PublicKey| match point::plan(point, node_id) {
        Plan::Known(product) => Ok(point::shared_secret(&product)),
        Plan::Ask { shifted } => both(session, key, point, &shifted, node_id),
    };
    points.iter().map(one).collect()
}
