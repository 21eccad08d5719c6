-- A batch is one call of this function, so it is atomic and takes one round trip: the server never waits for the client
-- while it holds the leadership row.

CREATE FUNCTION holdfast.commit_batch(
    p_term bigint,
    p_sequence bigint,
    p_manager_root bytea,          -- null: the manager is not part of this batch
    p_manager_depth smallint,
    p_chunk_hashes bytea[],
    p_chunk_bytes bytea[],
    p_chunks_gone bytea[],
    p_full_channels bytea[],
    p_full_update_ids bigint[],
    p_full_bytes bytea[],
    p_update_channels bytea[],
    p_update_ids bigint[],
    p_update_bytes bytea[],
    p_archived_channels bytea[],
    p_kv_primaries text[],
    p_kv_secondaries text[],
    p_kv_keys text[],
    p_kv_values bytea[],           -- null: the key is removed
    p_effects jsonb,               -- an array, applied in order; null: none
    OUT verdict text,              -- committed | fenced | gap
    OUT newest_term bigint,
    OUT last_sequence bigint
) LANGUAGE plpgsql AS $$
DECLARE
    missing bytea;
    effect jsonb;
BEGIN
    SELECT l.term INTO newest_term FROM holdfast.leadership l WHERE l.term = p_term FOR SHARE;
    IF NOT FOUND THEN
        SELECT l.term INTO newest_term FROM holdfast.leadership l;
        verdict := 'fenced';
        RETURN;
    END IF;

    UPDATE holdfast.last_batch b SET sequence = p_sequence, committed_at = now()
        WHERE b.term = p_term AND b.sequence = p_sequence - 1;
    IF NOT FOUND THEN
        -- A repeat of the last batch writes its number once more, so that its commit also waits for whatever
        -- synchronous_commit asks for: the first one may have been cut off before its standby had it.
        UPDATE holdfast.last_batch b SET sequence = p_sequence
            WHERE b.term = p_term AND b.sequence = p_sequence;
        IF FOUND THEN
            verdict := 'committed';
        ELSE
            verdict := 'gap';
        END IF;
        SELECT b.sequence INTO last_sequence FROM holdfast.last_batch b;
        RETURN;
    END IF;
    last_sequence := p_sequence;

    IF p_manager_root IS NOT NULL THEN
        INSERT INTO holdfast.manager_chunk (hash, bytes)
            SELECT * FROM unnest(p_chunk_hashes, p_chunk_bytes) ON CONFLICT DO NOTHING;
        DELETE FROM holdfast.manager_chunk WHERE hash = ANY (p_chunks_gone);
        UPDATE holdfast.manager SET depth = p_manager_depth, root = p_manager_root;
        IF NOT FOUND THEN
            UPDATE holdfast.node SET has_manager = true WHERE NOT has_manager;
            IF NOT FOUND THEN
                RAISE EXCEPTION 'the channel manager of an existing node is missing';
            END IF;
            INSERT INTO holdfast.manager (depth, root) VALUES (p_manager_depth, p_manager_root);
        END IF;
    END IF;

    IF cardinality(p_full_channels) > 0 THEN
        INSERT INTO holdfast.monitors (channel_id, update_id, bytes)
            SELECT * FROM unnest(p_full_channels, p_full_update_ids, p_full_bytes)
            ON CONFLICT (channel_id) DO UPDATE
                SET update_id = EXCLUDED.update_id, bytes = EXCLUDED.bytes, archived_at = NULL;
        DELETE FROM holdfast.monitor_updates u
            USING unnest(p_full_channels, p_full_update_ids) AS f (channel_id, update_id)
            WHERE u.channel_id = f.channel_id AND u.update_id <= f.update_id;
    END IF;
    IF cardinality(p_update_channels) > 0 THEN
        SELECT c INTO missing FROM unnest(p_update_channels) AS c
            WHERE NOT EXISTS (SELECT FROM holdfast.monitors m WHERE m.channel_id = c) LIMIT 1;
        IF FOUND THEN
            RAISE EXCEPTION 'an update of a monitor that is not there: channel %', encode(missing, 'hex');
        END IF;
        INSERT INTO holdfast.monitor_updates (channel_id, update_id, bytes)
            SELECT * FROM unnest(p_update_channels, p_update_ids, p_update_bytes)
            ON CONFLICT (channel_id, update_id) DO UPDATE SET bytes = EXCLUDED.bytes;
    END IF;
    IF cardinality(p_archived_channels) > 0 THEN
        UPDATE holdfast.monitors SET archived_at = now()
            WHERE channel_id = ANY (p_archived_channels) AND archived_at IS NULL;
    END IF;

    IF cardinality(p_kv_keys) > 0 THEN
        INSERT INTO holdfast.kv (primary_namespace, secondary_namespace, key, value)
            SELECT p, s, k, v FROM unnest(p_kv_primaries, p_kv_secondaries, p_kv_keys, p_kv_values) AS w (p, s, k, v)
            WHERE v IS NOT NULL
            ON CONFLICT (primary_namespace, secondary_namespace, key) DO UPDATE SET value = EXCLUDED.value;
        DELETE FROM holdfast.kv
            USING unnest(p_kv_primaries, p_kv_secondaries, p_kv_keys, p_kv_values) AS w (p, s, k, v)
            WHERE v IS NULL AND primary_namespace = p AND secondary_namespace = s AND key = k;
    END IF;

    IF p_effects IS NOT NULL THEN
        FOR effect IN SELECT * FROM jsonb_array_elements(p_effects) LOOP
            PERFORM holdfast.apply_effect(effect);
        END LOOP;
    END IF;
    verdict := 'committed';
