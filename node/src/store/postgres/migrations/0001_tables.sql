-- Everything that a Holdfast node remembers. Ids and keys are bytea in BOLT order; transaction ids are hex in display
-- order; amounts name their unit; times are the server's.

CREATE TABLE holdfast.leadership (
    singleton    boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    term         bigint NOT NULL CHECK (term >= 0),
    replica      text,
    api_address  text,
    peer_address text,
    since        timestamptz,
    released_at  timestamptz
);
COMMENT ON TABLE holdfast.leadership IS 'The newest term and who leads in it. Every batch locks this row FOR SHARE with its own term and writes nothing if another term is there.';
COMMENT ON COLUMN holdfast.leadership.term IS 'The fencing token: grows by at least one each time a replica becomes leader; 0 before the first leader.';
COMMENT ON COLUMN holdfast.leadership.released_at IS 'When the leader handed over by itself; null while it leads.';
INSERT INTO holdfast.leadership (term) VALUES (0);

CREATE TABLE holdfast.leader_backend (
    pid           integer NOT NULL,
    backend_start timestamptz NOT NULL,
    term          bigint NOT NULL,
    purpose       text NOT NULL CHECK (purpose IN ('lock', 'write')),
    PRIMARY KEY (pid, backend_start)
);
COMMENT ON TABLE holdfast.leader_backend IS 'The server processes that work for the leader. The next leader ends them before it raises the term, so that a leader frozen in mid-batch cannot block it.';

CREATE TABLE holdfast.leadership_history (
    term         bigint PRIMARY KEY,
    replica      text NOT NULL,
    api_address  text NOT NULL,
    peer_address text NOT NULL,
    at           timestamptz NOT NULL,
    phases_us    jsonb NOT NULL DEFAULT '{}'
);
COMMENT ON TABLE holdfast.leadership_history IS 'One row a term.';
COMMENT ON COLUMN holdfast.leadership_history.phases_us IS 'Microseconds that each phase of the takeover took, by name.';

