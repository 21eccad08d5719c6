//! What stands between the peers and the channel manager: messages wait for their commit, and a cooperative close is not
//! turned into a forced one.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    ops::Deref,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bitcoin::{constants::ChainHash, secp256k1::PublicKey};
use lightning::{
    ln::{
        channel_state::{ChannelDetails, ChannelShutdownState, OutboundHTLCStateDetails},
        channelmanager::AChannelManager,
        msgs::{self, BaseMessageHandler, ChannelMessageHandler, MessageSendEvent},
        types::ChannelId,
    },
    types::features::{InitFeatures, NodeFeatures},
    util::errors::APIError,
};

use super::{
    messages::{address, is_shutdown, waits_for_commit},
    peer_storage::PeerStorage,
    queue::CommitQueue,
    shutdown::Shutdowns,
    splicing,
};

/// How long a channel whose peer may hold the closing transaction waits for the chain, in blocks. No HTLC is pending in
/// such a channel, so waiting costs nothing but time; after that the peer has truly lost its data.
pub const CLOSING_PATIENCE_BLOCKS: u32 = 432;

/// How long after a peer resumed a channel it may still be sending what it repeats from the connection before. It sends all
/// of that in one go.
const REPEATING: Duration = Duration::from_secs(2);

/// The channel manager as the peer manager sees it.
///
/// Messages that open or close a channel are held until a commit that was encoded after them: LDK itself holds back only
/// those that follow from a monitor update. Behind a held message all others of the same channel wait, so order is kept,
/// but for one thing that LDK gets wrong: it answers a `shutdown` at once even when HTLCs that it has added wait for their
/// monitor update, and after a reconnection it repeats its `shutdown` before them. So a `shutdown` also waits until the
/// peer has acknowledged every HTLC that we added, as BOLT 2 wants it, and HTLC updates overtake it.
pub struct MessageGate<CM: Deref> {
    manager: CM,
    queue: Arc<CommitQueue>,
    /// Taken from the manager, and not yet looked at.
    fresh: Mutex<Vec<MessageSendEvent>>,
    held: Mutex<BTreeMap<(PublicKey, ChannelId), VecDeque<Held>>>,
    shutdowns: Mutex<Shutdowns>,
    /// Channels that wait for their closing transaction to show up on chain: with whom, and since which height.
    waiting: Mutex<HashMap<ChannelId, (PublicKey, u32)>>,
    /// Channels that have resumed and that are to be closed again: a crash came between the signature and its commit.
    to_close: Mutex<BTreeSet<(PublicKey, ChannelId)>>,
    /// Channels that their connected peers have resumed or made ready.
    live: Mutex<BTreeSet<(PublicKey, ChannelId)>>,
    hooks: Box<dyn GateHooks>,
    storage: Option<Arc<PeerStorage>>,
}

/// What else is decided where messages pass.
pub trait GateHooks: Send + Sync {
    /// Whether a channel may be resumed; asked for each `channel_reestablish` that is about to go out.
    fn may_resume(&self, _message: &msgs::ChannelReestablish) -> bool {
        true
    }

    /// A peer has resumed a channel that LDK does not know, and is about to be told so.
    fn unknown(&self, _peer: &PublicKey, _channel: &ChannelId) {}

    /// Whether a channel was not let resume.
    fn is_held(&self, _channel: &ChannelId) -> bool {
        false
    }

    /// Whether a peer that resumed a channel `since` has by now repeated all that it has to repeat.
    fn has_repeated(&self, _peer: &PublicKey, since: Instant) -> bool {
        since.elapsed() >= REPEATING
    }

    /// Whether the signer had signed a cooperative close of a channel when this term began. From then on it signs no new
    /// commitment, so that nothing may be added to the channel.
    fn close_signed(&self, _channel: &ChannelId) -> bool {
        false
    }

    /// An HTLC has come in by a channel with the peer that sent it: its onion will be opened soon.
    fn htlc_arrived(&self, _message: &msgs::UpdateAddHTLC) {}
}

/// Decides nothing.
pub struct NoHooks;

impl GateHooks for NoHooks {}

/// A message behind the gate.
struct Held {
    event: MessageSendEvent,
    /// Its number, if it waits for a commit of its own and not only for its turn.
    number: Option<u64>,
}

