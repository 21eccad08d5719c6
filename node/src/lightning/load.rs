//! From what the store holds back to LDK's objects, in the one order that closes no channel.
//!
//! 1. [`read_monitors`]: each monitor whole, then its updates;
//! 2. [`read_manager`] with all of them;
//! 3. the caller brings monitors and manager to the chain's tip;
//! 4. [`start_watching`]: hands the monitors to the chain monitor and acknowledges each, before anything touches the
//!    manager. LDK then replays the updates that the manager knows as in flight; they come through `Persist` again.
//!
//! A payment that was claimable is claimed or failed while its event is handled, under [`CommitQueue::with_state`], so
//! the event is gone from the manager only together with that decision: there is nothing to claim again after a load.

use std::ops::Deref;

use bitcoin::BlockHash;
use lightning::{
    chain::{
        self, BestBlock,
        chaininterface::{BroadcasterInterface, FeeEstimator},
        chainmonitor::{ChainMonitor, Persist},
        channelmonitor::{ChannelMonitor, ChannelMonitorUpdate},
    },
    ln::{
        channelmanager::{ChannelManager, ChannelManagerReadArgs},
        msgs::DecodeError,
    },
    onion_message::messenger::MessageRouter,
    routing::router::Router,
    sign::{EntropySource, NodeSigner, SignerProvider, ecdsa::EcdsaChannelSigner},
    util::{
        logger::Logger,
        ser::{Readable, ReadableArgs},
    },
};

use super::{
    commit::MonitorAcks,
    persist::{BufferedPersister, Stored},
};
use crate::store::LoadedMonitor;

#[cfg(doc)]
use super::queue::CommitQueue;

#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("the monitor of channel {channel} does not parse: {error:?}")]
    Monitor { channel: String, error: DecodeError },
    #[error("the monitor of channel {channel} is stored under another channel's id")]
    Key { channel: String },
    #[error("update {update} of the monitor of channel {channel} does not follow")]
    Update { channel: String, update: u64 },
    /// `DangerousValue` means that the manager is ahead of a monitor: the database does not hold together.
    #[error("the channel manager does not load: {0:?}")]
    Manager(DecodeError),
    #[error("the monitor of channel {channel} is there twice")]
    Twice { channel: String },
}

/// A monitor as of its last commit, and the block that it knows as the tip.
pub struct ReadMonitor<S: EcdsaChannelSigner> {
    pub monitor: ChannelMonitor<S>,
    pub best_block: BestBlock,
    stored: Stored,
}

/// Reads the monitors and applies their updates.
pub fn read_monitors<ES, SP, B, F, L>(
    loaded: &[LoadedMonitor],
    (entropy, signers): (&ES, &SP),
    broadcaster: &B,
    fees: &F,
    logger: &L,
) -> Result<Vec<ReadMonitor<<SP::Target as SignerProvider>::EcdsaSigner>>, LoadError>
where
    ES: Deref,
    ES::Target: EntropySource + Sized,
    SP: Deref,
    SP::Target: SignerProvider + Sized,
    B: Deref,
    B::Target: BroadcasterInterface,
    F: Deref,
    F::Target: FeeEstimator,
    L: Deref,
    L::Target: Logger,
{
    let read = |stored: &LoadedMonitor| {
        let channel = || hex::encode(stored.key.0);
        let unreadable = |error| LoadError::Monitor { channel: channel(), error };
        let keys = (&**entropy, &**signers);
        let (_, monitor) =
            <(BlockHash, ChannelMonitor<_>)>::read(&mut stored.full.as_slice(), keys).map_err(unreadable)?;
        if monitor.channel_id().0 != stored.key.0 {
            return Err(LoadError::Key { channel: channel() });
        }
        for (id, bytes) in &stored.updates {
            let update = ChannelMonitorUpdate::read(&mut bytes.as_slice()).map_err(unreadable)?;
            let latest = monitor.get_latest_update_id();
            if *id <= latest {
                // Contained in the whole encoding already.
                continue;
            }
            // A gap would mean a lost write, which the store does not allow itself.
            if update.update_id != *id || *id != latest + 1 {
                return Err(LoadError::Update { channel: channel(), update: *id });
            }
            // LDK refuses what it would have refused before it was stored; such an update is stored as a whole monitor.
            monitor
                .update_monitor(&update, broadcaster, fees, logger)
                .map_err(|()| LoadError::Update { channel: channel(), update: *id })?;
        }
        let best_block = monitor.current_best_block();
        let updates = u32::try_from(stored.updates.len()).unwrap_or(u32::MAX);
        Ok(ReadMonitor { monitor, best_block, stored: Stored { whole_bytes: stored.full.len(), updates } })
    };
    loaded.iter().map(read).collect()
}

/// Reads the manager. `args` must hold every monitor of [`read_monitors`].
#[expect(clippy::type_complexity, reason = "the type is LDK's, generic over all of the node's parts")]
pub fn read_manager<M, T, ES, NS, SP, F, R, MR, L>(
    bytes: &[u8],
    args: ChannelManagerReadArgs<'_, M, T, ES, NS, SP, F, R, MR, L>,
) -> Result<ChannelManager<M, T, ES, NS, SP, F, R, MR, L>, LoadError>
where
    M: Deref,
    M::Target: chain::Watch<<SP::Target as SignerProvider>::EcdsaSigner>,
    T: Deref,
    T::Target: BroadcasterInterface,
    ES: Deref,
    ES::Target: EntropySource,
    NS: Deref,
    NS::Target: NodeSigner,
    SP: Deref,
    SP::Target: SignerProvider,
    F: Deref,
    F::Target: FeeEstimator,
    R: Deref,
    R::Target: Router,
    MR: Deref,
    MR::Target: MessageRouter,
    L: Deref + Clone,
    L::Target: Logger,
{
    let (_, manager) = <(BlockHash, ChannelManager<_, _, _, _, _, _, _, _, _>)>::read(&mut &*bytes, args)
        .map_err(LoadError::Manager)?;
    Ok(manager)
}

/// Hands the monitors, by now at the chain's tip, to the chain monitor and acknowledges each.
///
/// Without the acknowledgement a channel that we fund and whose first commit was not acknowledged before a crash sticks
/// for ever.
pub fn start_watching<S, C, T, F, L, P, ES>(
    chain_monitor: &ChainMonitor<S, C, T, F, L, P, ES>,
    persister: &BufferedPersister,
    monitors: Vec<ReadMonitor<S>>,
) -> Result<(), LoadError>
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
    for ReadMonitor { monitor, stored, .. } in monitors {
        let (channel_id, update_id) = (monitor.channel_id(), monitor.get_latest_update_id());
        persister.loaded(&monitor, stored);
        chain_monitor
            .load_existing_monitor(channel_id, monitor)
            .map_err(|()| LoadError::Twice { channel: channel_id.to_string() })?;
        chain_monitor.monitor_updated(channel_id, update_id);
    }
    Ok(())
}
