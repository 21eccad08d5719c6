-- What people may query: views with names that stay, over the tables that batches write. A view holds nothing of its own,
-- so a row is seen from the moment at which the state that it describes is committed, and not before. Ids are hex, amounts
-- name their unit, times are the database server's.

CREATE SCHEMA holdfast_public;
COMMENT ON SCHEMA holdfast_public IS 'Views for people and reports. Columns are added at the end of a view; none is renamed or removed without a new major version.';

CREATE VIEW holdfast_public.payments AS
SELECT p.sequence, encode(p.payment_hash, 'hex') AS payment_hash, p.direction, p.kind, p.status, p.amount_msat, p.fee_msat,
       encode(p.preimage, 'hex') AS preimage, p.failure, p.invoice, p.created_at, p.updated_at
FROM holdfast.payments p;
COMMENT ON VIEW holdfast_public.payments IS 'Own payments, both ways; one row a payment hash and direction.';
COMMENT ON COLUMN holdfast_public.payments.sequence IS 'Order of creation, with gaps. Good for paging.';
COMMENT ON COLUMN holdfast_public.payments.payment_hash IS 'Hex of the 32 bytes.';
COMMENT ON COLUMN holdfast_public.payments.direction IS '`inbound` or `outbound`.';
COMMENT ON COLUMN holdfast_public.payments.kind IS 'How it was asked for: `bolt11`, `keysend` and so on.';
COMMENT ON COLUMN holdfast_public.payments.status IS '`pending`, `succeeded` or `failed`; `succeeded` is final.';
COMMENT ON COLUMN holdfast_public.payments.amount_msat IS 'What the payee gets, in millisatoshi; null while unknown.';
COMMENT ON COLUMN holdfast_public.payments.fee_msat IS 'Routing fee that we paid on top, in millisatoshi; null unless an outbound payment succeeded.';
COMMENT ON COLUMN holdfast_public.payments.preimage IS 'Hex; the proof of payment. Null until the payment succeeded.';
COMMENT ON COLUMN holdfast_public.payments.failure IS 'Why it failed, in LDK''s words; null unless failed.';
COMMENT ON COLUMN holdfast_public.payments.invoice IS 'The invoice that was paid or made, where there is one.';
COMMENT ON COLUMN holdfast_public.payments.created_at IS 'When its first row was committed.';
COMMENT ON COLUMN holdfast_public.payments.updated_at IS 'When its last change was committed.';

CREATE VIEW holdfast_public.forwards AS
SELECT f.sequence, f.at, encode(NULLIF(f.incoming_channel, decode(repeat('00', 32), 'hex')), 'hex') AS incoming_channel_id,
       encode(NULLIF(f.outgoing_channel, decode(repeat('00', 32), 'hex')), 'hex') AS outgoing_channel_id,
       f.amount_msat, f.fee_msat
FROM holdfast.forwards f;
COMMENT ON VIEW holdfast_public.forwards IS 'HTLCs of others that were forwarded and settled.';
COMMENT ON COLUMN holdfast_public.forwards.sequence IS 'Order of settlement, with gaps. Good for paging.';
COMMENT ON COLUMN holdfast_public.forwards.at IS 'When the forward was committed as settled.';
COMMENT ON COLUMN holdfast_public.forwards.incoming_channel_id IS 'Hex; the channel that it came in by. Null where LDK does not say.';
COMMENT ON COLUMN holdfast_public.forwards.outgoing_channel_id IS 'Hex; the channel that it left by. Null where LDK does not say.';
COMMENT ON COLUMN holdfast_public.forwards.amount_msat IS 'What left, in millisatoshi.';
COMMENT ON COLUMN holdfast_public.forwards.fee_msat IS 'What we kept, in millisatoshi; null where a claim on chain hides it.';

CREATE VIEW holdfast_public.fees_per_day AS
SELECT (f.at AT TIME ZONE 'UTC')::date AS day, count(*) AS forwards, COALESCE(sum(f.amount_msat), 0)::bigint AS amount_msat,
       COALESCE(sum(f.fee_msat), 0)::bigint AS fee_msat
FROM holdfast.forwards f GROUP BY 1;
COMMENT ON VIEW holdfast_public.fees_per_day IS 'Fees earned by forwarding, one row for each day that had any.';
COMMENT ON COLUMN holdfast_public.fees_per_day.day IS 'The day in UTC.';
COMMENT ON COLUMN holdfast_public.fees_per_day.forwards IS 'HTLCs forwarded and settled.';
COMMENT ON COLUMN holdfast_public.fees_per_day.amount_msat IS 'What left in them, in millisatoshi.';
COMMENT ON COLUMN holdfast_public.fees_per_day.fee_msat IS 'Fees earned, in millisatoshi.';