/// What the gate has to know of channels.
pub trait ChannelView {
    fn closing_state(&self, peer: &PublicKey, channel: &ChannelId) -> ClosingState;
    /// Whether the peer has yet to acknowledge (`revoke_and_ack`) an HTLC that we added.
    fn unacknowledged_adds(&self, peer: &PublicKey, channel: &ChannelId) -> bool;
    fn height(&self) -> u32;
    /// Begins a cooperative close. The peer must have resumed the channel.
    fn close(&self, peer: &PublicKey, channel: &ChannelId) -> Result<(), APIError>;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClosingState {
    /// There is no such channel.
    Unknown,
    Open,
    /// Our `shutdown` is under way, and the peer's has not come.
    Initiated,
    /// The peer's `shutdown` has come, and HTLCs are pending.
    Resolving,
    /// `shutdown` went both ways and no HTLC is left: a closing transaction may be signed already.
    Negotiating,
}

impl<CM: Deref> MessageGate<CM>
where
    CM::Target: ChannelMessageHandler + ChannelView,
{
    pub fn new(manager: CM, queue: Arc<CommitQueue>) -> Self {
        Self::with_hooks(manager, queue, Box::new(NoHooks))
    }

    pub fn with_hooks(manager: CM, queue: Arc<CommitQueue>, hooks: Box<dyn GateHooks>) -> Self {
        let (fresh, held, shutdowns, waiting, to_close, live) = Default::default();
        Self { manager, queue, fresh, held, shutdowns, waiting, to_close, live, hooks, storage: None }
    }

    /// With somebody who takes what peers give back. Without, it is passed over.
    pub fn with_storage(self, storage: Arc<PeerStorage>) -> Self {
        Self { storage: Some(storage), ..self }
    }

    /// Whether what the peer says means only that it has finished a cooperative close which we have not: it then holds
    /// the fully signed transaction, and answers as if the channel had never been. Force-closing on that would race it.
    fn closed_well(&self, peer: &PublicKey, channel: &ChannelId) -> bool {
        let negotiating = |peer: &PublicKey, channel: &ChannelId| {
            self.manager.closing_state(peer, channel) == ClosingState::Negotiating
        };
        // Each change is a single insert or remove.
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|channel, (peer, _)| negotiating(peer, channel));
        if !negotiating(peer, channel) {
            return false;
        }
        let height = self.manager.height();
        let (_, since) = *waiting.entry(*channel).or_insert((*peer, height));
        let patient = height.saturating_sub(since) < CLOSING_PATIENCE_BLOCKS;
        if patient {
            tracing::info!(%channel, "the peer has closed a channel that we were closing; waiting for the chain");
        }
        patient
    }

    /// Shows LDK the `shutdown`s that waited for what their peers repeat.
    fn show_shutdowns(&self) {
        let due = self.shutdowns().take_due(|peer, since| self.hooks.has_repeated(peer, since));
        for (peer, msg) in due {
            self.manager.handle_shutdown(peer, &msg);
        }
    }

    /// Closes those channels that are to be closed again. What cannot be closed yet, be it for a monitor update that is
    /// under way, stays for the next time.
    fn close_again(&self) {
        // Each change is a single call.
        let mut to_close = self.to_close.lock().unwrap_or_else(PoisonError::into_inner);
        to_close.retain(|(peer, channel)| {
            if self.manager.closing_state(peer, channel) != ClosingState::Open {
                return false;
            }
            match self.manager.close(peer, channel) {
                Ok(()) => tracing::info!(%channel, "the signer has signed a close of this channel: it is closed again"),
                Err(error) => tracing::debug!(%channel, ?error, "a channel cannot be closed again yet"),
            }
            self.manager.closing_state(peer, channel) == ClosingState::Open
        });
    }

    /// Takes what the manager has to say, but for channels that may not resume: those stay as they are.
    fn take_from_manager(&self) {
        // Before the manager sends what waited for a monitor update: an HTLC among it would be one too many.
        self.close_again();
        let mut fresh = self.fresh();
        fresh.extend(self.manager.get_and_clear_pending_msg_events().into_iter().filter(|event| match event {
            // What LDK says of a channel that it does not know: the peer is to close it.
            MessageSendEvent::SendChannelReestablish { node_id, msg } if msg.next_local_commitment_number == 0 => {
                self.hooks.unknown(node_id, &msg.channel_id);
                true
            }
            MessageSendEvent::SendChannelReestablish { msg, .. } => self.hooks.may_resume(msg),
            _ => true,
        }));
    }

