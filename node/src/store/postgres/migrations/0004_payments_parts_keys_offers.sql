-- Payments that have no hash yet (an offer is paid before its invoice is known), payments that wait for an operator's
-- word, the parts that a payment is made of, the keys that clients repeat their requests under, and offers.

ALTER TABLE holdfast.payments ADD COLUMN payment_id bytea;
UPDATE holdfast.payments SET payment_id = payment_hash;
ALTER TABLE holdfast.payments
    ALTER COLUMN payment_id SET NOT NULL,
    ADD CONSTRAINT payments_payment_id_check CHECK (length(payment_id) = 32),
    DROP CONSTRAINT payments_pkey,
    ADD PRIMARY KEY (payment_id, direction),
    ALTER COLUMN payment_hash DROP NOT NULL,
    DROP CONSTRAINT payments_kind_check,
    ADD CONSTRAINT payments_kind_check CHECK (kind IN ('bolt11', 'keysend', 'offer', 'refund')),
    DROP CONSTRAINT payments_status_check,
    ADD CONSTRAINT payments_status_check CHECK (status IN ('pending', 'accepted', 'succeeded', 'failed')),
    ADD COLUMN offer text,
    ADD COLUMN label text,
    ADD COLUMN metadata bytea,
    ADD COLUMN payer_note text,
    ADD COLUMN cancel_height bigint;
CREATE INDEX payments_payment_hash ON holdfast.payments (payment_hash);
COMMENT ON COLUMN holdfast.payments.payment_id IS 'The payment hash, or a name of its own for an outbound BOLT 12 payment, whose hash is known only when the payee has sent the invoice.';
COMMENT ON COLUMN holdfast.payments.payment_hash IS 'Null while it is not known.';
COMMENT ON COLUMN holdfast.payments.invoice IS 'BOLT 11 as text; BOLT 12 as hex, since it has no text form.';
COMMENT ON COLUMN holdfast.payments.offer IS 'The BOLT 12 offer or refund that was paid or claimed.';
COMMENT ON COLUMN holdfast.payments.label IS 'What the operator noted. Never sent to anybody.';
COMMENT ON COLUMN holdfast.payments.payer_note IS 'What the payer of an offer told the payee.';
COMMENT ON COLUMN holdfast.payments.metadata IS 'BOLT 11 payment metadata.';
COMMENT ON COLUMN holdfast.payments.cancel_height IS 'A held payment is cancelled by the node at this block height.';

