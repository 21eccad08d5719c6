//! The ordered buffer in front of the store, and the one mutex around what must be committed together.

use std::{
    collections::HashMap,
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bitcoin::Transaction;
use lightning::ln::types::ChannelId;
use tokio::sync::{Notify, watch};
use tracing::Span;

use super::closing::{ClosingError, Closings};
use crate::store::{Effect, KvKey, KvWrite, MonitorWrite, postgres::storable};

/// Where everything that a commit must carry, or that must wait for one, is handed over.
///
/// Pushing never blocks on IO and never fails, so that LDK may do it from inside its locks.
pub struct CommitQueue {
    pending: Mutex<Pending>,
    closings: Closings,
    /// Held while state changes together with what is pushed for it, and while a commit is taken and encoded.
    state: Mutex<()>,
    wake: Notify,
    committed: watch::Sender<u64>,
    /// The trace of the last commit that was in one, until what waited for it is done.
    followed: Mutex<Option<Span>>,
}

/// What waits for the next commit, in the order in which it was handed over.
#[derive(Default)]
pub(super) struct Pending {
    pub monitors: Vec<MonitorWrite>,
    /// Monitor updates that LDK wants acknowledged once they are durable.
    pub acks: Vec<(ChannelId, u64)>,
    pub kv: Vec<KvWrite>,
    pub effects: Vec<Effect>,
    /// Transactions that belong on chain. A package is one transaction, or a parent and the child that pays for it.
    pub packages: Vec<Vec<Transaction>>,
    /// The records of closing transactions among the packages, to be committed no later than what LDK forgets.
    pub closings: Vec<KvWrite>,
    /// The traces of the calls whose state changes wait for the commit.
    pub spans: Vec<Span>,
    /// How many messages the gate has held back since the start; those up to this count ride with the next commit.
    pub held: u64,
    /// How many of them had a commit of their own.
    released: u64,
    /// How many commits were taken since the start.
    taken: u64,
}

impl Default for CommitQueue {
    fn default() -> Self {
        Self {
            pending: Mutex::default(),
            closings: Closings::default(),
            state: Mutex::default(),
            wake: Notify::new(),
            committed: watch::Sender::new(0),
            followed: Mutex::default(),
        }
    }
}

impl CommitQueue {
    /// `kv` is what the store held at load.
    pub fn load(kv: &HashMap<KvKey, Vec<u8>>) -> Result<Self, ClosingError> {
        Ok(Self { closings: Closings::load(kv)?, ..Self::default() })
    }

    /// The channels that are closing cooperatively.
    pub fn closings(&self) -> &Closings {
        &self.closings
    }

    /// Hands the closing transactions that are not yet resolved to the network again. They may have been committed but
    /// never sent, or have fallen out of a mempool.
    pub fn rebroadcast_closings(&self) {
        let packages = self.closings.transactions().into_iter().map(|tx| vec![tx]);
        self.pending().packages.extend(packages);
        self.wake();
    }

    /// Adds a row for people to query to the next commit. One that no database can hold is left out, loudly: with it the
    /// batch, and every one after a restart that tries again, would never be written.
    pub fn effect(&self, effect: Effect) {
        if let Err(why) = storable(&effect) {
            tracing::error!(why, "a row that cannot be written is left out");
            return;
        }
        self.pending().effects.push(effect);
        self.wake();
    }

    pub fn kv(&self, write: KvWrite) {
        self.pending().kv.push(write);
        self.wake();
    }

    /// Runs `change` so that no commit falls into the middle of it: the node's state and the effects pushed for it are
    /// committed together or not at all. LDK's events are handled in here, and so is every operator's call that changes
    /// the node.
    ///
    /// Not reentrant. `change` must not call the peer manager: its locks are held by threads that may wait for this one.
    pub fn with_state<R>(&self, change: impl FnOnce() -> R) -> R {
        let result = {
            let _state = self.lock_state();
            let result = change();
            let span = Span::current();
            if !span.is_none() {
                self.pending().spans.push(span);
            }
            result
        };
        self.wake();
        result
    }

    /// Waits until everything that was done before this call is durable. Returns false if it never will be, because the
    /// commit loop has ended.
    pub fn committed(&self) -> impl Future<Output = bool> + Send + 'static {
        // The next commit to be taken covers all that is there now, or an earlier one did.
        let ticket = self.next_commit();
        let mut committed = self.committed.subscribe();
        self.wake();
        async move { committed.wait_for(|done| *done >= ticket).await.is_ok() }
    }

    /// The number of the commit that carries what was pushed so far.
    pub(super) fn next_commit(&self) -> u64 {
        self.pending().taken + 1
    }

    /// How many commits are done.
    pub(super) fn commits(&self) -> u64 {
        *self.committed.borrow()
    }

    /// Has the commit loop look for work.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// Completes when there may be something to commit.
    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }

    pub(super) fn lock_state(&self) -> MutexGuard<'_, ()> {
        // The mutex guards no data of its own: a panic while it was held ends the process, not this lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn pending(&self) -> MutexGuard<'_, Pending> {
        // Pushing and taking are single steps that cannot leave this half-changed.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn release_messages(&self, through: u64) {
        let mut pending = self.pending();
        pending.released = pending.released.max(through);
    }

    pub(super) fn released_messages(&self) -> u64 {
        self.pending().released
    }

    /// LDK signs and sends what a commit was waited for when events are handled and messages fetched: a part of its trace.
    pub(super) fn follow(&self, commit: &Span) {
        if !commit.is_none() {
            *self.followed.lock().unwrap_or_else(PoisonError::into_inner) = Some(commit.clone());
        }
    }

    /// What handling events and fetching messages is a part of now.
    pub(super) fn followed(&self) -> Span {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner).clone().unwrap_or_else(Span::none)
    }

    /// All that `commit` was waited for is done.
    pub(super) fn follow_no_more(&self, commit: &Span) {
        let mut followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        followed.take_if(|followed| followed.id() == commit.id());
    }

    pub(super) fn mark_committed(&self, commit: u64) {
        self.committed.send_replace(commit);
    }
}