    fn live(&self) -> MutexGuard<'_, BTreeSet<(PublicKey, ChannelId)>> {
        // Each change is a single insert or remove.
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fresh(&self) -> MutexGuard<'_, Vec<MessageSendEvent>> {
        // Each change is a single call.
        self.fresh.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shutdowns(&self) -> MutexGuard<'_, Shutdowns> {
        // Each of its methods is a few inserts and removes.
        self.shutdowns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<(PublicKey, ChannelId), VecDeque<Held>>> {
        // Each change is a single push or pop.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<CM: AChannelManager> ChannelView for CM {
    fn closing_state(&self, peer: &PublicKey, channel: &ChannelId) -> ClosingState {
        let channels = self.get_cm().list_channels_with_counterparty(peer);
        channels.iter().find(|details| details.channel_id == *channel).map_or(ClosingState::Unknown, closing_state)
    }

    fn unacknowledged_adds(&self, peer: &PublicKey, channel: &ChannelId) -> bool {
        let channels = self.get_cm().list_channels_with_counterparty(peer);
        let details = channels.iter().find(|details| details.channel_id == *channel);
        let adding = Some(OutboundHTLCStateDetails::AwaitingRemoteRevokeToAdd);
        details.is_some_and(|details| details.pending_outbound_htlcs.iter().any(|htlc| htlc.state == adding))
    }

    fn height(&self) -> u32 {
        self.get_cm().current_best_block().height
    }

    fn close(&self, peer: &PublicKey, channel: &ChannelId) -> Result<(), APIError> {
        self.get_cm().close_channel(channel, peer)
    }
}

fn closing_state(channel: &ChannelDetails) -> ClosingState {
    use ChannelShutdownState::*;
    let idle = channel.pending_inbound_htlcs.is_empty() && channel.pending_outbound_htlcs.is_empty();
    match channel.channel_shutdown_state {
        // What LDK says of a channel in negotiation while its peer is away.
        Some(ResolvingHTLCs) if idle => ClosingState::Negotiating,
        Some(ResolvingHTLCs) => ClosingState::Resolving,
        Some(ShutdownInitiated) => ClosingState::Initiated,
        Some(NegotiatingClosingFee | ShutdownComplete) => ClosingState::Negotiating,
        _ => ClosingState::Open,
    }
}

impl<CM: Deref> BaseMessageHandler for MessageGate<CM>
where
    CM::Target: ChannelMessageHandler + ChannelView,
{
    fn get_and_clear_pending_msg_events(&self) -> Vec<MessageSendEvent> {
        self.show_shutdowns();
        let mut held = self.held();
        let mut out = Vec::new();
        let mut held_any = false;
        self.take_from_manager();
        for event in std::mem::take(&mut *self.fresh()) {
            let Some(address) = address(&event) else {
                out.push(event);
                continue;
            };
            // Numbered only now, after it left the manager: a commit taken later is encoded from a state that knows it.
            let number = waits_for_commit(&event).then(|| self.queue.pending().hold_message());
            held_any |= number.is_some();
            let before = held.get(&address).map_or(0, |waiting| place(&event, waiting));
            if number.is_none() && before == 0 {
                out.push(event);
            } else {
                held.entry(address).or_default().insert(before, Held { event, number });
            }
        }

        let released = self.queue.released_messages();
        held.retain(|(peer, channel), waiting| {
            let may_go = |first: &Held| {
                first.number.is_none_or(|number| number <= released)
                    && !(is_shutdown(&first.event) && self.manager.unacknowledged_adds(peer, channel))
            };
            while waiting.front().is_some_and(may_go) {
                out.extend(waiting.pop_front().map(|first| first.event));
            }
            !waiting.is_empty()
        });
        drop(held);
        if held_any {
            self.queue.wake();
        }
        out
    }

    fn peer_disconnected(&self, their_node_id: PublicKey) {
        self.held().retain(|(peer, _), _| *peer != their_node_id);
        self.fresh().retain(|event| address(event).is_none_or(|(peer, _)| peer != their_node_id));
        self.shutdowns().disconnected(&their_node_id);
        self.to_close.lock().unwrap_or_else(PoisonError::into_inner).retain(|(peer, _)| *peer != their_node_id);
        self.live().retain(|(peer, _)| *peer != their_node_id);
        self.manager.peer_disconnected(their_node_id);
    }

    fn provided_node_features(&self) -> NodeFeatures {
        let mut features = self.manager.provided_node_features();
        features.clear_splicing();
        features
    }

    fn provided_init_features(&self, their_node_id: PublicKey) -> InitFeatures {
        let mut features = self.manager.provided_init_features(their_node_id);
        features.clear_splicing();
        features
    }

    fn peer_connected(&self, their_node_id: PublicKey, init: &msgs::Init, inbound: bool) -> Result<(), ()> {
        self.manager.peer_connected(their_node_id, init, inbound)
    }
}

/// Passes calls on as they are.
macro_rules! pass {
    ($($name:ident($message:ty)),* $(,)?) => {
        $(fn $name(&self, their_node_id: PublicKey, msg: $message) {
            self.manager.$name(their_node_id, msg);
        })*
    };
}

impl<CM: Deref> ChannelMessageHandler for MessageGate<CM>
where
    CM::Target: ChannelMessageHandler + ChannelView,
{
    /// Never LDK's: it left nothing with the peer, and stops the process at what it takes for a newer state than it has.
    fn handle_peer_storage_retrieval(&self, their_node_id: PublicKey, msg: msgs::PeerStorageRetrieval) {
        if let Some(storage) = &self.storage {
            storage.returned(&their_node_id, &msg.data);
        }
    }

    fn handle_channel_reestablish(&self, their_node_id: PublicKey, msg: &msgs::ChannelReestablish) {
        let channel = msg.channel_id;
        if let Some(storage) = &self.storage {
            storage.heard(&their_node_id);
        }
        // Our own word on the channel lies in the manager since the peer connected; it is judged before the peer's is heard.
        self.take_from_manager();
        if self.hooks.is_held(&channel) {
            tracing::warn!(%channel, "the peer resumes a channel that is not run");
            return;
        }
        // LDK's and lnd's way to say that they do not know the channel.
        if msg.next_local_commitment_number == 0 {
            // LDK would say the same, and another LDK would say it again, for ever.
            if self.manager.closing_state(&their_node_id, &channel) == ClosingState::Unknown {
                tracing::debug!(%channel, "the peer has no such channel either");
                return;
            }
            if self.closed_well(&their_node_id, &channel) {
                return;
            }
        }
        // LDK would say the same of a channel that it closed cooperatively; the peer needs no answer but the chain's.
        if self.queue.closings().contains(&channel)
            && self.manager.closing_state(&their_node_id, &channel) == ClosingState::Unknown
        {
            tracing::info!(%channel, "the peer asks for a channel whose closing transaction is signed; the chain answers");
            return;
        }
        // What is remembered of a channel that is not there, a peer could make us remember of any number.
        if self.manager.closing_state(&their_node_id, &channel) != ClosingState::Unknown {
            self.shutdowns().resumed(their_node_id, channel);
            self.live().insert((their_node_id, channel));
        }
        self.manager.handle_channel_reestablish(their_node_id, msg);
        // LDK closes no channel whose peer is away, and adds no HTLC to one; what waited in it to be added, LDK has let go.
        if self.hooks.close_signed(&channel) {
            self.to_close.lock().unwrap_or_else(PoisonError::into_inner).insert((their_node_id, channel));
            self.close_again();
        }
    }

    /// After a reconnection LDK repeats its `shutdown` before the HTLCs that came before it, and closes a channel whose
    /// peer does the same. So a `shutdown` waits until the peer must have repeated all that it has to repeat.
    fn handle_shutdown(&self, their_node_id: PublicKey, msg: &msgs::Shutdown) {
        self.shutdowns().defer(their_node_id, msg);
        self.show_shutdowns();
    }

    /// The peer's HTLCs are all resolved, so its `shutdown` need not wait any longer.
    fn handle_closing_signed(&self, their_node_id: PublicKey, msg: &msgs::ClosingSigned) {
        let shutdown = self.shutdowns().take(their_node_id, msg.channel_id);
        if let Some(shutdown) = shutdown {
            self.manager.handle_shutdown(their_node_id, &shutdown);
        }
        self.manager.handle_closing_signed(their_node_id, msg);
    }

    fn handle_error(&self, their_node_id: PublicKey, msg: &msgs::ErrorMessage) {
        if !msg.channel_id.is_zero() && self.closed_well(&their_node_id, &msg.channel_id) {
            return;
        }
        self.manager.handle_error(their_node_id, msg);
    }

    fn handle_channel_ready(&self, their_node_id: PublicKey, msg: &msgs::ChannelReady) {
        if self.manager.closing_state(&their_node_id, &msg.channel_id) != ClosingState::Unknown {
            self.live().insert((their_node_id, msg.channel_id));
        }
        self.manager.handle_channel_ready(their_node_id, msg);
    }

    /// LDK only complains of an HTLC for a channel that is not there; a peer could send any number, and have us ask the
    /// signer about each.
    fn handle_update_add_htlc(&self, their_node_id: PublicKey, msg: &msgs::UpdateAddHTLC) {
        if self.live().contains(&(their_node_id, msg.channel_id)) {
            self.hooks.htlc_arrived(msg);
        }
        self.manager.handle_update_add_htlc(their_node_id, msg);
    }

    fn handle_splice_init(&self, their_node_id: PublicKey, msg: &msgs::SpliceInit) {
        self.fresh().push(splicing::refuse(their_node_id, msg));
    }

    pass! {
        handle_open_channel(&msgs::OpenChannel),
        handle_open_channel_v2(&msgs::OpenChannelV2),
        handle_accept_channel(&msgs::AcceptChannel),
        handle_accept_channel_v2(&msgs::AcceptChannelV2),
        handle_funding_created(&msgs::FundingCreated),
        handle_funding_signed(&msgs::FundingSigned),
        handle_peer_storage(msgs::PeerStorage),
        handle_stfu(&msgs::Stfu),
        handle_splice_ack(&msgs::SpliceAck),
        handle_splice_locked(&msgs::SpliceLocked),
        handle_tx_add_input(&msgs::TxAddInput),
        handle_tx_add_output(&msgs::TxAddOutput),
        handle_tx_remove_input(&msgs::TxRemoveInput),
        handle_tx_remove_output(&msgs::TxRemoveOutput),
        handle_tx_complete(&msgs::TxComplete),
        handle_tx_signatures(&msgs::TxSignatures),
        handle_tx_init_rbf(&msgs::TxInitRbf),
        handle_tx_ack_rbf(&msgs::TxAckRbf),
        handle_tx_abort(&msgs::TxAbort),
        handle_update_fulfill_htlc(msgs::UpdateFulfillHTLC),
        handle_update_fail_htlc(&msgs::UpdateFailHTLC),
        handle_update_fail_malformed_htlc(&msgs::UpdateFailMalformedHTLC),
        handle_commitment_signed(&msgs::CommitmentSigned),
        handle_revoke_and_ack(&msgs::RevokeAndACK),
        handle_update_fee(&msgs::UpdateFee),
        handle_announcement_signatures(&msgs::AnnouncementSignatures),
        handle_channel_update(&msgs::ChannelUpdate),
    }

    fn handle_commitment_signed_batch(
        &self,
        their_node_id: PublicKey,
        channel_id: ChannelId,
        batch: Vec<msgs::CommitmentSigned>,
    ) {
        self.manager.handle_commitment_signed_batch(their_node_id, channel_id, batch);
    }

    fn get_chain_hashes(&self) -> Option<Vec<ChainHash>> {
        self.manager.get_chain_hashes()
    }

    fn message_received(&self) {
        self.manager.message_received();
    }
}

/// How many of the messages that wait for the same channel go before this one.
fn place(event: &MessageSendEvent, waiting: &VecDeque<Held>) -> usize {
    use MessageSendEvent::{SendRevokeAndACK, UpdateHTLCs};
    match event {
        UpdateHTLCs { .. } | SendRevokeAndACK { .. } => {
            waiting.iter().position(|other| is_shutdown(&other.event)).unwrap_or(waiting.len())
        }
        _ => waiting.len(),
    }
}

#[cfg(test)]
mod tests;
