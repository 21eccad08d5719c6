//! The gate before a manager that says what it is told to say and notes what it hears.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use bitcoin::{
    ScriptBuf,
    secp256k1::{Secp256k1, SecretKey, ecdsa::Signature},
};
use lightning::{
    ln::msgs::{CommitmentUpdate, Init},
    types::payment::PaymentHash,
};

use super::*;

struct Manager {
    says: Mutex<Vec<MessageSendEvent>>,
    hears: Mutex<Vec<&'static str>>,
    state: Mutex<ClosingState>,
    unacknowledged: AtomicBool,
    height: AtomicU32,
    /// A monitor update is under way: no channel can be closed.
    busy: AtomicBool,
}

impl ChannelView for Manager {
    fn closing_state(&self, _: &PublicKey, _: &ChannelId) -> ClosingState {
        *self.state.lock().unwrap()
    }

    fn unacknowledged_adds(&self, _: &PublicKey, _: &ChannelId) -> bool {
        self.unacknowledged.load(Ordering::SeqCst)
    }

    fn height(&self) -> u32 {
        self.height.load(Ordering::SeqCst)
    }

    fn close(&self, _: &PublicKey, _: &ChannelId) -> Result<(), APIError> {
        if self.busy.load(Ordering::SeqCst) {
            return Err(APIError::ChannelUnavailable { err: "a monitor update is under way".to_owned() });
        }
        self.hears.lock().unwrap().push("close");
        *self.state.lock().unwrap() = ClosingState::Initiated;
        Ok(())
    }
}

impl BaseMessageHandler for Manager {
    fn get_and_clear_pending_msg_events(&self) -> Vec<MessageSendEvent> {
        std::mem::take(&mut *self.says.lock().unwrap())
    }

    fn peer_disconnected(&self, _: PublicKey) {}

    fn provided_node_features(&self) -> NodeFeatures {
        let mut features = NodeFeatures::empty();
        features.set_splicing_optional();
        features
    }

    fn provided_init_features(&self, _: PublicKey) -> InitFeatures {
        let mut features = InitFeatures::empty();
        features.set_splicing_optional();
        features
    }

    fn peer_connected(&self, _: PublicKey, _: &Init, _: bool) -> Result<(), ()> {
        Ok(())
    }
}

macro_rules! note {
    ($($name:ident($message:ty)),* $(,)?) => {
        $(fn $name(&self, _: PublicKey, _: $message) {
            self.hears.lock().unwrap().push(stringify!($name));
        })*
    };
}

impl ChannelMessageHandler for Manager {
    note! {
        handle_open_channel(&msgs::OpenChannel),
        handle_open_channel_v2(&msgs::OpenChannelV2),
        handle_accept_channel(&msgs::AcceptChannel),
        handle_accept_channel_v2(&msgs::AcceptChannelV2),
        handle_funding_created(&msgs::FundingCreated),
        handle_funding_signed(&msgs::FundingSigned),
        handle_channel_ready(&msgs::ChannelReady),
        handle_peer_storage(msgs::PeerStorage),
        handle_peer_storage_retrieval(msgs::PeerStorageRetrieval),
        handle_shutdown(&msgs::Shutdown),
        handle_closing_signed(&msgs::ClosingSigned),
        handle_stfu(&msgs::Stfu),
        handle_splice_init(&msgs::SpliceInit),
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
        handle_update_add_htlc(&msgs::UpdateAddHTLC),
        handle_update_fulfill_htlc(msgs::UpdateFulfillHTLC),
        handle_update_fail_htlc(&msgs::UpdateFailHTLC),
        handle_update_fail_malformed_htlc(&msgs::UpdateFailMalformedHTLC),
        handle_commitment_signed(&msgs::CommitmentSigned),
        handle_revoke_and_ack(&msgs::RevokeAndACK),
        handle_update_fee(&msgs::UpdateFee),
        handle_announcement_signatures(&msgs::AnnouncementSignatures),
        handle_channel_reestablish(&msgs::ChannelReestablish),
        handle_channel_update(&msgs::ChannelUpdate),
        handle_error(&msgs::ErrorMessage),
    }

    fn handle_commitment_signed_batch(&self, _: PublicKey, _: ChannelId, _: Vec<msgs::CommitmentSigned>) {}