CREATE VIEW holdfast_public.fees_per_channel_day AS
SELECT (f.at AT TIME ZONE 'UTC')::date AS day, encode(f.outgoing_channel, 'hex') AS channel_id,
       encode(c.counterparty, 'hex') AS counterparty, count(*) AS forwards,
       COALESCE(sum(f.amount_msat), 0)::bigint AS amount_msat, COALESCE(sum(f.fee_msat), 0)::bigint AS fee_msat
FROM holdfast.forwards f LEFT JOIN holdfast.channels c ON c.channel_id = f.outgoing_channel
GROUP BY 1, f.outgoing_channel, c.counterparty;
COMMENT ON VIEW holdfast_public.fees_per_channel_day IS 'Fees earned by forwarding, by day and by the channel whose fee policy earned them: the outgoing one.';
COMMENT ON COLUMN holdfast_public.fees_per_channel_day.day IS 'The day in UTC.';
COMMENT ON COLUMN holdfast_public.fees_per_channel_day.channel_id IS 'Hex; the outgoing channel.';
COMMENT ON COLUMN holdfast_public.fees_per_channel_day.counterparty IS 'Hex; the node at the other end of it.';
COMMENT ON COLUMN holdfast_public.fees_per_channel_day.forwards IS 'HTLCs that left by it and settled.';
COMMENT ON COLUMN holdfast_public.fees_per_channel_day.amount_msat IS 'What left in them, in millisatoshi.';
COMMENT ON COLUMN holdfast_public.fees_per_channel_day.fee_msat IS 'Fees earned, in millisatoshi.';

CREATE VIEW holdfast_public.channels AS
SELECT encode(c.channel_id, 'hex') AS channel_id, encode(c.user_channel_id, 'hex') AS user_channel_id,
       encode(c.counterparty, 'hex') AS counterparty, split_part(c.funding, ':', 1) AS funding_txid,
       NULLIF(split_part(c.funding, ':', 2), '')::integer AS funding_vout, c.state, c.pending_at, c.ready_at, c.closed_at,
       c.close_reason, extract(epoch FROM COALESCE(c.closed_at, now()) - c.ready_at)::bigint AS ready_seconds
FROM holdfast.channels c;
COMMENT ON VIEW holdfast_public.channels IS 'The life of each channel, kept after its end. One that never got a funding transaction stands under its temporary id.';
COMMENT ON COLUMN holdfast_public.channels.channel_id IS 'Hex; as peers name it.';
COMMENT ON COLUMN holdfast_public.channels.user_channel_id IS 'Hex; our own name for it, from its opening to its end.';
COMMENT ON COLUMN holdfast_public.channels.counterparty IS 'Hex; the node at the other end.';
COMMENT ON COLUMN holdfast_public.channels.funding_txid IS 'The transaction that funds it; null if none ever did.';
COMMENT ON COLUMN holdfast_public.channels.funding_vout IS 'Which of its outputs.';
COMMENT ON COLUMN holdfast_public.channels.state IS '`pending` (funded, not usable yet), `ready` or `closed`.';
COMMENT ON COLUMN holdfast_public.channels.pending_at IS 'When its funding was agreed.';
COMMENT ON COLUMN holdfast_public.channels.ready_at IS 'When it became usable.';
COMMENT ON COLUMN holdfast_public.channels.closed_at IS 'When it ended. What it held may be on chain for a while after.';
COMMENT ON COLUMN holdfast_public.channels.close_reason IS 'Why it ended, in LDK''s words.';
COMMENT ON COLUMN holdfast_public.channels.ready_seconds IS 'How long it has been, or was, usable.';

CREATE VIEW holdfast_public.onchain_transactions AS
SELECT b.txid, length(b.raw) AS size_bytes, b.first_at AS first_broadcast_at,
       (SELECT encode(c.channel_id, 'hex') FROM holdfast.channels c WHERE split_part(c.funding, ':', 1) = b.txid
        ORDER BY c.channel_id LIMIT 1) AS funds_channel_id,
       encode(b.raw, 'hex') AS raw
FROM holdfast.onchain_broadcasts b;
COMMENT ON VIEW holdfast_public.onchain_transactions IS 'Transactions that the node handed to the network: fundings, closes, claims, sweeps, fee bumps.';
COMMENT ON COLUMN holdfast_public.onchain_transactions.txid IS 'As explorers show it.';
COMMENT ON COLUMN holdfast_public.onchain_transactions.size_bytes IS 'Its size with witnesses, in bytes.';
COMMENT ON COLUMN holdfast_public.onchain_transactions.first_broadcast_at IS 'When the commit was made that let it out for the first time.';
COMMENT ON COLUMN holdfast_public.onchain_transactions.funds_channel_id IS 'Hex; the channel that it funds, if it does (the first, if several).';
COMMENT ON COLUMN holdfast_public.onchain_transactions.raw IS 'Hex; the transaction itself.';

