//! What happens at the moment a channel resumes: the database's word is held against the signer's (P6), and shared secrets
//! are fetched before LDK asks for them.
//!
//! The signer never falls behind: its record is durable before it answers. So if it has gone further with a channel than
//! the database says, the database lost something, be it through a restored backup or a standby that was not up to date.
//! Such a channel is not resumed. The signer would refuse to revoke or sign a state twice anyway; not resuming keeps
//! LDK from closing it by force, and leaves the decision to the operator or the peer.
//!
//! The other way round, a signer that has not seen what the database committed has lost its record (an older or an empty
//! guard): it would refuse what LDK asks, and LDK would close the channel. That is judged once a term, when a channel
//! first resumes; later the node is ahead of what the signer said at its start.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

use bitcoin::{ScriptBuf, secp256k1::PublicKey};
use holdfast_proto::error::Error;
use holdfast_signer_client::{RemoteChannelSigner, RemoteKeys, v1};
use lightning::{
    ln::{
        msgs::{ChannelReestablish, UpdateAddHTLC},
        script::ShutdownScript,
        types::ChannelId,
    },
    sign::SignerProvider,
};

use super::{gate::GateHooks, recovery::Asked};

/// How many channels the signer is asked about at once.
const AT_ONCE: usize = 16;

/// Compares channels with the signer's records as of the start of this term.
pub struct Resume {
    keys: Arc<RemoteKeys>,
    states: HashMap<ChannelId, v1::GetChannelStateResponse>,
    held: Mutex<BTreeSet<ChannelId>>,
    asked: Arc<Asked>,
    resumed: Mutex<BTreeSet<ChannelId>>,
}