impl Pending {
    /// Counts a held message and gives its number.
    pub fn hold_message(&mut self) -> u64 {
        self.held += 1;
        self.held
    }

    /// Takes everything, and numbers the commit that it is for.
    pub fn take(&mut self) -> (u64, Pending) {
        self.taken += 1;
        let taken = Pending {
            monitors: mem::take(&mut self.monitors),
            acks: mem::take(&mut self.acks),
            kv: mem::take(&mut self.kv),
            effects: mem::take(&mut self.effects),
            packages: mem::take(&mut self.packages),
            closings: mem::take(&mut self.closings),
            spans: mem::take(&mut self.spans),
            held: self.held,
            released: self.released,
            taken: self.taken,
        };
        (self.taken, taken)
    }

    /// Whether the node's own state has to be written with this. The key-value space stands on its own.
    pub fn needs_manager(&self) -> bool {
        !(self.monitors.is_empty() && self.effects.is_empty() && self.packages.is_empty()) || self.held > self.released
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::batch::{Direction, PaymentChange, PaymentKind, PaymentStatus};

    #[test]
    fn a_row_that_no_database_can_hold_does_not_stop_the_commit_of_the_others() {
        let queue = CommitQueue::default();
        let row = |amount_msat| {
            let row = PaymentChange::of_hash([1; 32], Direction::Inbound, PaymentKind::Bolt11, PaymentStatus::Pending);
            Effect::Payment(PaymentChange { amount_msat: Some(amount_msat), ..row })
        };
        for amount_msat in [1, 10_000_000_000_000_000_000, 2] {
            queue.effect(row(amount_msat));
        }
        assert_eq!(queue.pending().effects, [row(1), row(2)]);
    }
}
