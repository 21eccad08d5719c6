-- What happened, in the order of the commits that made it happen: one row an event, never changed, written by triggers on
-- the rows that it is about. So an event is as durable as its state, and an effect that changes nothing makes none.

CREATE TABLE holdfast.events (
    sequence bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at       timestamptz NOT NULL DEFAULT now(),
    topic    text NOT NULL CHECK (topic IN ('payment', 'channel', 'forward', 'onchain', 'leader')),
    event    text NOT NULL,
    subject  jsonb NOT NULL
);
COMMENT ON TABLE holdfast.events IS 'What happened, in order. All who write here hold the leadership row: a batch FOR SHARE, batch after batch, the raise of a term and a handover exclusively. So a lower sequence is never committed after a higher one, and who reads on from a sequence misses nothing.';
COMMENT ON COLUMN holdfast.events.sequence IS 'Order of the commits, and within one of the changes; with gaps. The cursor of WatchEvents.';
COMMENT ON COLUMN holdfast.events.subject IS 'What it is about, as it was then.';

CREATE TABLE holdfast.events_pruned (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    through   bigint NOT NULL DEFAULT 0 CHECK (through >= 0)
);
COMMENT ON TABLE holdfast.events_pruned IS 'The newest event that was removed for its age: who has not seen it has lost events, and is told so.';
INSERT INTO holdfast.events_pruned DEFAULT VALUES;

CREATE FUNCTION holdfast.payment_event() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    subject jsonb;
BEGIN
    IF TG_OP = 'UPDATE' AND NEW.status = OLD.status THEN
        RETURN NULL;
    END IF;
    -- Invoices, offers and metadata can be long, and do not change: GetPayment has them.
    subject := jsonb_strip_nulls(jsonb_build_object(
        'payment_id', encode(NEW.payment_id, 'hex'), 'payment_hash', encode(NEW.payment_hash, 'hex'),
        'direction', NEW.direction, 'kind', NEW.kind, 'status', NEW.status, 'amount_msat', NEW.amount_msat,
        'fee_msat', NEW.fee_msat, 'preimage', encode(NEW.preimage, 'hex'), 'failure', NEW.failure, 'label', NEW.label,
        'payer_note', NEW.payer_note, 'cancel_height', NEW.cancel_height, 'sequence', NEW.sequence,
        'created_ms', (extract(epoch FROM NEW.created_at) * 1000)::bigint,
        'updated_ms', (extract(epoch FROM NEW.updated_at) * 1000)::bigint));
    IF TG_OP = 'INSERT' THEN
        INSERT INTO holdfast.events (topic, event, subject) VALUES ('payment', 'created', subject);
    END IF;
    IF TG_OP = 'UPDATE' OR NEW.status <> 'pending' THEN
        INSERT INTO holdfast.events (topic, event, subject)
        VALUES ('payment', CASE NEW.status WHEN 'accepted' THEN 'held' ELSE NEW.status END, subject);
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER event AFTER INSERT OR UPDATE OF status ON holdfast.payments
    FOR EACH ROW EXECUTE FUNCTION holdfast.payment_event();

CREATE FUNCTION holdfast.channel_event() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' OR NEW.state <> OLD.state THEN
        INSERT INTO holdfast.events (topic, event, subject)
        VALUES ('channel', NEW.state, jsonb_strip_nulls(jsonb_build_object(
            'channel_id', encode(NEW.channel_id, 'hex'), 'user_channel_id', encode(NEW.user_channel_id, 'hex'),
            'counterparty', encode(NEW.counterparty, 'hex'), 'funding', NEW.funding,
            'close_reason', NEW.close_reason)));
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER event AFTER INSERT OR UPDATE OF state ON holdfast.channels
    FOR EACH ROW EXECUTE FUNCTION holdfast.channel_event();

CREATE FUNCTION holdfast.forward_event() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO holdfast.events (topic, event, subject)
    VALUES ('forward', 'settled', jsonb_strip_nulls(jsonb_build_object(
        'incoming_channel', encode(NEW.incoming_channel, 'hex'), 'outgoing_channel', encode(NEW.outgoing_channel, 'hex'),
        'amount_msat', NEW.amount_msat, 'fee_msat', NEW.fee_msat)));
    RETURN NULL;
END
$$;
CREATE TRIGGER event AFTER INSERT ON holdfast.forwards FOR EACH ROW EXECUTE FUNCTION holdfast.forward_event();

CREATE FUNCTION holdfast.broadcast_event() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO holdfast.events (topic, event, subject)
    VALUES ('onchain', 'broadcast', jsonb_build_object('txid', NEW.txid, 'size_bytes', length(NEW.raw)));
    RETURN NULL;
END
$$;
CREATE TRIGGER event AFTER INSERT ON holdfast.onchain_broadcasts
    FOR EACH ROW EXECUTE FUNCTION holdfast.broadcast_event();

CREATE FUNCTION holdfast.leader_event() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO holdfast.events (topic, event, subject)
    VALUES ('leader', TG_ARGV[0], jsonb_strip_nulls(jsonb_build_object(
        'term', NEW.term, 'replica', NEW.replica, 'api_address', NEW.api_address)));
    RETURN NULL;
END
$$;
-- The raise of a term writes its history in the statement that changes the leadership row, and so after it has that row.
CREATE TRIGGER event AFTER INSERT ON holdfast.leadership_history
    FOR EACH ROW EXECUTE FUNCTION holdfast.leader_event('elected');
CREATE TRIGGER event AFTER UPDATE OF released_at ON holdfast.leadership
    FOR EACH ROW WHEN (OLD.released_at IS NULL AND NEW.released_at IS NOT NULL)
    EXECUTE FUNCTION holdfast.leader_event('released');

CREATE FUNCTION holdfast.prune_events(p_term bigint, p_keep_seconds bigint, p_limit integer)
RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    last bigint;
    gone bigint;
BEGIN
    PERFORM FROM holdfast.leadership WHERE term = p_term FOR SHARE;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    SELECT max(sequence) INTO last
        FROM (SELECT sequence, at FROM holdfast.events ORDER BY sequence LIMIT p_limit) AS oldest
        WHERE at < now() - make_interval(secs => p_keep_seconds);
    IF last IS NULL THEN
        RETURN 0;
    END IF;
    DELETE FROM holdfast.events WHERE sequence <= last;
    GET DIAGNOSTICS gone = ROW_COUNT;
    UPDATE holdfast.events_pruned SET through = last;
    RETURN gone;
END
$$;
COMMENT ON FUNCTION holdfast.prune_events IS 'Removes at most p_limit events that are older than p_keep_seconds, if p_term is the newest term, and says how many it were.';

COMMENT ON TABLE holdfast.payment_keys IS 'The idempotency keys that clients have paid under, over Lightning or on chain: the same key never pays twice.';
COMMENT ON COLUMN holdfast.payment_keys.payment_id IS 'The payment; of an on-chain payment the txid, in the order of its bytes.';
