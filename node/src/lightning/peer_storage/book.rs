//! Which peer is to be sent what, and when: plain data, without a clock and without IO.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use bitcoin::secp256k1::PublicKey;

use super::blob::{Channel, Named, Packed};

/// A peer gives back what it keeps before anything else (BOLT 1). One that has been silent for so long keeps nothing.
const SILENCE: Duration = Duration::from_secs(10);

/// Peers may pass over what comes more often than once a minute (BOLT 1). Besides, whoever opens channels with us should
/// not make us write to all others each time.
const PAUSE: Duration = Duration::from_secs(60);

/// So many blobs are made in one go; the others follow at once.
const AT_ONCE: usize = 16;

/// What the database holds that is worth leaving with peers.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Content {
    pub channels: Vec<Channel>,
    /// With whom there is a channel that is not closed. Others do not keep anything for us.
    pub peers: BTreeSet<PublicKey>,
}

#[derive(Default)]
pub struct Book {
    content: Arc<Content>,
    /// What is not committed yet, and with which commit it will be.
    waiting: Option<(u64, Arc<Content>)>,
    /// Those that are connected.
    peers: HashMap<PublicKey, Peer>,
    /// Those that may have to be sent something.
    due: BTreeSet<PublicKey>,
}

struct Peer {
    /// Whether it says that it keeps what it is sent.
    keeps: bool,
    since: Instant,
    /// Whether it has said anything after which nothing is given back.
    heard: bool,
    returned: Returned,
    /// What it holds as far as we know.
    holds: Option<Packed>,
    sent: Option<Instant>,
}

/// What became of what a peer gave back. Nothing is left with it while something may be lost by that.
#[derive(Debug, PartialEq, Eq)]
enum Returned {
    Nothing,
    /// Channels that we may not know, and that nobody has looked at.
    Unknown(Vec<Named>),
    /// They are looked at.
    Judged,
    Done,
}

impl Book {
    pub fn connected(&mut self, peer: PublicKey, keeps: bool, now: Instant) {
        let state = Peer { keeps, since: now, heard: false, returned: Returned::Nothing, holds: None, sent: None };
        self.peers.insert(peer, state);
        self.due.insert(peer);
    }

    pub fn disconnected(&mut self, peer: &PublicKey) {
        self.peers.remove(peer);
        self.due.remove(peer);
    }

    /// It resumes a channel.
    pub fn heard(&mut self, peer: &PublicKey) {
        if let Some(peer) = self.peers.get_mut(peer) {
            peer.heard = true;
        }
    }

    /// Whether a peer may give something back: once a connection.
    pub fn expects(&self, peer: &PublicKey) -> bool {
        self.peers.get(peer).is_some_and(|peer| peer.returned == Returned::Nothing)
    }

    /// It gave back what is not ours, or not whole.
    pub fn gave_rubbish(&mut self, peer: &PublicKey) {
        if let Some(peer) = self.peers.get_mut(peer) {
            peer.returned = Returned::Done;
        }
    }

    /// It gave back what we had left with it. Returns whether there is something to judge.
    pub fn gave_back(&mut self, peer: &PublicKey, content: Packed, channels: Vec<Named>) -> bool {
        let newest = self.newest();
        let is_known = |channel: &Named| newest.channels.iter().any(|known| known.id == channel.0);
        let unknown: Vec<Named> = channels.into_iter().filter(|channel| !is_known(channel)).collect();
        let Some(peer) = self.peers.get_mut(peer) else { return false };
        peer.holds = Some(content);
        peer.returned = if unknown.is_empty() { Returned::Done } else { Returned::Unknown(unknown) };
        peer.returned != Returned::Done
    }

    /// All that waits to be judged, and by whom it was given back.
    pub fn take_unknown(&mut self) -> Vec<(PublicKey, Vec<Named>)> {
        let mut taken = Vec::new();
        for (node_id, peer) in &mut self.peers {
            if let Returned::Unknown(channels) = &mut peer.returned {
                taken.push((*node_id, std::mem::take(channels)));
                peer.returned = Returned::Judged;
            }
        }
        taken
    }

    /// What a peer gave back is in the database now, as far as it is worth it.
    pub fn judged(&mut self, peer: &PublicKey) {
        if let Some(peer) = self.peers.get_mut(peer).filter(|peer| peer.returned == Returned::Judged) {
            peer.returned = Returned::Done;
        }
    }

    /// The database will hold this after the commit of that number.
    pub fn changed(&mut self, content: Content, commit: u64) {
        if content != **self.newest() {
            self.waiting = Some((commit, Arc::new(content)));
        }
    }

    fn newest(&self) -> &Arc<Content> {
        self.waiting.as_ref().map_or(&self.content, |(_, content)| content)
    }

    /// Whom to send what now, when so many commits are done. They count as having it.
    pub fn due(&mut self, committed: u64, now: Instant) -> Vec<(PublicKey, Packed)> {
        if let Some((_, content)) = self.waiting.take_if(|(commit, _)| *commit <= committed) {
            self.due.extend(content.peers.iter().filter(|peer| self.peers.contains_key(peer)));
            self.content = content;
        }
        let Self { content, peers, due, .. } = self;
        let mut out = Vec::new();
        due.retain(|node_id| {
            let Some(peer) = peers.get_mut(node_id).filter(|peer| peer.keeps) else { return false };
            // With a channel it is due again.
            if !content.peers.contains(node_id) {
                return false;
            }
            if out.len() >= AT_ONCE || !peer.may_be_sent(now) {
                return true;
            }
            let packed = Packed::of(node_id, &content.channels);
            if peer.holds.as_ref() != Some(&packed) {
                peer.holds = Some(packed.clone());
                peer.sent = Some(now);
                out.push((*node_id, packed));
            }
            false
        });
        out
    }

    /// Whether a connected peer holds something of ours.
    pub fn is_held_by(&self, peer: &PublicKey) -> bool {
        self.peers.get(peer).is_some_and(|peer| peer.holds.is_some())
    }
}

impl Peer {
    fn may_be_sent(&self, now: Instant) -> bool {
        let has_given_back = match self.returned {
            Returned::Nothing => self.heard || now.saturating_duration_since(self.since) >= SILENCE,
            Returned::Unknown(_) | Returned::Judged => false,
            Returned::Done => true,
        };
        has_given_back && self.sent.is_none_or(|sent| now.saturating_duration_since(sent) >= PAUSE)
    }
}

#[cfg(test)]
mod tests;
