//! LDK's types with Holdfast's parts in their places.

use std::sync::{Arc, Mutex};

use bitcoin::secp256k1::PublicKey;
use holdfast_signer_client::{RemoteChannelSigner, RemoteKeys};
use lightning::{
    chain::Filter,
    events::bump_transaction::sync::{BumpTransactionEventHandlerSync, WalletSync},
    ln::peer_handler::IgnoringMessageHandler,
    routing::{
        gossip,
        router::DefaultRouter,
        scoring::{ProbabilisticScorer, ProbabilisticScoringFeeParameters},
    },
    util::sweep::OutputSweeperSync,
};
use lightning_block_sync::gossip::{GossipVerifier, TokioSpawner};
use lightning_net_tokio::SocketDescriptor;

use super::{
    BufferedBroadcaster, BufferedKv, BufferedPersister, ClosingWatch, MessageGate, logger::TracingLogger,
    offers::OfferGate, onion_pace::OnionPace, own_gossip::OwnGossip, peer_storage::PeerStorage,
    signing_wallet::SigningWallet,
};
use crate::chain::{Bitcoind, FeeEstimates, Wallet};

pub type Logger = Arc<TracingLogger>;

/// We read whole blocks, so nobody has to be told what to look for.
pub type NoFilter = Arc<dyn Filter + Send + Sync>;

pub type ChainMonitor = lightning::chain::chainmonitor::ChainMonitor<
    RemoteChannelSigner,
    NoFilter,
    Arc<BufferedBroadcaster>,
    Arc<FeeEstimates>,
    Logger,
    Arc<BufferedPersister>,
    Arc<RemoteKeys>,
>;

pub type ChannelManager = lightning::ln::channelmanager::ChannelManager<
    Arc<ClosingWatch<Arc<ChainMonitor>>>,
    Arc<BufferedBroadcaster>,
    Arc<RemoteKeys>,
    Arc<RemoteKeys>,
    Arc<RemoteKeys>,
    Arc<FeeEstimates>,
    Arc<Router>,
    Arc<MessageRouter>,
    Logger,
>;

pub type Gate = MessageGate<Arc<ChannelManager>>;

pub type PeerManager = lightning::ln::peer_handler::PeerManager<
    SocketDescriptor,
    Arc<Gate>,
    Arc<Gossip>,
    Arc<PacedMessenger>,
    Logger,
    IgnoringMessageHandler,
    Arc<RemoteKeys>,
    Arc<PeerStorage>,
>;

pub type Graph = gossip::NetworkGraph<Logger>;
pub type Scorer = ProbabilisticScorer<Arc<Graph>, Logger>;
pub type Router =
    DefaultRouter<Arc<Graph>, Logger, Arc<RemoteKeys>, Arc<Mutex<Scorer>>, ProbabilisticScoringFeeParameters, Scorer>;
pub type MessageRouter = lightning::onion_message::messenger::DefaultMessageRouter<Arc<Graph>, Logger, Arc<RemoteKeys>>;

pub type UtxoLookup = GossipVerifier<TokioSpawner, Arc<Bitcoind>, Logger>;
pub type P2PGossipSync = gossip::P2PGossipSync<Arc<Graph>, Arc<UtxoLookup>, Logger>;

/// Whether a peer has a channel of this short id with us.
pub type IsOurs = Box<dyn Fn(&PublicKey, u64) -> bool + Send + Sync>;
pub type Gossip = OwnGossip<Arc<P2PGossipSync>, IsOurs>;

pub type OnionMessenger = lightning::onion_message::messenger::OnionMessenger<
    Arc<RemoteKeys>,
    Arc<RemoteKeys>,
    Logger,
    Arc<ChannelManager>,
    Arc<MessageRouter>,
    Arc<OfferGate>,
    Arc<ChannelManager>,
    IgnoringMessageHandler,
    IgnoringMessageHandler,
>;

/// Whether there is a channel with a peer.
pub type HasChannel = Box<dyn Fn(&PublicKey) -> bool + Send + Sync>;
pub type PacedMessenger = OnionPace<Arc<OnionMessenger>, HasChannel>;

pub type Sweeper = OutputSweeperSync<
    Arc<BufferedBroadcaster>,
    Arc<Wallet>,
    Arc<FeeEstimates>,
    NoFilter,
    Arc<BufferedKv>,
    Logger,
    Arc<RemoteKeys>,
>;

pub type FeeBumper = BumpTransactionEventHandlerSync<
    Arc<BufferedBroadcaster>,
    Arc<WalletSync<Arc<SigningWallet>, Logger>>,
    Arc<RemoteKeys>,
    Logger,
>;
