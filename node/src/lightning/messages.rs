//! What the gate has to know of each message: whom it is for, which channel it is about, and whether it has to wait.

use bitcoin::secp256k1::PublicKey;
use lightning::ln::{
    msgs::{ErrorAction, MessageSendEvent},
    types::ChannelId,
};

/// Whether a message says something that no committed monitor update stands behind.
pub fn waits_for_commit(event: &MessageSendEvent) -> bool {
    use MessageSendEvent::*;
    match event {
        // LDK makes these only when the monitor update that they follow from is acknowledged.
        UpdateHTLCs { .. } | SendRevokeAndACK { .. } => false,
        // Asks and tells, binds nobody.
        SendChannelReestablish { .. }
        | SendChannelAnnouncement { .. }
        | BroadcastChannelAnnouncement { .. }
        | BroadcastChannelUpdate { .. }
        | BroadcastNodeAnnouncement { .. }
        | SendChannelUpdate { .. }
        | SendChannelRangeQuery { .. }
        | SendShortIdsQuery { .. }
        | SendReplyChannelRange { .. }
        | SendGossipTimestampFilter { .. }
        | SendPeerStorage { .. }
        | SendPeerStorageRetrieval { .. } => false,
        HandleError { action, .. } => match action {
            ErrorAction::SendErrorMessage { .. } | ErrorAction::DisconnectPeer { msg: Some(_) } => true,
            ErrorAction::DisconnectPeer { msg: None }
            | ErrorAction::DisconnectPeerWithWarning { .. }
            | ErrorAction::SendWarningMessage { .. }
            | ErrorAction::IgnoreError
            | ErrorAction::IgnoreAndLog(_)
            | ErrorAction::IgnoreDuplicateGossip => false,
        },
        SendOpenChannel { .. }
        | SendOpenChannelV2 { .. }
        | SendAcceptChannel { .. }
        | SendAcceptChannelV2 { .. }
        | SendFundingCreated { .. }
        | SendFundingSigned { .. }
        | SendChannelReady { .. }
        | SendAnnouncementSignatures { .. }
        | SendStfu { .. }
        | SendSpliceInit { .. }
        | SendSpliceAck { .. }
        | SendSpliceLocked { .. }
        | SendTxAddInput { .. }
        | SendTxAddOutput { .. }
        | SendTxRemoveInput { .. }
        | SendTxRemoveOutput { .. }
        | SendTxComplete { .. }
        | SendTxSignatures { .. }
        | SendTxInitRbf { .. }
        | SendTxAckRbf { .. }
        | SendTxAbort { .. }
        | SendShutdown { .. }
        | SendClosingSigned { .. }
        | SendClosingComplete { .. }
        | SendClosingSig { .. } => true,
    }
}

/// Whom a message is for and which channel it is about, all zeros if none; `None` for gossip to everyone.
pub fn address(event: &MessageSendEvent) -> Option<(PublicKey, ChannelId)> {
    use MessageSendEvent::*;
    let (peer, channel) = match event {
        BroadcastChannelAnnouncement { .. } | BroadcastChannelUpdate { .. } | BroadcastNodeAnnouncement { .. } => {
            return None;
        }
        SendOpenChannel { node_id, msg } => (node_id, msg.common_fields.temporary_channel_id),
        SendOpenChannelV2 { node_id, msg } => (node_id, msg.common_fields.temporary_channel_id),
        SendAcceptChannel { node_id, msg } => (node_id, msg.common_fields.temporary_channel_id),
        SendAcceptChannelV2 { node_id, msg } => (node_id, msg.common_fields.temporary_channel_id),
        SendFundingCreated { node_id, msg } => (node_id, msg.temporary_channel_id),
        SendFundingSigned { node_id, msg } => (node_id, msg.channel_id),
        SendStfu { node_id, msg } => (node_id, msg.channel_id),
        SendSpliceInit { node_id, msg } => (node_id, msg.channel_id),
        SendSpliceAck { node_id, msg } => (node_id, msg.channel_id),
        SendSpliceLocked { node_id, msg } => (node_id, msg.channel_id),
        SendTxAddInput { node_id, msg } => (node_id, msg.channel_id),
        SendTxAddOutput { node_id, msg } => (node_id, msg.channel_id),
        SendTxRemoveInput { node_id, msg } => (node_id, msg.channel_id),
        SendTxRemoveOutput { node_id, msg } => (node_id, msg.channel_id),
        SendTxComplete { node_id, msg } => (node_id, msg.channel_id),
        SendTxSignatures { node_id, msg } => (node_id, msg.channel_id),
        SendTxInitRbf { node_id, msg } => (node_id, msg.channel_id),
        SendTxAckRbf { node_id, msg } => (node_id, msg.channel_id),
        SendTxAbort { node_id, msg } => (node_id, msg.channel_id),
        SendChannelReady { node_id, msg } => (node_id, msg.channel_id),
        SendAnnouncementSignatures { node_id, msg } => (node_id, msg.channel_id),
        UpdateHTLCs { node_id, channel_id, .. } => (node_id, *channel_id),
        SendRevokeAndACK { node_id, msg } => (node_id, msg.channel_id),
        SendClosingSigned { node_id, msg } => (node_id, msg.channel_id),
        SendClosingComplete { node_id, msg } => (node_id, msg.channel_id),
        SendClosingSig { node_id, msg } => (node_id, msg.channel_id),
        SendShutdown { node_id, msg } => (node_id, msg.channel_id),
        SendChannelReestablish { node_id, msg } => (node_id, msg.channel_id),
        HandleError { node_id, action } => match action {
            ErrorAction::SendErrorMessage { msg } | ErrorAction::DisconnectPeer { msg: Some(msg) } => {
                (node_id, msg.channel_id)
            }
            _ => (node_id, ChannelId::new_zero()),
        },
        SendChannelAnnouncement { node_id, .. }
        | SendChannelUpdate { node_id, .. }
        | SendChannelRangeQuery { node_id, .. }
        | SendShortIdsQuery { node_id, .. }
        | SendReplyChannelRange { node_id, .. }
        | SendGossipTimestampFilter { node_id, .. }
        | SendPeerStorage { node_id, .. }
        | SendPeerStorageRetrieval { node_id, .. } => (node_id, ChannelId::new_zero()),
    };
    Some((*peer, channel))
}

pub fn is_shutdown(event: &MessageSendEvent) -> bool {
    matches!(event, MessageSendEvent::SendShutdown { .. })
}