CREATE TABLE holdfast.payment_parts (
    part_id        bytea PRIMARY KEY CHECK (length(part_id) = 32),
    payment_id     bytea NOT NULL CHECK (length(payment_id) = 32),
    direction      text NOT NULL CHECK (direction IN ('inbound', 'outbound')),
    outcome        text NOT NULL CHECK (outcome IN ('succeeded', 'failed')),
    channel        text,
    hops           jsonb NOT NULL DEFAULT '[]',
    amount_msat    bigint NOT NULL CHECK (amount_msat >= 0),
    fee_msat       bigint NOT NULL CHECK (fee_msat >= 0),
    held_ms        bigint,
    failure        text,
    failed_channel text,
    sequence       bigint GENERATED ALWAYS AS IDENTITY,
    at             timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX payment_parts_payment ON holdfast.payment_parts (payment_id, direction);
COMMENT ON TABLE holdfast.payment_parts IS 'What each payment was made of: one row an HTLC that came to its end, those that failed and were tried again included.';
COMMENT ON COLUMN holdfast.payment_parts.channel IS 'Our channel: outbound by short channel id, inbound by channel id.';
COMMENT ON COLUMN holdfast.payment_parts.hops IS 'Outbound: the way it went, as [{"node", "channel", "fee_msat"}]; the last hop''s fee is 0 unless a blinded path begins there.';
COMMENT ON COLUMN holdfast.payment_parts.held_ms IS 'How long the first hop says it held the HTLC, in steps of 100 ms; null where it does not say.';
COMMENT ON COLUMN holdfast.payment_parts.failed_channel IS 'The short channel id that the failure is blamed on.';
COMMENT ON COLUMN holdfast.payment_parts.at IS 'When it came to its end.';

CREATE TABLE holdfast.payment_keys (
    key        text PRIMARY KEY CHECK (length(key) BETWEEN 1 AND 256),
    request    bytea NOT NULL CHECK (length(request) = 32),
    payment_id bytea NOT NULL CHECK (length(payment_id) = 32),
    at         timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX payment_keys_payment ON holdfast.payment_keys (payment_id);
COMMENT ON TABLE holdfast.payment_keys IS 'The idempotency keys that clients have paid under: the same key never pays twice.';
COMMENT ON COLUMN holdfast.payment_keys.request IS 'SHA-256 over what was asked to be paid.';

CREATE TABLE holdfast.offers (
    offer_id    bytea PRIMARY KEY CHECK (length(offer_id) = 32),
    offer       text NOT NULL,
    amount_msat bigint CHECK (amount_msat >= 0),
    description text NOT NULL,
    label       text,
    expires_at  timestamptz,
    disabled_at timestamptz,
    sequence    bigint GENERATED ALWAYS AS IDENTITY,
    created_at  timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE holdfast.offers IS 'BOLT 12 offers that we made.';
COMMENT ON COLUMN holdfast.offers.amount_msat IS 'Null: the payer chooses.';
COMMENT ON COLUMN holdfast.offers.disabled_at IS 'From then on the node answers no request for it.';

-- Applied twice, an effect changes nothing the second time.
CREATE FUNCTION holdfast.apply_payment_effect(e jsonb) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    -- A leader from before this schema names no payment_id.
    id bytea := COALESCE(e->>'payment_id', e->>'payment_hash')::bytea;
BEGIN
    CASE e->>'effect'
    WHEN 'payment' THEN
        IF e->>'direction' = 'outbound' AND e->>'status' = 'pending' AND EXISTS (
            SELECT FROM holdfast.payments p
            WHERE p.payment_id = id AND p.direction = 'outbound' AND p.status = 'succeeded')
        THEN
            -- Nothing of this batch is written, so nothing of it leaves the replica either.
            RAISE EXCEPTION 'a payment that succeeded was begun again';
        END IF;
        -- What succeeded is final. Nor does a payment of another kind, such as a keysend by somebody who knows the
        -- preimage, touch the row of an invoice of ours.
        INSERT INTO holdfast.payments AS p
            (payment_id, payment_hash, direction, kind, status, amount_msat, fee_msat, preimage, failure, invoice, offer,
             label, metadata, payer_note, cancel_height)
        VALUES (id, (e->>'payment_hash')::bytea, e->>'direction', e->>'kind', e->>'status',
                (e->>'amount_msat')::bigint, (e->>'fee_msat')::bigint, (e->>'preimage')::bytea,
                CASE e->>'status' WHEN 'failed' THEN e->>'failure' END, e->>'invoice',
                COALESCE(e->>'offer', (SELECT o.offer FROM holdfast.offers o WHERE o.offer_id = (e->>'offer_id')::bytea)),
                e->>'label', (e->>'metadata')::bytea, e->>'payer_note', (e->>'cancel_height')::bigint)
        ON CONFLICT (payment_id, direction) DO UPDATE SET
            status = EXCLUDED.status,
            payment_hash = COALESCE(EXCLUDED.payment_hash, p.payment_hash),
            amount_msat = COALESCE(EXCLUDED.amount_msat, p.amount_msat),
            fee_msat = COALESCE(EXCLUDED.fee_msat, p.fee_msat),
            preimage = COALESCE(EXCLUDED.preimage, p.preimage),
            invoice = COALESCE(EXCLUDED.invoice, p.invoice),
            offer = COALESCE(EXCLUDED.offer, p.offer),
            label = COALESCE(EXCLUDED.label, p.label),
            metadata = COALESCE(EXCLUDED.metadata, p.metadata),
            payer_note = COALESCE(EXCLUDED.payer_note, p.payer_note),
            cancel_height = COALESCE(EXCLUDED.cancel_height, p.cancel_height),
            failure = CASE EXCLUDED.status WHEN 'failed' THEN COALESCE(EXCLUDED.failure, p.failure) END,
            updated_at = now()
        WHERE p.status <> 'succeeded' AND (p.direction = 'outbound' OR p.kind = EXCLUDED.kind)
            AND (p.status <> EXCLUDED.status OR p.failure IS DISTINCT FROM COALESCE(EXCLUDED.failure, p.failure)
                OR (p.payment_hash, p.amount_msat, p.fee_msat, p.preimage, p.invoice, p.offer, p.label, p.metadata,
                p.payer_note, p.cancel_height) IS DISTINCT FROM
               (COALESCE(EXCLUDED.payment_hash, p.payment_hash), COALESCE(EXCLUDED.amount_msat, p.amount_msat),
                COALESCE(EXCLUDED.fee_msat, p.fee_msat), COALESCE(EXCLUDED.preimage, p.preimage),
                COALESCE(EXCLUDED.invoice, p.invoice), COALESCE(EXCLUDED.offer, p.offer),
                COALESCE(EXCLUDED.label, p.label), COALESCE(EXCLUDED.metadata, p.metadata),
                COALESCE(EXCLUDED.payer_note, p.payer_note), COALESCE(EXCLUDED.cancel_height, p.cancel_height)));
    WHEN 'payment-part' THEN
        INSERT INTO holdfast.payment_parts
            (part_id, payment_id, direction, outcome, channel, hops, amount_msat, fee_msat, held_ms, failure,
             failed_channel)
        VALUES ((e->>'part_id')::bytea, (e->>'payment_id')::bytea, e->>'direction', e->>'outcome', e->>'channel',
                e->'hops', (e->>'amount_msat')::bigint, (e->>'fee_msat')::bigint, (e->>'held_ms')::bigint, e->>'failure',
                e->>'failed_channel')
        ON CONFLICT DO NOTHING;
    WHEN 'payment-key' THEN
        INSERT INTO holdfast.payment_keys AS k (key, request, payment_id)
        VALUES (e->>'key', (e->>'request')::bytea, (e->>'payment_id')::bytea)
        ON CONFLICT (key) DO UPDATE SET key = k.key
            WHERE (k.request, k.payment_id) = (EXCLUDED.request, EXCLUDED.payment_id);
        IF NOT FOUND THEN
            -- Nothing of this batch is written, so nothing of it leaves the replica either.
            RAISE EXCEPTION 'the idempotency key of another payment was used again';
        END IF;
    WHEN 'offer-created' THEN
        INSERT INTO holdfast.offers (offer_id, offer, amount_msat, description, label, expires_at)
        VALUES ((e->>'offer_id')::bytea, e->>'offer', (e->>'amount_msat')::bigint, e->>'description', e->>'label',
                to_timestamp((e->>'expires_at_s')::bigint))
        ON CONFLICT DO NOTHING;
    WHEN 'offer-disabled' THEN
        UPDATE holdfast.offers SET disabled_at = now() WHERE offer_id = (e->>'offer_id')::bytea AND disabled_at IS NULL;
    END CASE;
END
$$;
COMMENT ON FUNCTION holdfast.apply_payment_effect IS 'The effects that payments and offers have; part of apply_effect.';

CREATE OR REPLACE FUNCTION holdfast.apply_effect(e jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    CASE e->>'effect'
    WHEN 'payment', 'payment-part', 'payment-key', 'offer-created', 'offer-disabled' THEN
        PERFORM holdfast.apply_payment_effect(e);
    WHEN 'forward' THEN
        INSERT INTO holdfast.forwards (event_id, incoming_channel, outgoing_channel, amount_msat, fee_msat)
        VALUES ((e->>'event_id')::bytea, (e->>'incoming_channel')::bytea, (e->>'outgoing_channel')::bytea,
                (e->>'amount_msat')::bigint, (e->>'fee_msat')::bigint)
        ON CONFLICT DO NOTHING;
    WHEN 'channel-pending' THEN
        INSERT INTO holdfast.channels AS c (channel_id, user_channel_id, counterparty, funding, state, pending_at)
        VALUES ((e->>'channel_id')::bytea, (e->>'user_channel_id')::bytea, (e->>'counterparty')::bytea, e->>'funding',
                'pending', now())
        ON CONFLICT (channel_id) DO UPDATE SET
            counterparty = EXCLUDED.counterparty, funding = EXCLUDED.funding,
            pending_at = COALESCE(c.pending_at, EXCLUDED.pending_at);
    WHEN 'channel-ready' THEN
        INSERT INTO holdfast.channels AS c (channel_id, user_channel_id, state, ready_at)
        VALUES ((e->>'channel_id')::bytea, (e->>'user_channel_id')::bytea, 'ready', now())
        ON CONFLICT (channel_id) DO UPDATE SET
            state = CASE c.state WHEN 'closed' THEN c.state ELSE 'ready' END,
            ready_at = COALESCE(c.ready_at, EXCLUDED.ready_at);
    WHEN 'channel-closed' THEN
        INSERT INTO holdfast.channels AS c
            (channel_id, user_channel_id, counterparty, state, closed_at, close_reason)
        VALUES ((e->>'channel_id')::bytea, (e->>'user_channel_id')::bytea, (e->>'counterparty')::bytea, 'closed', now(),
                e->>'reason')
        ON CONFLICT (channel_id) DO UPDATE SET
            state = 'closed', counterparty = COALESCE(c.counterparty, EXCLUDED.counterparty),
            closed_at = COALESCE(c.closed_at, EXCLUDED.closed_at),
            close_reason = COALESCE(c.close_reason, EXCLUDED.close_reason);
    WHEN 'peer-added' THEN
        INSERT INTO holdfast.peers (node_id, address) VALUES ((e->>'node_id')::bytea, e->>'address')
        ON CONFLICT (node_id) DO UPDATE SET address = EXCLUDED.address;
    WHEN 'peer-removed' THEN
        DELETE FROM holdfast.peers WHERE node_id = (e->>'node_id')::bytea;
    WHEN 'broadcast' THEN
        INSERT INTO holdfast.onchain_broadcasts (txid, raw) VALUES (e->>'txid', (e->>'raw')::bytea)
        ON CONFLICT DO NOTHING;
    END CASE;
END
$$;

-- New columns of a view go to its end.
CREATE OR REPLACE VIEW holdfast_public.payments AS
SELECT p.sequence, encode(p.payment_hash, 'hex') AS payment_hash, p.direction, p.kind, p.status, p.amount_msat, p.fee_msat,
       encode(p.preimage, 'hex') AS preimage, p.failure, p.invoice, p.created_at, p.updated_at,
       encode(p.payment_id, 'hex') AS payment_id, p.offer, p.label, encode(p.metadata, 'hex') AS metadata, p.payer_note,
       p.cancel_height
FROM holdfast.payments p;
COMMENT ON VIEW holdfast_public.payments IS 'Own payments, both ways; one row a payment and direction.';
COMMENT ON COLUMN holdfast_public.payments.payment_hash IS 'Hex of the 32 bytes. Null while an offer''s payee has not sent its invoice.';
COMMENT ON COLUMN holdfast_public.payments.kind IS 'How it was asked for: `bolt11`, `keysend`, `offer` or `refund`.';
COMMENT ON COLUMN holdfast_public.payments.status IS '`pending`, `accepted` (a hold invoice whose money waits for our word), `succeeded` or `failed`; `succeeded` is final.';
COMMENT ON COLUMN holdfast_public.payments.invoice IS 'The invoice that was paid or made, where there is one. BOLT 12 as hex.';
COMMENT ON COLUMN holdfast_public.payments.payment_id IS 'Hex; the payment hash, or a name of its own for outbound `offer` and `refund`.';
COMMENT ON COLUMN holdfast_public.payments.offer IS 'The BOLT 12 offer or refund that was paid or claimed.';
COMMENT ON COLUMN holdfast_public.payments.label IS 'What the operator noted.';
COMMENT ON COLUMN holdfast_public.payments.metadata IS 'Hex; BOLT 11 payment metadata.';
COMMENT ON COLUMN holdfast_public.payments.payer_note IS 'What the payer of an offer told the payee.';
COMMENT ON COLUMN holdfast_public.payments.cancel_height IS 'The block height at which the node cancels a held payment.';

CREATE VIEW holdfast_public.payment_parts AS
SELECT t.sequence, encode(t.payment_id, 'hex') AS payment_id, t.direction, t.outcome, t.channel, t.hops, t.amount_msat,
       t.fee_msat, t.held_ms, t.failure, t.failed_channel, t.at AS ended_at
FROM holdfast.payment_parts t;
COMMENT ON VIEW holdfast_public.payment_parts IS 'What each payment was made of: one row an HTLC that came to its end, those that failed and were tried again included.';
COMMENT ON COLUMN holdfast_public.payment_parts.sequence IS 'Order in which they ended, with gaps.';
COMMENT ON COLUMN holdfast_public.payment_parts.payment_id IS 'Hex; whose part it is, as in `payments`.';
COMMENT ON COLUMN holdfast_public.payment_parts.direction IS '`inbound` or `outbound`.';
COMMENT ON COLUMN holdfast_public.payment_parts.outcome IS '`succeeded` or `failed`.';
COMMENT ON COLUMN holdfast_public.payment_parts.channel IS 'Our channel: outbound by short channel id, inbound by channel id in hex.';
COMMENT ON COLUMN holdfast_public.payment_parts.hops IS 'Outbound: the way it went, as [{"node", "channel", "fee_msat"}].';
COMMENT ON COLUMN holdfast_public.payment_parts.amount_msat IS 'What the payee gets by it, in millisatoshi.';
COMMENT ON COLUMN holdfast_public.payment_parts.fee_msat IS 'What the hops take, in millisatoshi.';
COMMENT ON COLUMN holdfast_public.payment_parts.held_ms IS 'How long the first hop says it held the HTLC, in steps of 100 ms; null where it does not say.';
COMMENT ON COLUMN holdfast_public.payment_parts.failure IS 'Why it failed; null unless it did.';
COMMENT ON COLUMN holdfast_public.payment_parts.failed_channel IS 'The short channel id that the failure is blamed on.';
COMMENT ON COLUMN holdfast_public.payment_parts.ended_at IS 'When its end was committed.';

CREATE VIEW holdfast_public.offers AS
SELECT o.sequence, encode(o.offer_id, 'hex') AS offer_id, o.offer, o.amount_msat, o.description, o.label, o.expires_at,
       o.disabled_at, o.created_at
FROM holdfast.offers o;
COMMENT ON VIEW holdfast_public.offers IS 'BOLT 12 offers that we made.';
COMMENT ON COLUMN holdfast_public.offers.sequence IS 'Order of creation, with gaps.';
COMMENT ON COLUMN holdfast_public.offers.offer_id IS 'Hex; BOLT 12''s id of the offer.';
COMMENT ON COLUMN holdfast_public.offers.offer IS 'The offer as it is given out: lno1...';
COMMENT ON COLUMN holdfast_public.offers.amount_msat IS 'What it asks for, in millisatoshi; null: the payer chooses.';
COMMENT ON COLUMN holdfast_public.offers.description IS 'What payers see.';
COMMENT ON COLUMN holdfast_public.offers.label IS 'What the operator noted.';
COMMENT ON COLUMN holdfast_public.offers.expires_at IS 'Until when it can be paid; null: without end.';
COMMENT ON COLUMN holdfast_public.offers.disabled_at IS 'From then on the node answers no request for it.';
COMMENT ON COLUMN holdfast_public.offers.created_at IS 'When it was made.';
