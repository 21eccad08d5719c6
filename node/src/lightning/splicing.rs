//! Splicing: not done, and why. LDK 0.2.7 has it as a first version; docs/channels.md tells what is missing for this node.

use bitcoin::secp256k1::PublicKey;
use lightning::ln::msgs::{ErrorAction, MessageSendEvent, SpliceInit, WarningMessage};

/// What a peer is told that tries it all the same. It was told in `init` that this node does not splice.
const TOLD: &str = "splicing is not supported";

/// The answer to a `splice_init`: a warning and a new connection, because the channel is quiescent and only that ends it.
/// The channel stays as it is.
pub fn refuse(peer: PublicKey, message: &SpliceInit) -> MessageSendEvent {
    tracing::info!(%peer, channel = %message.channel_id, "refused a splice: this node does not splice");
    let msg = WarningMessage { channel_id: message.channel_id, data: TOLD.to_owned() };
    MessageSendEvent::HandleError { node_id: peer, action: ErrorAction::DisconnectPeerWithWarning { msg } }
}