impl Resume {
    /// Asks the signer about each channel. Blocks while it is away.
    pub fn ask(keys: Arc<RemoteKeys>, channels: &[(ChannelId, [u8; 32])]) -> Result<Self, Error> {
        let share = channels.len().div_ceil(AT_ONCE).max(1);
        let states = thread::scope(|scope| {
            let asked: Vec<_> = channels
                .chunks(share)
                .map(|share| {
                    let keys = &keys;
                    scope.spawn(move || {
                        let ask = |(id, keys_id): &(ChannelId, [u8; 32])| Ok((*id, keys.channel_state(*keys_id)?));
                        share.iter().map(ask).collect::<Result<Vec<_>, Error>>()
                    })
                })
                .collect();
            let mut states = HashMap::with_capacity(channels.len());
            for asking in asked {
                match asking.join() {
                    Ok(answers) => states.extend(answers?),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            Ok::<_, Error>(states)
        })?;
        Ok(Self { keys, states, held: Mutex::default(), asked: Arc::default(), resumed: Mutex::default() })
    }

    /// Which peers were told that a channel which is to be recovered is lost.
    pub fn asked(&self) -> Arc<Asked> {
        self.asked.clone()
    }

    /// The channels that are not run because the database is behind the signer.
    pub fn held(&self) -> Vec<ChannelId> {
        self.lock().iter().copied().collect()
    }

    /// The channels of which the signer had signed our commitment for broadcast, and its number.
    pub fn signed_for_broadcast(&self) -> HashMap<ChannelId, u64> {
        signed_for_broadcast(&self.states)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<ChannelId>> {
        // Each change is a single insert.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl GateHooks for Resume {
    fn may_resume(&self, message: &ChannelReestablish) -> bool {
        let Some(state) = self.states.get(&message.channel_id) else { return true };
        let (next_holder, next_revocation) =
            (message.next_local_commitment_number, message.next_remote_commitment_number);
        if let Some(why) = behind(state, next_holder, next_revocation) {
            if self.lock().insert(message.channel_id) {
                tracing::error!(channel = %message.channel_id, why, "database behind signer: this channel is not run");
            }
            return false;
        }
        if self.lock().contains(&message.channel_id) {
            return false;
        }
        // Each change is a single insert.
        let first = self.resumed.lock().unwrap_or_else(PoisonError::into_inner).insert(message.channel_id);
        if first && let Some(why) = forgotten(state, next_holder, next_revocation) {
            self.lock().insert(message.channel_id);
            tracing::error!(channel = %message.channel_id, why, "signer behind database: this channel is not run");
            return false;
        }
        true
    }

    fn unknown(&self, peer: &PublicKey, channel: &ChannelId) {
        self.asked.told(peer, channel);
    }

    fn is_held(&self, channel: &ChannelId) -> bool {
        self.lock().contains(channel)
    }

    fn close_signed(&self, channel: &ChannelId) -> bool {
        self.states.get(channel).is_some_and(|state| state.close_signed)
    }

    fn htlc_arrived(&self, message: &UpdateAddHTLC) {
        if let Ok(point) = message.onion_routing_packet.public_key {
            self.keys.prefetch_ecdh([point]);
        }
    }
}

/// Why the database's state of a channel, as `channel_reestablish` (BOLT 2) states it, is older than the signer's.
///
/// The order of every dance bounds how far the signer may be ahead of a commit: it revokes holder commitment n - 1 only
/// after n is committed, and signs counterparty commitment k + 2 only after the revocation of k is.
fn behind(signer: &v1::GetChannelStateResponse, next_holder: u64, next_revocation: u64) -> Option<String> {
    if let Some(revoked) = signer.holder_revoked.filter(|revoked| *revoked + 1 >= next_holder) {
        return Some(format!("our commitment {revoked} is revoked, and the database knows none after it"));
    }
    if let Some(signed) = signer.counterparty_number.filter(|signed| *signed > next_revocation + 1) {
        return Some(format!(
            "the peer's commitment {signed} is signed, and the database knows {next_revocation} revocations"
        ));
    }
    if let Some(revoked) = signer.counterparty_revoked.filter(|revoked| *revoked > next_revocation) {
        return Some(format!(
            "the peer revoked commitment {revoked}, and the database knows {next_revocation} revocations"
        ));
    }
    None
}

/// What the database has committed of a channel and the signer does not know: it was validated by the signer before.
fn forgotten(signer: &v1::GetChannelStateResponse, next_holder: u64, next_revocation: u64) -> Option<String> {
    // The first commitment is committed before the signer has the parameters to judge it.
    if next_holder > 1 && signer.holder_number.is_none_or(|number| number + 1 < next_holder) {
        return Some(format!("our commitment {} is committed, and the signer never validated it", next_holder - 1));
    }
    if next_revocation > 0 && signer.counterparty_revoked.is_none_or(|revoked| revoked + 1 < next_revocation) {
        return Some(format!("the peer revoked commitment {}, and the signer was not told", next_revocation - 1));
    }
    None
}

fn signed_for_broadcast(signer: &HashMap<ChannelId, v1::GetChannelStateResponse>) -> HashMap<ChannelId, u64> {
    signer.iter().filter_map(|(channel, state)| Some((*channel, state.holder_signed?))).collect()
}

/// Names the channels that are `open` although our commitment is `signed` for broadcast: the order to close them by force
/// was lost in a crash. The signer releases no more secrets of them, so they cannot go on. Returns how many there are.
pub fn warn_of_broadcasts(signed: &HashMap<ChannelId, u64>, open: impl IntoIterator<Item = ChannelId>) -> usize {
    let stuck = open.into_iter().filter_map(|channel| Some((channel, signed.get(&channel)?)));
    stuck
        .inspect(|(channel, number)| {
            tracing::error!(
                %channel,
                "our commitment {number} is signed for broadcast and the channel is open: the signer lets it go no further; \
                 `holdfast close {channel} --force` it"
            );
        })
        .count()
}

/// Hands out channel signers, and remembers for whom.
pub struct Recording<'a> {
    keys: &'a RemoteKeys,
    last: Mutex<Option<[u8; 32]>>,
}

impl<'a> Recording<'a> {
    pub fn new(keys: &'a RemoteKeys) -> Self {
        Self { keys, last: Mutex::default() }
    }

    /// The keys id of the signer handed out last.
    pub fn last(&self) -> Option<[u8; 32]> {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SignerProvider for Recording<'_> {
    type EcdsaSigner = RemoteChannelSigner;

    fn generate_channel_keys_id(&self, inbound: bool, user_channel_id: u128) -> [u8; 32] {
        self.keys.generate_channel_keys_id(inbound, user_channel_id)
    }

    fn derive_channel_signer(&self, channel_keys_id: [u8; 32]) -> RemoteChannelSigner {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(channel_keys_id);
        self.keys.derive_channel_signer(channel_keys_id)
    }

    fn get_destination_script(&self, channel_keys_id: [u8; 32]) -> Result<ScriptBuf, ()> {
        self.keys.get_destination_script(channel_keys_id)
    }

    fn get_shutdown_scriptpubkey(&self) -> Result<ShutdownScript, ()> {
        self.keys.get_shutdown_scriptpubkey()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signer(holder_revoked: Option<u64>, signed: Option<u64>, revoked: Option<u64>) -> v1::GetChannelStateResponse {
        v1::GetChannelStateResponse {
            known: true,
            counterparty_number: signed,
            counterparty_revoked: revoked,
            holder_revoked,
            ..Default::default()
        }
    }

    #[test]
    fn a_new_channel_resumes() {
        assert_eq!(behind(&signer(None, None, None), 1, 0), None);
        assert_eq!(behind(&signer(None, Some(0), None), 1, 0), None);
    }

    /// A crash between the signer's answer and the commit leaves the signer ahead by what the order of the dance allows.
    #[test]
    fn a_crash_in_the_middle_of_a_dance_resumes() {
        // Holder commitment 5 committed (so 6 is next), 4 revoked; the peer's 7 signed, 5 of theirs revoked of which the
        // database knows all but the last.
        assert_eq!(behind(&signer(Some(4), Some(6), Some(5)), 6, 5), None);
    }

    #[test]
    fn p8_a_signer_that_lost_its_record_does_not_resume() {
        let state = |holder_number, counterparty_revoked| v1::GetChannelStateResponse {
            holder_number,
            counterparty_revoked,
            ..Default::default()
        };
        // A new channel, and one whose signer has seen all that is committed, or one step more.
        assert_eq!(forgotten(&state(None, None), 1, 0), None);
        assert_eq!(forgotten(&state(Some(5), Some(4)), 6, 5), None);
        assert_eq!(forgotten(&state(Some(6), Some(5)), 6, 5), None);
        assert!(forgotten(&state(None, None), 2, 0).is_some());
        assert!(forgotten(&state(None, None), 1, 1).is_some());
        assert!(forgotten(&state(Some(4), Some(4)), 6, 5).is_some());
        assert!(forgotten(&state(Some(5), Some(3)), 6, 5).is_some());
    }

    #[test]
    fn a_commitment_that_is_signed_for_broadcast_is_told_of_while_its_channel_is_open() {
        let (open, signed, closed, new) =
            (ChannelId([1; 32]), ChannelId([2; 32]), ChannelId([3; 32]), ChannelId([4; 32]));
        let state = |holder_signed| v1::GetChannelStateResponse { holder_signed, ..Default::default() };
        let states = HashMap::from([(open, state(None)), (signed, state(Some(7))), (closed, state(Some(8)))]);
        let broadcast = signed_for_broadcast(&states);
        assert_eq!(broadcast, HashMap::from([(signed, 7), (closed, 8)]));
        assert_eq!(warn_of_broadcasts(&broadcast, [open, signed, new]), 1);
        assert_eq!(warn_of_broadcasts(&broadcast, [open, new]), 0);
    }

    #[test]
    fn p6_a_restored_database_does_not_resume() {
        assert!(behind(&signer(Some(5), None, None), 6, 9).is_some());
        assert!(behind(&signer(Some(6), None, None), 6, 9).is_some());
        assert!(behind(&signer(None, Some(7), None), 6, 5).is_some());
        assert!(behind(&signer(None, None, Some(6)), 6, 5).is_some());
    }
}
