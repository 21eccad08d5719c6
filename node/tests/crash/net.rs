//! Messages, one by one and in order on each link.

use bitcoin::secp256k1::PublicKey;
use lightning::ln::msgs::{self, ChannelMessageHandler, ErrorAction, MessageSendEvent};

#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "a handful of these are under way at a time")]
pub enum Message {
    OpenChannel(msgs::OpenChannel),
    AcceptChannel(msgs::AcceptChannel),
    FundingCreated(msgs::FundingCreated),
    FundingSigned(msgs::FundingSigned),
    ChannelReady(msgs::ChannelReady),
    AnnouncementSignatures(msgs::AnnouncementSignatures),
    Shutdown(msgs::Shutdown),
    ClosingSigned(msgs::ClosingSigned),
    AddHtlc(msgs::UpdateAddHTLC),
    FulfillHtlc(msgs::UpdateFulfillHTLC),
    FailHtlc(msgs::UpdateFailHTLC),
    FailMalformedHtlc(msgs::UpdateFailMalformedHTLC),
    UpdateFee(msgs::UpdateFee),
    CommitmentSigned(msgs::CommitmentSigned),
    RevokeAndAck(msgs::RevokeAndACK),
    Reestablish(msgs::ChannelReestablish),
    ChannelUpdate(msgs::ChannelUpdate),
    Error(msgs::ErrorMessage),
    Warning(msgs::WarningMessage),
    /// The sender hangs up.
    Disconnect,
}

/// What a peer manager would put on the wire for an event.
pub fn messages(event: MessageSendEvent) -> Option<(PublicKey, Vec<Message>)> {
    use MessageSendEvent::*;
    let one = |node_id, message| Some((node_id, vec![message]));
    match event {
        SendOpenChannel { node_id, msg } => one(node_id, Message::OpenChannel(msg)),
        SendAcceptChannel { node_id, msg } => one(node_id, Message::AcceptChannel(msg)),
        SendFundingCreated { node_id, msg } => one(node_id, Message::FundingCreated(msg)),
        SendFundingSigned { node_id, msg } => one(node_id, Message::FundingSigned(msg)),
        SendChannelReady { node_id, msg } => one(node_id, Message::ChannelReady(msg)),
        SendAnnouncementSignatures { node_id, msg } => one(node_id, Message::AnnouncementSignatures(msg)),
        SendShutdown { node_id, msg } => one(node_id, Message::Shutdown(msg)),
        SendClosingSigned { node_id, msg } => one(node_id, Message::ClosingSigned(msg)),
        SendRevokeAndACK { node_id, msg } => one(node_id, Message::RevokeAndAck(msg)),
        SendChannelReestablish { node_id, msg } => one(node_id, Message::Reestablish(msg)),
        SendChannelUpdate { node_id, msg } => one(node_id, Message::ChannelUpdate(msg)),
        UpdateHTLCs { node_id, updates, .. } => {
            let mut all = Vec::new();
            all.extend(updates.update_add_htlcs.into_iter().map(Message::AddHtlc));
            all.extend(updates.update_fulfill_htlcs.into_iter().map(Message::FulfillHtlc));
            all.extend(updates.update_fail_htlcs.into_iter().map(Message::FailHtlc));
            all.extend(updates.update_fail_malformed_htlcs.into_iter().map(Message::FailMalformedHtlc));
            all.extend(updates.update_fee.map(Message::UpdateFee));
            all.extend(updates.commitment_signed.into_iter().map(Message::CommitmentSigned));
            Some((node_id, all))
        }
        HandleError { node_id, action } => match action {
            ErrorAction::SendErrorMessage { msg } => one(node_id, Message::Error(msg)),
            ErrorAction::SendWarningMessage { msg, .. } => one(node_id, Message::Warning(msg)),
            ErrorAction::DisconnectPeer { msg } => {
                Some((node_id, msg.map(Message::Error).into_iter().chain([Message::Disconnect]).collect()))
            }
            ErrorAction::DisconnectPeerWithWarning { msg } => {
                Some((node_id, vec![Message::Warning(msg), Message::Disconnect]))
            }
            ErrorAction::IgnoreError | ErrorAction::IgnoreAndLog(_) | ErrorAction::IgnoreDuplicateGossip => None,
        },
        BroadcastChannelAnnouncement { .. } | BroadcastChannelUpdate { .. } | BroadcastNodeAnnouncement { .. } => None,
        other => panic!("no node here sends {other:?}"),
    }
}

pub fn deliver(to: &dyn ChannelMessageHandler, from: PublicKey, message: Message) {
    match message {
        Message::OpenChannel(msg) => to.handle_open_channel(from, &msg),
        Message::AcceptChannel(msg) => to.handle_accept_channel(from, &msg),
        Message::FundingCreated(msg) => to.handle_funding_created(from, &msg),
        Message::FundingSigned(msg) => to.handle_funding_signed(from, &msg),
        Message::ChannelReady(msg) => to.handle_channel_ready(from, &msg),
        Message::AnnouncementSignatures(msg) => to.handle_announcement_signatures(from, &msg),
        Message::Shutdown(msg) => to.handle_shutdown(from, &msg),
        Message::ClosingSigned(msg) => to.handle_closing_signed(from, &msg),
        Message::AddHtlc(msg) => to.handle_update_add_htlc(from, &msg),
        Message::FulfillHtlc(msg) => to.handle_update_fulfill_htlc(from, msg),
        Message::FailHtlc(msg) => to.handle_update_fail_htlc(from, &msg),
        Message::FailMalformedHtlc(msg) => to.handle_update_fail_malformed_htlc(from, &msg),
        Message::UpdateFee(msg) => to.handle_update_fee(from, &msg),
        Message::CommitmentSigned(msg) => to.handle_commitment_signed(from, &msg),
        Message::RevokeAndAck(msg) => to.handle_revoke_and_ack(from, &msg),
        Message::Reestablish(msg) => to.handle_channel_reestablish(from, &msg),
        Message::ChannelUpdate(msg) => to.handle_channel_update(from, &msg),
        Message::Error(msg) => to.handle_error(from, &msg),
        Message::Warning(_) | Message::Disconnect => {}
    }
}
