//! The commit loop: take what waits, encode the manager, write both in one batch, and only then let anything out.
//!
//! LDK closes a channel when it loads a monitor that is newer than the manager. Here the two never differ by more than
//! what the manager can replay: a monitor write is pushed, taken, and only then is the manager encoded, which therefore
//! knows that write as in flight; both reach the store in one batch. Nothing that depends on a state leaves before the
//! state is durable (P2): LDK releases HTLC messages and asks for signatures when [`Committer::acknowledge`] says that a
//! monitor update is stored, and transactions and the messages of the [gate](super::gate) go out at the same point.

use std::{
    collections::HashSet,
    ops::Deref,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bitcoin::{Transaction, Txid, consensus};
use lightning::{
    chain::{
        self,
        chaininterface::{BroadcasterInterface, FeeEstimator},
        chainmonitor::{ChainMonitor, Persist},
    },
    ln::{channelmanager::AChannelManager, types::ChannelId},
    sign::{EntropySource, ecdsa::EcdsaChannelSigner},
    util::{logger::Logger, ser::Writeable},
};
use tracing::{Instrument, Span};

use super::{queue::CommitQueue, trace};
use crate::store::{Batch, CommitError, Effect, Store};

/// The steps of a commit, each on its own so that a test can stop between any two of them.
pub struct Committer<M> {
    queue: Arc<CommitQueue>,
    machine: M,
    /// Transactions that have their row already: LDK hands over again what is not confirmed yet.
    recorded: Mutex<HashSet<Txid>>,
}

/// What the commit loop asks of the node around it.
pub trait Machine: Send + Sync {
    /// Whether the manager has changed since this was last asked.
    fn take_needs_persistence(&self) -> bool;
    fn encode_manager(&self) -> Vec<u8>;
    /// Tells LDK that a monitor update is durable.
    fn monitor_updated(&self, channel_id: ChannelId, update_id: u64);
    /// Gives a transaction, or a parent and the child that pays for it, to the network. Must not block on it.
    fn send_package(&self, package: Vec<Transaction>);
    /// Has the peer manager fetch the messages that may go out now.
    fn process_messages(&self);
}

/// One commit between being taken and being acknowledged.
#[derive(Debug)]
pub struct Taken {
    pub batch: Batch,
    number: u64,
    acks: Vec<(ChannelId, u64)>,
    packages: Vec<Vec<Transaction>>,
    messages_through: u64,
    /// What this commit is in the traces of those who wait for it.
    span: Span,
}

impl Taken {
    /// Nothing to write and nobody to tell: the state was committed already.
    pub fn is_empty(&self) -> bool {
        self.batch.is_empty() && self.acks.is_empty() && self.packages.is_empty()
    }
}

impl<M: Machine> Committer<M> {
    pub fn new(queue: Arc<CommitQueue>, machine: M) -> Self {
        Self { queue, machine, recorded: Mutex::default() }
    }

    pub fn queue(&self) -> &Arc<CommitQueue> {
        &self.queue
    }

    pub fn machine(&self) -> &M {
        &self.machine
    }

    /// Takes all that waits, then encodes the manager.
    pub fn take_and_encode(&self) -> Taken {
        let _state = self.queue.lock_state();
        let changed = self.machine.take_needs_persistence();
        let (number, taken) = self.queue.pending().take();
        let manager = (changed || taken.needs_manager()).then(|| self.machine.encode_manager());

        let mut batch = Batch { manager, monitors: taken.monitors, kv: taken.kv, effects: taken.effects };
        batch.kv.extend(taken.closings);
        if batch.manager.is_some() {
            // A close that completed in between is missing from the manager, so its record must not be missing here.
            // The other way round, a record of a channel that the manager still has, does no harm.
            batch.kv.append(&mut self.queue.pending().closings);
        }
        let mut recorded = self.recorded.lock().unwrap_or_else(PoisonError::into_inner);
        for tx in taken.packages.iter().flatten() {
            let txid = tx.compute_txid();
            if recorded.insert(txid) {
                batch.effects.push(Effect::Broadcast { txid, raw: consensus::serialize(tx) });
            }
        }
        Taken {
            batch,
            number,
            acks: taken.acks,
            packages: taken.packages,
            messages_through: taken.held,
            span: trace::commit(&taken.spans),
        }
    }

    /// Lets out what waited for `taken` to be durable. Must be called only once it is, and in the order of the takes.
    pub fn acknowledge(&self, taken: Taken) {
        self.queue.release_messages(taken.messages_through);
        for package in taken.packages {
            self.machine.send_package(package);
        }
        self.queue.mark_committed(taken.number);
        for (channel_id, update_id) in taken.acks {
            self.machine.monitor_updated(channel_id, update_id);
        }
        self.machine.process_messages();
    }

    /// Runs the loop until the store refuses for good. What waits meanwhile goes into the next commit together.
    ///
    /// `on_fatal` is called before anything else happens, so that it can end the process: a replica that lost its term
    /// must not write, sign or send again.
    pub async fn run(&self, store: &dyn Store, on_fatal: impl FnOnce(&CommitError)) -> CommitError {
        loop {
            // The pause only bounds how long a change that nobody announced can wait.
            let _ = tokio::time::timeout(MAX_PAUSE, self.queue.woken()).await;
            let taken = self.take_and_encode();
            if !taken.batch.is_empty()
                && let Err(error) = store.commit(&taken.batch).instrument(trace::write(&taken.span)).await
            {
                on_fatal(&error);
                return error;
            }
            if taken.is_empty() {
                self.queue.mark_committed(taken.number);
            } else {
                self.queue.follow(&taken.span);
                taken.span.clone().in_scope(|| self.acknowledge(taken));
            }
        }
    }
}

const MAX_PAUSE: Duration = Duration::from_secs(1);

/// A [`Machine`] put together from LDK's parts.
pub struct LdkMachine<CM, CH> {
    pub manager: CM,
    pub monitors: CH,
    /// Gives a package to the network; see [`Machine::send_package`].
    pub send_package: Box<dyn Fn(Vec<Transaction>) + Send + Sync>,
    /// Calls `PeerManager::process_events`.
    pub process_messages: Box<dyn Fn() + Send + Sync>,
}

impl<CM, CH> Machine for LdkMachine<CM, CH>
where
    CM: Deref + Send + Sync,
    CM::Target: AChannelManager,
    CH: Deref + Send + Sync,
    CH::Target: MonitorAcks,
{
    fn take_needs_persistence(&self) -> bool {
        self.manager.get_cm().get_and_clear_needs_persistence()
    }

    fn encode_manager(&self) -> Vec<u8> {
        self.manager.get_cm().encode()
    }

    fn monitor_updated(&self, channel_id: ChannelId, update_id: u64) {
        self.monitors.monitor_updated(channel_id, update_id);
    }

    fn send_package(&self, package: Vec<Transaction>) {
        (self.send_package)(package);
    }

    fn process_messages(&self) {
        (self.process_messages)();
    }
}

/// The one thing that the commit loop tells a chain monitor.
pub trait MonitorAcks {
    fn monitor_updated(&self, channel_id: ChannelId, update_id: u64);
}

impl<S, C, T, F, L, P, ES> MonitorAcks for ChainMonitor<S, C, T, F, L, P, ES>
where
    S: EcdsaChannelSigner,
    C: Deref,
    C::Target: chain::Filter,
    T: Deref,
    T::Target: BroadcasterInterface,
    F: Deref,
    F::Target: FeeEstimator,
    L: Deref,
    L::Target: Logger,
    P: Deref,
    P::Target: Persist<S>,
    ES: Deref,
    ES::Target: EntropySource,
{
    fn monitor_updated(&self, channel_id: ChannelId, update_id: u64) {
        // Unknown only when the monitor was archived meanwhile, and then nobody waits for it.
        if self.channel_monitor_updated(channel_id, update_id).is_err() {
            tracing::debug!(channel = %channel_id, update_id, "a stored update belongs to an archived monitor");
        }
    }
}

#[cfg(test)]
mod tests;