    fn get_chain_hashes(&self) -> Option<Vec<ChainHash>> {
        None
    }

    fn message_received(&self) {}
}

/// Whether peers have repeated all that they have to repeat.
#[derive(Clone, Default)]
struct Repeated(Arc<AtomicBool>, CloseSigned, Arc<AtomicU32>);

/// Whether the signer has signed a close of [`CHANNEL`].
type CloseSigned = Arc<AtomicBool>;

impl GateHooks for Repeated {
    fn has_repeated(&self, _: &PublicKey, _: Instant) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    fn close_signed(&self, channel: &ChannelId) -> bool {
        *channel == CHANNEL && self.1.load(Ordering::SeqCst)
    }

    fn htlc_arrived(&self, _: &msgs::UpdateAddHTLC) {
        self.2.fetch_add(1, Ordering::SeqCst);
    }
}

struct Setup {
    gate: MessageGate<Arc<Manager>>,
    manager: Arc<Manager>,
    queue: Arc<CommitQueue>,
    repeated: Repeated,
}

const CHANNEL: ChannelId = ChannelId([7; 32]);
const OTHER: ChannelId = ChannelId([8; 32]);

fn peer() -> PublicKey {
    SecretKey::from_slice(&[1; 32]).unwrap().public_key(&Secp256k1::new())
}

fn setup(state: ClosingState) -> Setup {
    let manager = Arc::new(Manager {
        says: Mutex::default(),
        hears: Mutex::default(),
        state: Mutex::new(state),
        unacknowledged: AtomicBool::new(false),
        height: AtomicU32::new(100),
        busy: AtomicBool::new(false),
    });
    let (queue, repeated) = (Arc::new(CommitQueue::default()), Repeated::default());
    let gate = MessageGate::with_hooks(manager.clone(), queue.clone(), Box::new(repeated.clone()));
    Setup { gate, manager, queue, repeated }
}

impl Setup {
    fn say(&self, event: MessageSendEvent) {
        self.manager.says.lock().unwrap().push(event);
    }

    /// A commit that was encoded by now becomes durable.
    fn commit(&self) {
        let (_, taken) = self.queue.pending().take();
        self.queue.release_messages(taken.held);
    }

    /// The names of the messages that go out now.
    fn out(&self) -> Vec<&'static str> {
        let name = |event| match event {
            MessageSendEvent::SendShutdown { msg, .. } if msg.channel_id == OTHER => "shutdown of another channel",
            MessageSendEvent::SendShutdown { .. } => "shutdown",
            MessageSendEvent::SendClosingSigned { .. } => "closing_signed",
            MessageSendEvent::UpdateHTLCs { .. } => "updates",
            MessageSendEvent::SendChannelReestablish { .. } => "channel_reestablish",
            other => panic!("{other:?}"),
        };
        self.gate.get_and_clear_pending_msg_events().into_iter().map(name).collect()
    }

    /// What the manager was handed since this was last asked.
    fn heard(&self) -> Vec<&'static str> {
        std::mem::take(&mut *self.manager.hears.lock().unwrap())
    }
}

fn shutdown(channel_id: ChannelId) -> msgs::Shutdown {
    msgs::Shutdown { channel_id, scriptpubkey: ScriptBuf::new() }
}

fn send_shutdown(channel_id: ChannelId) -> MessageSendEvent {
    MessageSendEvent::SendShutdown { node_id: peer(), msg: shutdown(channel_id) }
}

fn closing_signed() -> msgs::ClosingSigned {
    let signature = Signature::from_compact(&[1; 64]).unwrap();
    msgs::ClosingSigned { channel_id: CHANNEL, fee_satoshis: 1, signature, fee_range: None }
}

fn updates() -> MessageSendEvent {
    let updates = CommitmentUpdate {
        update_add_htlcs: vec![],
        update_fulfill_htlcs: vec![],
        update_fail_htlcs: vec![],
        update_fail_malformed_htlcs: vec![],
        update_fee: None,
        commitment_signed: vec![],
    };
    MessageSendEvent::UpdateHTLCs { node_id: peer(), channel_id: CHANNEL, updates }
}

fn reestablish(next_local_commitment_number: u64) -> msgs::ChannelReestablish {
    msgs::ChannelReestablish {
        channel_id: CHANNEL,
        next_local_commitment_number,
        next_remote_commitment_number: 0,
        your_last_per_commitment_secret: [0; 32],
        my_current_per_commitment_point: peer(),
        next_funding: None,
        my_current_funding_locked: None,
    }
}

