//! One commit as plain data: everything that belongs to one moment of the node.

/// A channel monitor's name: LDK's channel id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MonitorKey(pub [u8; 32]);

/// What a batch does to one monitor. Within a batch these are applied in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MonitorWrite {
    /// The whole monitor as of `update_id`; updates up to and including that id are dropped.
    Full { key: MonitorKey, update_id: u64, bytes: Vec<u8> },
    /// One more update on top of what is there.
    Update { key: MonitorKey, update_id: u64, bytes: Vec<u8> },
    /// The channel is resolved: kept for the record, no longer loaded.
    Archive { key: MonitorKey },
}

/// A key of the small key-value space (sweeper, scorer, graph, wallet change sets), as LDK's `KVStore` names them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KvKey {
    pub primary: String,
    pub secondary: String,
    pub key: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KvWrite {
    Put { key: KvKey, value: Vec<u8> },
    Remove { key: KvKey },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    Inbound,
    Outbound,
}

/// Succeeded is final; see [`PaymentChange`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PaymentStatus {
    Pending,
    Succeeded,
    Failed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PaymentKind {
    Bolt11,
    Keysend,
}

/// A change to a payment's row, keyed by hash and direction. Absent fields leave what is there; applied twice it changes
/// nothing the second time. A row that has succeeded stays so. One that has failed becomes pending again when the payment is
/// tried again: an operator who reads "failed" while an attempt is under way would pay twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PaymentChange {
    pub payment_hash: [u8; 32],
    pub direction: Direction,
    pub kind: PaymentKind,
    pub status: PaymentStatus,
    pub amount_msat: Option<u64>,
    pub fee_msat: Option<u64>,
    pub preimage: Option<[u8; 32]>,
    /// Why it failed, in LDK's words.
    pub failure: Option<String>,
    pub invoice: Option<String>,
}

/// Rows that people query, written in the same transaction as the state that they describe. Each is idempotent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    Payment(PaymentChange),
    /// An HTLC forwarded and settled. Keyed by the incoming channel and HTLC where LDK tells it, else by `event_id`.
    Forward {
        event_id: [u8; 32],
        incoming_channel: [u8; 32],
        outgoing_channel: [u8; 32],
        amount_msat: Option<u64>,
        fee_msat: Option<u64>,
    },
    ChannelPending {
        channel_id: [u8; 32],
        user_channel_id: u128,
        counterparty: [u8; 33],
        funding: bitcoin::OutPoint,
    },
    ChannelReady {
        channel_id: [u8; 32],
        user_channel_id: u128,
    },
    ChannelClosed {
        channel_id: [u8; 32],
        user_channel_id: u128,
        counterparty: Option<[u8; 33]>,
        reason: String,
    },
    /// A peer that the node reconnects to by itself.
    PeerAdded {
        node_id: [u8; 33],
        address: String,
    },
    PeerRemoved {
        node_id: [u8; 33],
    },
    /// A transaction that was handed to the broadcaster.
    Broadcast {
        txid: bitcoin::Txid,
        raw: Vec<u8>,
    },
}

/// One commit. The store writes all of it or nothing, and only while the replica's term is the newest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The `ChannelManager`, encoded after the monitor writes of this batch were taken.
    pub manager: Option<Vec<u8>>,
    pub monitors: Vec<MonitorWrite>,
    pub kv: Vec<KvWrite>,
    pub effects: Vec<Effect>,
}

impl Batch {
    pub fn is_empty(&self) -> bool {
        self.manager.is_none() && self.monitors.is_empty() && self.kv.is_empty() && self.effects.is_empty()
    }
}