CREATE TABLE holdfast.node (
    singleton   boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    node_id     bytea NOT NULL CHECK (length(node_id) = 33),
    network     text NOT NULL,
    has_manager boolean NOT NULL DEFAULT false,
    created_at  timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE holdfast.node IS 'Whose database this is; written once, by the first leader.';
COMMENT ON COLUMN holdfast.node.has_manager IS 'Set by the commit that stored the first channel manager: from then on a missing manager is an error, never a new node.';

CREATE TABLE holdfast.last_batch (
    singleton    boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    term         bigint NOT NULL,
    sequence     bigint NOT NULL,
    committed_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 10);
COMMENT ON TABLE holdfast.last_batch IS 'The newest batch, counted within its term, so that a batch repeated after a lost connection is recognised.';
INSERT INTO holdfast.last_batch (term, sequence) VALUES (0, 0);

CREATE TABLE holdfast.manager (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    depth     smallint NOT NULL CHECK (depth >= 0),
    root      bytea NOT NULL
) WITH (fillfactor = 10);
ALTER TABLE holdfast.manager ALTER COLUMN root SET STORAGE EXTERNAL;
COMMENT ON TABLE holdfast.manager IS 'The encoded ChannelManager. Replace depth times: each 32 bytes by the chunk with that SHA-256.';

CREATE TABLE holdfast.manager_chunk (
    hash  bytea PRIMARY KEY,
    bytes bytea NOT NULL
);
ALTER TABLE holdfast.manager_chunk ALTER COLUMN bytes SET STORAGE EXTERNAL;
COMMENT ON TABLE holdfast.manager_chunk IS 'Pieces of the encoded ChannelManager by their SHA-256; only those that the current one is made of.';

CREATE TABLE holdfast.monitors (
    channel_id  bytea PRIMARY KEY CHECK (length(channel_id) = 32),
    update_id   bigint NOT NULL CHECK (update_id >= 0),
    bytes       bytea NOT NULL,
    archived_at timestamptz
);
ALTER TABLE holdfast.monitors ALTER COLUMN bytes SET STORAGE EXTERNAL;
COMMENT ON TABLE holdfast.monitors IS 'The last full encoding of each ChannelMonitor.';
COMMENT ON COLUMN holdfast.monitors.update_id IS 'The update that the encoding includes.';
COMMENT ON COLUMN holdfast.monitors.archived_at IS 'The channel is resolved: kept for the record, no longer loaded.';

CREATE TABLE holdfast.monitor_updates (
    channel_id bytea NOT NULL,
    update_id  bigint NOT NULL CHECK (update_id >= 0),
    bytes      bytea NOT NULL,
    PRIMARY KEY (channel_id, update_id)
);
ALTER TABLE holdfast.monitor_updates ALTER COLUMN bytes SET STORAGE EXTERNAL;
COMMENT ON TABLE holdfast.monitor_updates IS 'ChannelMonitorUpdates on top of the full encodings.';

CREATE TABLE holdfast.kv (
    primary_namespace   text NOT NULL,
    secondary_namespace text NOT NULL,
    key                 text NOT NULL,
    value               bytea NOT NULL,
    PRIMARY KEY (primary_namespace, secondary_namespace, key)
);
COMMENT ON TABLE holdfast.kv IS 'Small things by name: sweeper, scorer, network graph, wallet change sets.';

CREATE TABLE holdfast.payments (
    payment_hash bytea NOT NULL CHECK (length(payment_hash) = 32),
    direction    text NOT NULL CHECK (direction IN ('inbound', 'outbound')),
    kind         text NOT NULL CHECK (kind IN ('bolt11', 'keysend')),
    status       text NOT NULL CHECK (status IN ('pending', 'succeeded', 'failed')),
    amount_msat  bigint CHECK (amount_msat >= 0),
    fee_msat     bigint CHECK (fee_msat >= 0),
    preimage     bytea CHECK (length(preimage) = 32),
    failure      text,
    invoice      text,
    sequence     bigint GENERATED ALWAYS AS IDENTITY,
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (payment_hash, direction)
);
CREATE UNIQUE INDEX payments_sequence ON holdfast.payments (sequence);
COMMENT ON TABLE holdfast.payments IS 'Own payments, both ways. A payment that has succeeded stays so; one that has failed is pending again when it is tried again.';
COMMENT ON COLUMN holdfast.payments.sequence IS 'Order of creation, with gaps.';
COMMENT ON COLUMN holdfast.payments.failure IS 'Why it failed, in LDK''s words; null unless failed.';

CREATE TABLE holdfast.forwards (
    event_id         bytea PRIMARY KEY CHECK (length(event_id) = 32),
    incoming_channel bytea NOT NULL,
    outgoing_channel bytea NOT NULL,
    amount_msat      bigint CHECK (amount_msat >= 0),
    fee_msat         bigint CHECK (fee_msat >= 0),
    sequence         bigint GENERATED ALWAYS AS IDENTITY,
    at               timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX forwards_sequence ON holdfast.forwards (sequence);
COMMENT ON TABLE holdfast.forwards IS 'HTLCs forwarded and settled.';

CREATE TABLE holdfast.channels (
    channel_id      bytea PRIMARY KEY CHECK (length(channel_id) = 32),
    user_channel_id bytea NOT NULL CHECK (length(user_channel_id) = 16),
    counterparty    bytea CHECK (length(counterparty) = 33),
    funding         text,
    state           text NOT NULL CHECK (state IN ('pending', 'ready', 'closed')),
    pending_at      timestamptz,
    ready_at        timestamptz,
    closed_at       timestamptz,
    close_reason    text
);
CREATE INDEX channels_user_channel_id ON holdfast.channels (user_channel_id);
COMMENT ON TABLE holdfast.channels IS 'The life of each channel, kept after its end. A channel that never got a funding transaction stands under its temporary id.';
COMMENT ON COLUMN holdfast.channels.funding IS 'txid:vout';

CREATE TABLE holdfast.peers (
    node_id  bytea PRIMARY KEY CHECK (length(node_id) = 33),
    address  text NOT NULL,
    added_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE holdfast.peers IS 'Peers that the node reconnects to by itself.';

CREATE TABLE holdfast.onchain_broadcasts (
    txid     text PRIMARY KEY,
    raw      bytea NOT NULL,
    first_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE holdfast.onchain_broadcasts IS 'Transactions that the node handed to its broadcaster.';