#[test]
fn p2_a_message_waits_for_a_commit_that_was_taken_after_it_and_others_of_its_channel_wait_behind_it() {
    let setup = setup(ClosingState::Open);
    let resumes = MessageSendEvent::SendChannelReestablish { node_id: peer(), msg: reestablish(1) };
    let (_, before) = setup.queue.pending().take();
    setup.say(send_shutdown(CHANNEL));
    assert!(setup.out().is_empty());
    setup.queue.release_messages(before.held);
    assert!(setup.out().is_empty(), "released by a commit that was taken before the message was there");
    // Waits for its turn only.
    setup.say(resumes);
    assert!(setup.out().is_empty());
    setup.commit();
    assert_eq!(setup.out(), ["shutdown", "channel_reestablish"]);
    assert!(setup.out().is_empty());
}

#[test]
fn a_shutdown_waits_for_htlcs_that_are_not_acknowledged_and_lets_updates_pass() {
    let setup = setup(ClosingState::Open);
    setup.manager.unacknowledged.store(true, Ordering::SeqCst);
    setup.say(send_shutdown(CHANNEL));
    assert!(setup.out().is_empty());
    setup.commit();
    setup.say(updates());
    assert_eq!(setup.out(), ["updates"]);
    setup.manager.unacknowledged.store(false, Ordering::SeqCst);
    assert_eq!(setup.out(), ["shutdown"]);
}

#[test]
fn what_waits_for_a_peer_is_gone_with_the_connection() {
    let setup = setup(ClosingState::Open);
    setup.say(send_shutdown(CHANNEL));
    setup.say(send_shutdown(OTHER));
    assert!(setup.out().is_empty());
    setup.gate.peer_disconnected(peer());
    setup.commit();
    assert!(setup.out().is_empty());
}

#[test]
fn channels_do_not_wait_for_each_other() {
    let setup = setup(ClosingState::Open);
    setup.say(send_shutdown(OTHER));
    setup.say(updates());
    assert_eq!(setup.out(), ["updates"]);
    setup.commit();
    assert_eq!(setup.out(), ["shutdown of another channel"]);
}

#[test]
fn p7_a_peer_that_finished_a_close_before_us_does_not_make_us_force_it() {
    let setup = setup(ClosingState::Negotiating);
    let unknown = msgs::ErrorMessage { channel_id: CHANNEL, data: "no such channel".to_owned() };
    setup.gate.handle_error(peer(), &unknown);
    setup.gate.handle_channel_reestablish(peer(), &reestablish(0));
    assert!(setup.heard().is_empty());
    // The closing transaction had its time.
    setup.manager.height.fetch_add(CLOSING_PATIENCE_BLOCKS, Ordering::SeqCst);
    setup.gate.handle_error(peer(), &unknown);
    assert_eq!(setup.heard(), ["handle_error"]);
}

#[test]
fn nothing_is_remembered_of_channels_that_are_not_there() {
    let setup = setup(ClosingState::Unknown);
    // Were it remembered as resumed, its `shutdown` would wait.
    setup.gate.handle_channel_reestablish(peer(), &reestablish(5));
    setup.gate.handle_shutdown(peer(), &shutdown(CHANNEL));
    assert_eq!(setup.heard(), ["handle_channel_reestablish", "handle_shutdown"]);
    // One that closes well is, until it is gone.
    let unknown = |channel_id| msgs::ErrorMessage { channel_id, data: "no such channel".to_owned() };
    *setup.manager.state.lock().unwrap() = ClosingState::Negotiating;
    setup.gate.handle_error(peer(), &unknown(CHANNEL));
    assert!(setup.gate.waiting.lock().unwrap().contains_key(&CHANNEL));
    *setup.manager.state.lock().unwrap() = ClosingState::Unknown;
    setup.gate.handle_error(peer(), &unknown(OTHER));
    assert!(setup.gate.waiting.lock().unwrap().is_empty());
}

