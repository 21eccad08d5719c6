//! Channels that peers open with us.

use std::{
    sync::{MutexGuard, PoisonError},
    time::Instant,
};

use lightning::ln::types::ChannelId;

use super::{
    acceptance::{Confirmations, Standing, Wanted},
    events::{Events, new_user_channel_id},
    pace::Pace,
};

impl Events {
    /// Accepts the channel, or tells the peer why not.
    pub(super) fn channel_requested(&self, temporary: ChannelId, wanted: &Wanted) {
        let Wanted { peer, capacity_sat, .. } = *wanted;
        let standing = Standing {
            channels: self.manager.list_channels().len(),
            channels_with_peer: self.manager.list_channels_with_counterparty(&peer).len(),
            spendable_sat: self.wallet.balance().spendable_sat,
            reserve_sat: self.reserve(1).to_sat(),
        };
        let decided = self.acceptance.decide(wanted, &standing).and_then(|confirmations| match confirmations {
            Confirmations::Zero => Ok(confirmations),
            Confirmations::Awaited => self.pace().count(&self.acceptance, peer, Instant::now()).map(|()| confirmations),
        });
        let confirmations = match decided {
            Ok(confirmations) => confirmations,
            Err(refusal) => {
                match self.pace().tell(Instant::now()) {
                    true => tracing::info!(%peer, capacity_sat, why = %refusal, "refused a channel"),
                    false => tracing::debug!(%peer, capacity_sat, why = %refusal, "refused a channel"),
                }
                return self.abandon(temporary, peer, &refusal.told());
            }
        };
        let id = new_user_channel_id(&*self.keys);
        let accepted = match confirmations {
            Confirmations::Awaited => self.manager.accept_inbound_channel(&temporary, &peer, id, None),
            Confirmations::Zero => {
                self.manager.accept_inbound_channel_from_trusted_peer_0conf(&temporary, &peer, id, None)
            }
        };
        let unconfirmed = confirmations == Confirmations::Zero;
        match accepted {
            Ok(()) => tracing::info!(%peer, capacity_sat, unconfirmed, "accepted a channel"),
            // LDK has told the peer.
            Err(error) => tracing::info!(%peer, capacity_sat, ?error, "a channel could not be accepted"),
        }
    }

    fn pace(&self) -> MutexGuard<'_, Pace> {
        // Each change is complete in itself.
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
