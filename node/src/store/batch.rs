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
    /// A hold invoice was paid, and its HTLCs wait for the operator's word.
    Accepted,
    Succeeded,
    Failed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PaymentKind {
    Bolt11,
    Keysend,
    /// For a BOLT 12 offer.
    Offer,
    /// For a BOLT 12 refund.
    Refund,
}

/// A change to a payment's row, keyed by id and direction. Absent fields leave what is there; applied twice it changes
/// nothing the second time. A row that has succeeded stays so. One that has failed becomes pending again when the payment is
/// tried again: an operator who reads "failed" while an attempt is under way would pay twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PaymentChange {
    /// The payment hash, but for outbound BOLT 12 payments: those are begun before their hash is known.
    pub payment_id: [u8; 32],
    pub payment_hash: Option<[u8; 32]>,
    pub direction: Direction,
    pub kind: PaymentKind,
    pub status: PaymentStatus,
    pub amount_msat: Option<u64>,
    pub fee_msat: Option<u64>,
    pub preimage: Option<[u8; 32]>,
    /// Why it failed, in LDK's words.
    pub failure: Option<String>,
    /// BOLT 11 as text, BOLT 12 as hex.
    pub invoice: Option<String>,
    /// The BOLT 12 offer or refund.
    pub offer: Option<String>,
    /// Of an offer of ours, in whose place the row gets the offer itself.
    pub offer_id: Option<[u8; 32]>,
    /// What the payer of an offer told the payee.
    pub payer_note: Option<String>,
    /// What the operator noted.
    pub label: Option<String>,
    /// BOLT 11 payment metadata.
    pub metadata: Option<Vec<u8>>,
    /// The block height at which a held payment is cancelled.
    pub cancel_height: Option<u32>,
}

impl PaymentChange {
    /// A change that says no more than the status.
    pub fn new(payment_id: [u8; 32], direction: Direction, kind: PaymentKind, status: PaymentStatus) -> Self {
        Self {
            payment_id,
            payment_hash: None,
            direction,
            kind,
            status,
            amount_msat: None,
            fee_msat: None,
            preimage: None,
            failure: None,
            invoice: None,
            offer: None,
            offer_id: None,
            payer_note: None,
            label: None,
            metadata: None,
            cancel_height: None,
        }
    }

    /// As [`Self::new`], of a payment whose id is its hash.
    pub fn of_hash(payment_hash: [u8; 32], direction: Direction, kind: PaymentKind, status: PaymentStatus) -> Self {
        Self { payment_hash: Some(payment_hash), ..Self::new(payment_hash, direction, kind, status) }
    }
}

/// One HTLC of a payment, at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PaymentPart {
    /// Of what succeeded made of the payment and the HTLC or its way, since LDK tells of it again. Of what failed any name
    /// that is new.
    pub part_id: [u8; 32],
    pub payment_id: [u8; 32],
    pub direction: Direction,
    /// Why it failed; absent if it succeeded.
    pub failure: Option<String>,
    /// Our channel: outbound by short channel id, inbound by channel id.
    pub channel: Option<String>,
    /// The way that an outbound part took.
    pub hops: Vec<PartHop>,
    pub amount_msat: u64,
    pub fee_msat: u64,
    /// How long the first hop says it held the HTLC.
    pub held_ms: Option<u64>,
    /// The short channel id that a failure is blamed on.
    pub failed_channel: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartHop {
    pub node_id: [u8; 33],
    /// Short channel id of the channel that leads to it.
    pub channel: String,
    /// What it takes for passing the HTLC on.
    pub fee_msat: u64,
}

/// An output that pays an address of ours, and how it stands. Told twice it changes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deposit {
    pub outpoint: bitcoin::OutPoint,
    pub address: String,
    pub amount_sat: u64,
    /// The address's, at the time.
    pub label: Option<String>,
    pub standing: Standing,
    /// Height and hash of the block that has it; of one that is gone, of the block that has the other spend of its coins.
    pub block: Option<(u32, bitcoin::BlockHash)>,
    /// When it came to stand so; 0 in no block.
    pub confirmations: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// In no block, or in one no more.
    Unconfirmed,
    Mined,
    /// As deep as the configuration wants.
    Confirmed,
    /// A block has another transaction that spends the same coins.
    Gone,
}

/// Rows that people query, written in the same transaction as the state that they describe. Each is idempotent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    Payment(PaymentChange),
    PaymentPart(PaymentPart),
    /// A client asked for a payment under a key of its own; `request` is the hash of what it asked for. A batch that
    /// gives a key to a second payment is never written.
    PaymentKey {
        key: String,
        request: [u8; 32],
        payment_id: [u8; 32],
    },
    OfferCreated {
        offer_id: [u8; 32],
        offer: String,
        amount_msat: Option<u64>,
        description: String,
        label: Option<String>,
        /// Seconds since the Unix epoch.
        expires_at_s: Option<u64>,
    },
    OfferDisabled {
        offer_id: [u8; 32],
    },
    /// An HTLC forwarded and settled. `event_id` is made of the incoming channel and HTLC, so that what LDK tells again is
    /// the same row.
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
    Deposit(Deposit),
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