END
$$;
COMMENT ON FUNCTION holdfast.commit_batch IS 'Writes one batch whole, if p_term is the newest term and p_sequence follows the last batch.';

-- Applied twice, an effect changes nothing the second time.
CREATE FUNCTION holdfast.apply_effect(e jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    CASE e->>'effect'
    WHEN 'payment' THEN
        INSERT INTO holdfast.payments AS p
            (payment_hash, direction, kind, status, amount_msat, fee_msat, preimage, failure, invoice)
        VALUES ((e->>'payment_hash')::bytea, e->>'direction', e->>'kind', e->>'status', (e->>'amount_msat')::bigint,
                (e->>'fee_msat')::bigint, (e->>'preimage')::bytea,
                CASE e->>'status' WHEN 'failed' THEN e->>'failure' END, e->>'invoice')
        ON CONFLICT (payment_hash, direction) DO UPDATE SET
            status = CASE p.status WHEN 'succeeded' THEN p.status ELSE EXCLUDED.status END,
            amount_msat = COALESCE(EXCLUDED.amount_msat, p.amount_msat),
            fee_msat = COALESCE(EXCLUDED.fee_msat, p.fee_msat),
            preimage = COALESCE(EXCLUDED.preimage, p.preimage),
            invoice = COALESCE(EXCLUDED.invoice, p.invoice),
            failure = CASE WHEN p.status <> 'succeeded' AND EXCLUDED.status = 'failed'
                THEN COALESCE(EXCLUDED.failure, p.failure) END,
            updated_at = now()
        WHERE (p.status <> 'succeeded'
               AND (p.status <> EXCLUDED.status OR p.failure IS DISTINCT FROM COALESCE(EXCLUDED.failure, p.failure)))
            OR (p.amount_msat, p.fee_msat, p.preimage, p.invoice) IS DISTINCT FROM
               (COALESCE(EXCLUDED.amount_msat, p.amount_msat), COALESCE(EXCLUDED.fee_msat, p.fee_msat),
                COALESCE(EXCLUDED.preimage, p.preimage), COALESCE(EXCLUDED.invoice, p.invoice));
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
COMMENT ON FUNCTION holdfast.apply_effect IS 'Writes one row that people query; part of commit_batch.';
