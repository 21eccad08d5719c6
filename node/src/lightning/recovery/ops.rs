//! What operators do with recoveries: begin them, and see how far they are.

use std::collections::HashSet;

use async_trait::async_trait;
use bitcoin::OutPoint;
use holdfast_proto::{error::Error, node::v1};
use lightning::ln::types::ChannelId;

use super::{
    super::{node::LightningNode, payments::unix_now},
    Recoveries,
    outputs::Closing,
    record::{CONFIRMATIONS, Close, Named, Recovery, Takes},
};

/// Keeps an answer below gRPC's limit; the command sends more in several calls.
const AT_ONCE: usize = 1000;

#[async_trait]
impl crate::api::RecoveryOps for LightningNode {
    async fn recover_channels(
        &self,
        request: v1::RecoverChannelsRequest,
    ) -> Result<v1::RecoverChannelsResponse, Error> {
        self.must_run()?;
        check_whose(&request, &self.node_id().to_string(), &self.network.to_string())?;
        let named = parse(&request.channels)?;
        let live = self.recoveries.live();
        let mut answers = Vec::with_capacity(named.len());
        let mut begun = HashSet::new();
        tokio::task::block_in_place(|| {
            self.queue.with_state(|| {
                self.must_run()?;
                for named in &named {
                    let was = self.recoveries.get(&named.channel);
                    match live.refuses(named).map_or_else(|| begin(was.as_ref(), named), Begin::Refuse) {
                        Begin::Refuse(why) => {
                            answers.push(v1::ChannelRecovery {
                                state: REFUSED.into(),
                                detail: why,
                                ..message_of(named)
                            });
                        }
                        Begin::Nothing => answers.push(self.recoveries.message(named.channel)),
                        Begin::With(entry) => {
                            let from_height = request.from_height;
                            self.recoveries.put(named.channel, Recovery::new(entry, from_height, unix_now() * 1000));
                            self.recoveries.parts.asked.recovers(named.channel, named.peer);
                            begun.insert(named.peer);
                            answers.push(self.recoveries.message(named.channel));
                        }
                    }
                }
                Ok::<_, Error>(())
            })
        })?;
        self.committed().await?;
        // A peer that is connected has resumed the channel before anybody knew of this: it is to come again.
        let strangers = begun.iter().filter(|peer| self.manager.list_channels_with_counterparty(peer).is_empty());
        for peer in strangers {
            tokio::task::block_in_place(|| self.peers.disconnect_by_node_id(*peer));
        }
        self.recoveries.look();
        Ok(v1::RecoverChannelsResponse { channels: answers })
    }

    async fn channel_recoveries(&self) -> Result<Vec<v1::ChannelRecovery>, Error> {
        Ok(self.recoveries.all().into_iter().map(|(channel, _)| self.recoveries.message(channel)).collect())
    }
}

/// The state of an entry that is not recovered.
const REFUSED: &str = "refused";

fn check_whose(request: &v1::RecoverChannelsRequest, node_id: &str, network: &str) -> Result<(), Error> {
    if request.node_id != node_id {
        let why = format!("the backup is of node {}, and this is {node_id}: recover it there", request.node_id);
        return Err(Error::misuse("node_id", why));
    }
    if request.network != network {
        let why = format!("the backup is of {}, and this node is on {network}", request.network);
        return Err(Error::misuse("network", why));
    }
    Ok(())
}

/// All of them or none.
fn parse(channels: &[v1::ChannelBackupEntry]) -> Result<Vec<Named>, Error> {
    if channels.len() > AT_ONCE {
        return Err(Error::misuse("channels", format!("they are more than {AT_ONCE}: send them in several calls")));
    }
    let named = channels.iter().map(Named::parse).collect::<Result<Vec<_>, _>>()?;
    let mut seen = HashSet::new();
    match named.iter().find(|named| !seen.insert(named.channel)) {
        Some(twice) => Err(Error::misuse("channels.channel_id", format!("{} is there twice", twice.channel))),
        None => Ok(named),
    }
}

/// What an entry comes to.
#[derive(Debug, PartialEq, Eq)]
enum Begin {
    /// A recovery of this entry.
    With(super::super::channel_backup::Entry),
    /// It is being recovered, or is recovered, already.
    Nothing,
    Refuse(String),
}

/// The same again changes nothing but where the peer may be found; other keys or another funding output are taken only as
/// long as nothing of ours was found with what was there before.
fn begin(was: Option<&Recovery>, named: &Named) -> Begin {
    let Some(was) = was else { return Begin::With(named.entry.clone()) };
    let (old, new) = (&was.entry, &named.entry);
    let same = (&old.counterparty, &old.funding_outpoint, &old.channel_keys_id)
        == (&new.counterparty, &new.funding_outpoint, &new.channel_keys_id);
    let found = was.close.as_ref().is_some_and(|close| !close.outputs.is_empty());
    if same && (found || new.addresses.iter().all(|address| old.addresses.contains(address))) {
        return Begin::Nothing;
    }
    if found {
        return Begin::Refuse("with another entry of this channel, what was ours has been found already".into());
    }
    let mut entry = new.clone();
    if same {
        let known = old.addresses.iter().filter(|address| !new.addresses.contains(address));
        entry.addresses.extend(known.cloned());
    }
    Begin::With(entry)
}

/// What the database knows: its channels are nobody's to recover.
struct Live {
    channels: HashSet<ChannelId>,
    fundings: HashSet<OutPoint>,
}

impl Live {
    fn refuses(&self, named: &Named) -> Option<String> {
        let known = self.channels.contains(&named.channel) || self.fundings.contains(&named.funding);
        known.then(|| "the database has this channel: nothing of it is lost, and it is left alone".into())
    }
}

