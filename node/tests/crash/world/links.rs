//! Links, and the messages on them.

use lightning::ln::msgs::Init;

use super::{ENDS, NAMES, OURS, World};
use crate::{
    net::{Message, deliver, messages},
    node::Keys,
};

impl<K: Keys> World<K> {
    pub(super) fn connect(&mut self, link: usize) {
        if self.links[link].connected {
            return;
        }
        // A peer manager fetches all the time; nothing is left over for the next connection.
        self.fetch_our_messages();
        self.settle_peer(link);
        self.links[link].connected = true;
        let (peer, ours) = (&self.peers[link], &self.ours.node);
        let init = |features| Init { features, networks: None, remote_network_address: None };
        let our_init = init(ours.handler.provided_init_features(peer.id));
        let their_init = init(peer.handler.provided_init_features(ours.id));
        peer.handler.peer_connected(ours.id, &our_init, false).unwrap();
        ours.handler.peer_connected(peer.id, &their_init, true).unwrap();
        self.settle_peer(link);
    }

    pub(super) fn disconnect(&mut self, link: usize) {
        if !self.links[link].connected {
            return;
        }
        self.ours.node.handler.peer_disconnected(self.peers[link].id);
        self.hang_up(link);
    }

    /// The peer's half of a lost connection.
    pub(super) fn hang_up(&mut self, link: usize) {
        let state = &mut self.links[link];
        state.to_end.clear();
        state.to_ours.clear();
        if std::mem::take(&mut state.connected) {
            self.peers[link].handler.peer_disconnected(self.ours.node.id);
            self.settle_peer(link);
        }
    }

    pub(super) fn deliver_one(&mut self) {
        let waiting: Vec<_> = (0..2)
            .flat_map(|link| [(link, true), (link, false)])
            .filter(|(link, to_ours)| {
                let link = &self.links[*link];
                !if *to_ours { &link.to_ours } else { &link.to_end }.is_empty()
            })
            .collect();
        let Some(&(link, to_ours)) = self.rng.pick(&waiting) else { return };
        let queue = if to_ours { &mut self.links[link].to_ours } else { &mut self.links[link].to_end };
        let Some(message) = queue.pop_front() else { return };
        self.our_parts.log.note(|| format!("{} {} {message:?}", NAMES[ENDS[link]], if to_ours { "->" } else { "<-" }));
        match &message {
            Message::Disconnect => return self.disconnect(link),
            Message::Error(error) => self.check_complaint(&error.channel_id, &error.data, to_ours),
            Message::Warning(warning) => self.check_complaint(&warning.channel_id, &warning.data, to_ours),
            _ => {}
        }
        self.note_under_way();
        let (peer, ours) = (&self.peers[link], &self.ours.node);
        if to_ours {
            deliver(&*ours.handler, peer.id, message);
        } else {
            deliver(&*peer.handler, ours.id, message);
            self.settle_peer(link);
        }
    }

    pub(super) fn note_under_way(&self) {
        let links = self.links.iter().zip(&self.peers).filter(|(link, _)| !link.to_ours.is_empty());
        *self.ours.under_way.0.lock().unwrap() = links.map(|(_, peer)| peer.id).collect();
    }

    pub(super) fn fetch_our_messages(&mut self) {
        self.note_under_way();
        for event in self.ours.node.handler.get_and_clear_pending_msg_events() {
            let Some((to, all)) = messages(event) else { continue };
            let Some(link) = (0..2).find(|link| self.peers[*link].id == to) else { continue };
            if self.links[link].connected {
                self.links[link].to_end.extend(all);
            }
        }
    }

    /// Peers are quick and never crash: after each message they do all there is to do.
    pub(super) fn settle_peer(&mut self, peer: usize) {
        loop {
            let events = self.peers[peer].take_events();
            let mut busy = !events.is_empty();
            for event in events {
                self.handle(ENDS[peer], event);
            }
            if self.peers[peer].manager.needs_pending_htlc_processing() {
                self.peers[peer].manager.process_pending_htlc_forwards();
                busy = true;
            }
            for event in self.peers[peer].handler.get_and_clear_pending_msg_events() {
                let Some((_, all)) = messages(event) else { continue };
                busy = true;
                if self.links[peer].connected {
                    self.links[peer].to_ours.extend(all);
                }
            }
            if !busy {
                return;
            }
        }
    }

    pub(super) fn our_events(&mut self) {
        let queue = self.ours.queue.clone();
        queue.with_state(|| {
            if self.ours.node.manager.needs_pending_htlc_processing() {
                self.ours.node.manager.process_pending_htlc_forwards();
            }
            for event in self.ours.node.take_events() {
                self.handle(OURS, event);
            }
        });
    }
}