#[test]
fn an_error_about_an_open_channel_is_heard() {
    let setup = setup(ClosingState::Open);
    let error = msgs::ErrorMessage { channel_id: CHANNEL, data: "enough".to_owned() };
    setup.gate.handle_error(peer(), &error);
    setup.gate.handle_channel_reestablish(peer(), &reestablish(0));
    assert_eq!(setup.heard(), ["handle_error", "handle_channel_reestablish"]);
}

#[test]
fn two_nodes_that_do_not_know_a_channel_do_not_tell_each_other_for_ever() {
    let setup = setup(ClosingState::Unknown);
    setup.gate.handle_channel_reestablish(peer(), &reestablish(0));
    assert!(setup.heard().is_empty());
    // This one knows it, and has to be told that we do not.
    setup.gate.handle_channel_reestablish(peer(), &reestablish(5));
    assert_eq!(setup.heard(), ["handle_channel_reestablish"]);
}

#[test]
fn a_shutdown_on_a_new_connection_waits_for_what_the_peer_repeats() {
    let setup = setup(ClosingState::Open);
    setup.gate.handle_channel_reestablish(peer(), &reestablish(5));
    setup.gate.handle_shutdown(peer(), &shutdown(CHANNEL));
    setup.out();
    assert_eq!(setup.heard(), ["handle_channel_reestablish"]);
    setup.repeated.0.store(true, Ordering::SeqCst);
    setup.out();
    assert_eq!(setup.heard(), ["handle_shutdown"]);
    setup.out();
    assert!(setup.heard().is_empty());
}

#[test]
fn a_closing_signed_shows_that_nothing_is_repeated_any_more() {
    let setup = setup(ClosingState::Open);
    setup.gate.handle_channel_reestablish(peer(), &reestablish(5));
    setup.gate.handle_shutdown(peer(), &shutdown(CHANNEL));
    setup.gate.handle_closing_signed(peer(), &closing_signed());
    assert_eq!(setup.heard(), ["handle_channel_reestablish", "handle_shutdown", "handle_closing_signed"]);
}

#[test]
fn a_shutdown_that_waited_is_forgotten_with_the_connection_and_later_ones_do_not_wait() {
    let setup = setup(ClosingState::Open);
    setup.gate.handle_channel_reestablish(peer(), &reestablish(5));
    setup.gate.handle_shutdown(peer(), &shutdown(CHANNEL));
    setup.gate.peer_disconnected(peer());
    setup.repeated.0.store(true, Ordering::SeqCst);
    setup.out();
    assert_eq!(setup.heard(), ["handle_channel_reestablish"]);
    // A channel that was opened on this connection has nothing to resume.
    setup.repeated.0.store(false, Ordering::SeqCst);
    setup.gate.handle_shutdown(peer(), &shutdown(OTHER));
    assert_eq!(setup.heard(), ["handle_shutdown"]);
}

/// A crash came between the signer's signature under a closing transaction and its commit.
#[test]
fn p2_a_channel_whose_close_is_signed_is_closed_again_when_it_resumes() {
    let setup = setup(ClosingState::Open);
    setup.gate.handle_channel_reestablish(peer(), &reestablish(5));
    assert_eq!(setup.heard(), ["handle_channel_reestablish"], "no close is signed");
    setup.repeated.1.store(true, Ordering::SeqCst);
    setup.gate.handle_channel_reestablish(peer(), &msgs::ChannelReestablish { channel_id: OTHER, ..reestablish(5) });
    assert_eq!(setup.heard(), ["handle_channel_reestablish"], "that of another channel is");
    setup.gate.handle_channel_reestablish(peer(), &reestablish(5));
    assert_eq!(setup.heard(), ["handle_channel_reestablish", "close"]);
    setup.gate.handle_channel_reestablish(peer(), &reestablish(5));
    setup.out();
    assert_eq!(setup.heard(), ["handle_channel_reestablish"], "it is being closed");
}

#[test]
fn what_cannot_be_closed_again_at_once_is_closed_later_on_the_same_connection() {
    let setup = setup(ClosingState::Open);
    setup.repeated.1.store(true, Ordering::SeqCst);
    setup.manager.busy.store(true, Ordering::SeqCst);
    setup.gate.handle_channel_reestablish(peer(), &reestablish(5));
    setup.out();
    assert_eq!(setup.heard(), ["handle_channel_reestablish"]);
    setup.manager.busy.store(false, Ordering::SeqCst);
    setup.out();
    setup.out();
    assert_eq!(setup.heard(), ["close"]);
    // Without the peer there is nothing to close.
    *setup.manager.state.lock().unwrap() = ClosingState::Open;
    setup.manager.busy.store(true, Ordering::SeqCst);
    setup.gate.handle_channel_reestablish(peer(), &reestablish(5));
    setup.gate.peer_disconnected(peer());
    setup.manager.busy.store(false, Ordering::SeqCst);
    setup.out();
    assert_eq!(setup.heard(), ["handle_channel_reestablish"]);
}