impl Recoveries {
    fn live(&self) -> Live {
        let monitors = self.parts.monitors.list_monitors();
        let funding = |id: &ChannelId| Some(self.parts.monitors.get_monitor(*id).ok()?.get_funding_txo());
        let mut fundings: HashSet<OutPoint> =
            monitors.iter().filter_map(funding).map(|outpoint| outpoint.into_bitcoin_outpoint()).collect();
        let mut channels: HashSet<ChannelId> = monitors.into_iter().collect();
        for channel in self.parts.manager.list_channels() {
            channels.insert(channel.channel_id);
            fundings.extend(channel.funding_txo.map(|outpoint| outpoint.into_bitcoin_outpoint()));
        }
        Live { channels, fundings }
    }

    fn message(&self, channel: ChannelId) -> v1::ChannelRecovery {
        let Some(recovery) = self.get(&channel) else { return v1::ChannelRecovery::default() };
        let Ok(named) = recovery.named(channel) else { return v1::ChannelRecovery::default() };
        let seen = Seen {
            connected: self.parts.dialer.is_connected(&named.peer),
            asked: self.parts.asked.was_asked(&channel),
            height: self.parts.manager.current_best_block().height,
            trouble: self.trouble(),
        };
        let mut message = v1::ChannelRecovery { peer_connected: seen.connected, ..message_of(&named) };
        let (state, detail) = describe(&recovery, &seen);
        (message.state, message.detail) = (state.into(), detail);
        if let Some(close) = &recovery.close {
            message.closing_txid = close.txid.to_string();
            message.closing_height = close.height;
            message.ours_sat = close.outputs.iter().map(|ours| ours.value_sat).sum();
            let sweeps: HashSet<String> = close.outputs.iter().filter_map(|o| Some(o.sweep?.to_string())).collect();
            message.sweep_txids = sweeps.into_iter().collect();
            message.sweep_txids.sort();
        }
        message
    }
}

fn message_of(named: &Named) -> v1::ChannelRecovery {
    v1::ChannelRecovery {
        channel_id: hex::encode(named.channel.0),
        counterparty: named.entry.counterparty.clone(),
        funding_outpoint: named.entry.funding_outpoint.clone(),
        capacity_sat: named.entry.capacity_sat,
        channel_type: named.entry.channel_type.clone(),
        ..Default::default()
    }
}

/// What a recovery's state depends on beside its record.
struct Seen {
    connected: bool,
    asked: bool,
    height: u32,
    trouble: Option<String>,
}

/// One word, and what it means and asks for.
fn describe(recovery: &Recovery, seen: &Seen) -> (&'static str, String) {
    let (state, mut detail) = match &recovery.close {
        Some(close) => closed(close, seen.height),
        None => open(recovery, seen),
    };
    if !recovery.is_home()
        && let Some(trouble) = &seen.trouble
    {
        detail = format!("{detail}; bitcoind: {trouble}");
    }
    (state, detail)
}

fn open(recovery: &Recovery, seen: &Seen) -> (&'static str, String) {
    if let Some(search) = recovery.search {
        let detail = format!("the funding output is spent: looking for where, at block {} and below", search.next);
        return ("searching", detail);
    }
    if recovery.taken_back.is_some() {
        let detail = "a reorganisation took the transaction that closed it back: it was handed to the network again";
        return ("taken-back", detail.into());
    }
    if !recovery.seen && recovery.unspent_through.is_some() {
        let detail = "the funding output is in none of the blocks that were looked at, and spent in none: is the funding \
                      transaction confirmed, and the entry right?";
        return ("not-found", detail.into());
    }
    match (seen.asked, seen.connected) {
        (true, _) => {
            let detail = "its peer was told that we have lost the channel, and should close it; if it does not, ask its operator \
                          to close it by force";
            ("asked", detail.into())
        }
        (false, true) => ("connected", "its peer is connected, and has not resumed the channel".into()),
        (false, false) => {
            let where_to = match recovery.entry.addresses.as_slice() {
                [] => "the entry says nowhere: `holdfast connect` to it, if you know where it is".into(),
                addresses => format!("trying {}", addresses.join(" ")),
            };
            ("waiting", format!("its peer is not connected; {where_to}"))
        }
    }
}

fn closed(close: &Close, height: u32) -> (&'static str, String) {
    let in_block = format!("closed in block {}", close.height);
    if close.outputs.is_empty() {
        let why = match close.how {
            Closing::OtherKeys => "with other keys than this entry names: the entry is not this channel's",
            Closing::Cooperative => {
                "by agreement, and to no address that the wallet has looked at: `holdfast wallet rescan`, if the money is \
                 not there"
            }
            Closing::Commitment => {
                "with a commitment that has no output for the entry's keys: what we had was none, dust or in HTLCs; if it \
                 is a commitment of our own, the signer has no record of it that would tell"
            }
        };
        return ("nothing", format!("{in_block}, {why}"));
    }
    if !close.given {
        let confirmations = (height + 1).saturating_sub(close.height);
        return ("closed", format!("{in_block}; it has {confirmations} of {CONFIRMATIONS} confirmations"));
    }
    if close.outputs.iter().any(|ours| ours.takes == Takes::Sweeper && ours.sweep.is_none()) {
        return ("sweeping", format!("{in_block}; what is ours is on its way to the wallet"));
    }
    let detail = match close.outputs.iter().any(|ours| ours.takes == Takes::Nobody) {
        false => "what was ours is in the wallet",
        true => "what was ours had been swept before: `holdfast wallet rescan` from that block on finds it",
    };
    ("recovered", format!("{in_block}; {detail}"))
}

#[cfg(test)]
mod tests;