CREATE VIEW holdfast_public.cluster AS
SELECT encode(n.node_id, 'hex') AS node_id, n.network, l.term, l.replica AS leader, l.api_address, l.peer_address, l.since,
       l.released_at, b.sequence AS commits_in_term, b.committed_at AS last_commit_at
FROM holdfast.leadership l CROSS JOIN holdfast.last_batch b LEFT JOIN holdfast.node n ON true;
COMMENT ON VIEW holdfast_public.cluster IS 'Always one row: whose node this is, who leads, and when something was last committed.';
COMMENT ON COLUMN holdfast_public.cluster.node_id IS 'Hex; null before the first leader.';
COMMENT ON COLUMN holdfast_public.cluster.network IS '`bitcoin`, `testnet4`, `signet` or `regtest`.';
COMMENT ON COLUMN holdfast_public.cluster.term IS 'The newest term; 0 before the first leader.';
COMMENT ON COLUMN holdfast_public.cluster.leader IS 'The replica that leads in it, or led in it last.';
COMMENT ON COLUMN holdfast_public.cluster.api_address IS 'Where that replica takes operators, as host:port.';
COMMENT ON COLUMN holdfast_public.cluster.peer_address IS 'Where that replica takes peers, as host:port.';
COMMENT ON COLUMN holdfast_public.cluster.since IS 'When the term began.';
COMMENT ON COLUMN holdfast_public.cluster.released_at IS 'When the leader handed over by itself; null while it leads, and after a leader that died.';
COMMENT ON COLUMN holdfast_public.cluster.commits_in_term IS 'Batches committed in the term.';
COMMENT ON COLUMN holdfast_public.cluster.last_commit_at IS 'When the last of them was.';

CREATE VIEW holdfast_public.leadership_history AS
SELECT h.term, h.replica, h.api_address, h.peer_address, h.at AS began_at, lead(h.at) OVER (ORDER BY h.term) AS ended_at,
       (SELECT sum(took.value::bigint)::bigint FROM jsonb_each_text(h.phases_us) AS took) AS takeover_us
FROM holdfast.leadership_history h;
COMMENT ON VIEW holdfast_public.leadership_history IS 'Who led when; one row a term.';
COMMENT ON COLUMN holdfast_public.leadership_history.term IS 'The term; grows by at least one from leader to leader.';
COMMENT ON COLUMN holdfast_public.leadership_history.replica IS 'The replica that led.';
COMMENT ON COLUMN holdfast_public.leadership_history.api_address IS 'Where it took operators, as host:port.';
COMMENT ON COLUMN holdfast_public.leadership_history.peer_address IS 'Where it took peers, as host:port.';
COMMENT ON COLUMN holdfast_public.leadership_history.began_at IS 'When it won the term.';
COMMENT ON COLUMN holdfast_public.leadership_history.ended_at IS 'When the next term began; null for the newest.';
COMMENT ON COLUMN holdfast_public.leadership_history.takeover_us IS 'From trying to leading, in microseconds: the sum of its phases. Null until it led.';

CREATE VIEW holdfast_public.takeover_phases AS
SELECT h.term, h.replica, took.key AS phase, took.value::bigint AS took_us
FROM holdfast.leadership_history h CROSS JOIN LATERAL jsonb_each_text(h.phases_us) AS took;
COMMENT ON VIEW holdfast_public.takeover_phases IS 'What each takeover spent its time on.';
COMMENT ON COLUMN holdfast_public.takeover_phases.term IS 'The term that was taken over.';
COMMENT ON COLUMN holdfast_public.takeover_phases.replica IS 'The replica that took it.';
COMMENT ON COLUMN holdfast_public.takeover_phases.phase IS 'The phase''s name, such as `raise-term` or `read-monitors`.';
COMMENT ON COLUMN holdfast_public.takeover_phases.took_us IS 'How long it took, in microseconds.';

CREATE VIEW holdfast_public.peers AS
SELECT encode(p.node_id, 'hex') AS node_id, p.address, p.added_at FROM holdfast.peers p;
COMMENT ON VIEW holdfast_public.peers IS 'Peers that the node reconnects to by itself.';
COMMENT ON COLUMN holdfast_public.peers.node_id IS 'Hex; the peer.';
COMMENT ON COLUMN holdfast_public.peers.address IS 'Where it is connected to, as host:port.';
COMMENT ON COLUMN holdfast_public.peers.added_at IS 'When it was added.';
