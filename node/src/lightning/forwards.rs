//! When HTLCs are forwarded.
//!
//! LDK fails an HTLC whose next peer is not connected. After a takeover that is everybody for a moment, and before a
//! handover as well, so forwarding begins a little later and ends a little earlier than everything else. What waits is
//! part of the committed state and loses nothing but time.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use lightning::ln::channel_state::ChannelDetails;

use super::{peers::Dialer, types::ChannelManager};

/// How long after a takeover forwarding waits for peers of whom nothing is known yet.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long after a takeover a peer that is away is likely to come back.
const YOUTH: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(5);

/// Lets HTLCs through, or not.
pub struct Forwards {
    stopped: Mutex<bool>,
    since: Instant,
}

impl Default for Forwards {
    fn default() -> Self {
        Self { stopped: Mutex::new(false), since: Instant::now() }
    }
}

impl Forwards {
    /// Forwards what is pending, if it is time. Says whether it did.
    pub fn process(&self, manager: &ChannelManager, dialer: &Dialer) -> bool {
        if !manager.needs_pending_htlc_processing() {
            return false;
        }
        // Held while forwarding, so that `stop` returns only when no forward is under way.
        let stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        if *stopped || !self.is_time(manager, dialer) {
            return false;
        }
        manager.process_pending_htlc_forwards();
        true
    }

    /// Waits until payments of our own may begin as well: right after a takeover LDK would find no channel for them.
    pub async fn wait(&self, manager: &ChannelManager, dialer: &Dialer) {
        while !self.is_time(manager, dialer) {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Whether a payment that finds no route now may find one in a moment, because peers are on their way back.
    pub fn peers_may_come(&self, manager: &ChannelManager, dialer: &Dialer) -> bool {
        let is_young = self.since.elapsed() < YOUTH;
        let is_away = |c: &ChannelDetails| c.is_channel_ready && !c.is_usable;
        peers_are_coming(manager, dialer) || is_young && manager.list_channels().iter().any(is_away)
    }

    fn is_time(&self, manager: &ChannelManager, dialer: &Dialer) -> bool {
        self.since.elapsed() >= PATIENCE || !peers_are_coming(manager, dialer)
    }

    /// Forwards nothing from now on. The next leader will.
    pub fn stop(&self) {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
    }
}

/// Whether a channel may become usable soon: its peer is connected and about to resume it, or being dialed for the first
/// time.
fn peers_are_coming(manager: &ChannelManager, dialer: &Dialer) -> bool {
    manager.list_channels().iter().any(|channel| {
        channel.is_channel_ready && !channel.is_usable && dialer.is_hopeful(&channel.counterparty.node_id)
    })
}