/// Nobody is told that the node splices, and who tries it all the same is told that it does not; LDK never hears of it.
#[test]
fn a_splice_is_refused_before_the_manager_hears_of_it() {
    let Setup { gate, manager, .. } = setup(ClosingState::Open);
    assert!(!gate.provided_init_features(peer()).supports_splicing());
    assert!(!gate.provided_node_features().supports_splicing());
    let splice = msgs::SpliceInit {
        channel_id: CHANNEL,
        funding_contribution_satoshis: -5000,
        funding_feerate_per_kw: 253,
        locktime: 0,
        funding_pubkey: peer(),
        require_confirmed_inputs: None,
    };
    gate.handle_splice_init(peer(), &splice);
    assert!(manager.hears.lock().unwrap().is_empty());
    let out = gate.get_and_clear_pending_msg_events();
    let [MessageSendEvent::HandleError { node_id, action }] = out.as_slice() else { panic!("{out:?}") };
    let msgs::ErrorAction::DisconnectPeerWithWarning { msg } = action else { panic!("{action:?}") };
    assert_eq!((*node_id, msg.channel_id, msg.data.as_str()), (peer(), CHANNEL, "splicing is not supported"));
}

fn htlc(channel_id: ChannelId) -> msgs::UpdateAddHTLC {
    msgs::UpdateAddHTLC {
        channel_id,
        htlc_id: 0,
        amount_msat: 1000,
        payment_hash: PaymentHash([1; 32]),
        cltv_expiry: 500,
        skimmed_fee_msat: None,
        onion_routing_packet: msgs::OnionPacket {
            version: 0,
            public_key: Ok(peer()),
            hop_data: [0; 1300],
            hmac: [0; 32],
        },
        blinding_point: None,
        hold_htlc: None,
    }
}

/// The signer is asked about the onions of HTLCs, and so must not be asked about those of channels that are not there.
#[test]
fn only_htlcs_of_channels_with_the_peer_that_sent_them_are_looked_into() {
    let setup = setup(ClosingState::Unknown);
    let looked_into = || setup.repeated.2.swap(0, Ordering::SeqCst);
    let ready =
        |channel_id| msgs::ChannelReady { channel_id, next_per_commitment_point: peer(), short_channel_id_alias: None };
    for channel in [CHANNEL, OTHER] {
        setup
            .gate
            .handle_channel_reestablish(peer(), &msgs::ChannelReestablish { channel_id: channel, ..reestablish(5) });
        setup.gate.handle_channel_ready(peer(), &ready(channel));
        setup.gate.handle_update_add_htlc(peer(), &htlc(channel));
    }
    assert_eq!(looked_into(), 0);

    *setup.manager.state.lock().unwrap() = ClosingState::Open;
    setup.gate.handle_channel_reestablish(peer(), &reestablish(5));
    let stranger = SecretKey::from_slice(&[2; 32]).unwrap().public_key(&Secp256k1::new());
    setup.gate.handle_update_add_htlc(stranger, &htlc(CHANNEL));
    setup.gate.handle_update_add_htlc(peer(), &htlc(OTHER));
    assert_eq!(looked_into(), 0);
    setup.gate.handle_update_add_htlc(peer(), &htlc(CHANNEL));
    setup.gate.handle_channel_ready(peer(), &ready(OTHER));
    setup.gate.handle_update_add_htlc(peer(), &htlc(OTHER));
    assert_eq!(looked_into(), 2);
    setup.gate.peer_disconnected(peer());
    setup.gate.handle_update_add_htlc(peer(), &htlc(CHANNEL));
    assert_eq!(looked_into(), 0, "it has to resume the channel first");
    assert_eq!(setup.heard().iter().filter(|name| **name == "handle_update_add_htlc").count(), 7, "LDK hears of all");
}
