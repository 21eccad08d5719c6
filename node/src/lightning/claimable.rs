//! What closed channels still have to give us.

use lightning::{
    chain::channelmonitor::{Balance, ChannelMonitor},
    sign::ecdsa::EcdsaChannelSigner,
};

/// What can still be claimed of a channel that is closed. A funding transaction that the peer named and no block has had may
/// never be made: until one has it, the channel has nothing for us, whatever was pushed to us with it.
pub fn left_in<S: EcdsaChannelSigner>(monitor: &ChannelMonitor<S>) -> Vec<Balance> {
    let balances = monitor.get_claimable_balances();
    let unspent = balances.iter().any(|balance| matches!(balance, Balance::ClaimableOnChannelClose { .. }));
    match unspent && monitor.awaits_their_funding() {
        true => Vec::new(),
        false => balances,
    }
}
