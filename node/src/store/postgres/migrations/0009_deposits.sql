-- Deposits: what others send to addresses of the wallet, from the first sight to the depth at which it counts, and back.

CREATE TABLE holdfast.deposits (
    outpoint      text PRIMARY KEY,
    address       text NOT NULL,
    amount_sat    bigint NOT NULL CHECK (amount_sat >= 0),
    label         text,
    standing      text NOT NULL CHECK (standing IN ('unconfirmed', 'mined', 'confirmed', 'gone')),
    block_height  bigint CHECK (block_height >= 0),
    block_hash    text,
    confirmations bigint NOT NULL CHECK (confirmations >= 0),
    sequence      bigint GENERATED ALWAYS AS IDENTITY,
    first_at      timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now(),
    CHECK ((block_height IS NULL) = (block_hash IS NULL))
);
CREATE UNIQUE INDEX deposits_sequence ON holdfast.deposits (sequence);
-- A leader loads these two.
CREATE INDEX deposits_open ON holdfast.deposits (outpoint) WHERE standing IN ('unconfirmed', 'mined');
CREATE INDEX deposits_block_height ON holdfast.deposits (block_height);
COMMENT ON TABLE holdfast.deposits IS 'Outputs that pay addresses that the wallet gave out, written by the batches that write the wallet. Change, and what channels leave, goes to other addresses.';
COMMENT ON COLUMN holdfast.deposits.block_height IS 'Of the block that has it; of one that is gone, of the block that has the other spend of its coins.';
COMMENT ON COLUMN holdfast.deposits.confirmations IS 'When it came to stand so.';

CREATE FUNCTION holdfast.apply_deposit(e jsonb) RETURNS void LANGUAGE sql AS $$
    INSERT INTO holdfast.deposits AS d
        (outpoint, address, amount_sat, label, standing, block_height, block_hash, confirmations)
    VALUES (e->>'outpoint', e->>'address', (e->>'amount_sat')::bigint, e->>'label', e->>'standing',
            (e->>'block_height')::bigint, e->>'block_hash', (e->>'confirmations')::bigint)
    ON CONFLICT (outpoint) DO UPDATE SET
        label = COALESCE(EXCLUDED.label, d.label), standing = EXCLUDED.standing, block_height = EXCLUDED.block_height,
        block_hash = EXCLUDED.block_hash, confirmations = EXCLUDED.confirmations, updated_at = now()
    WHERE (d.standing, d.block_hash) IS DISTINCT FROM (EXCLUDED.standing, EXCLUDED.block_hash)
$$;
COMMENT ON FUNCTION holdfast.apply_deposit IS 'How a deposit stands; part of apply_effect. Applied twice it changes nothing the second time.';

ALTER FUNCTION holdfast.apply_effect(jsonb) RENAME TO apply_other_effect;
COMMENT ON FUNCTION holdfast.apply_other_effect IS 'The effects that have no function of their own; part of apply_effect.';
CREATE FUNCTION holdfast.apply_effect(e jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    CASE e->>'effect'
    WHEN 'deposit' THEN
        PERFORM holdfast.apply_deposit(e);
    ELSE
        PERFORM holdfast.apply_other_effect(e);
    END CASE;
END
$$;
COMMENT ON FUNCTION holdfast.apply_effect IS 'Writes one row that people query; part of commit_batch.';

ALTER TABLE holdfast.events
    DROP CONSTRAINT events_topic_check,
    ADD CONSTRAINT events_topic_check
        CHECK (topic IN ('payment', 'channel', 'forward', 'onchain', 'deposit', 'leader'));

CREATE FUNCTION holdfast.deposit_event() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND NEW.standing = OLD.standing THEN
        RETURN NULL;
    END IF;
    INSERT INTO holdfast.events (topic, event, subject)
    VALUES ('deposit',
        CASE
            WHEN NEW.standing <> 'unconfirmed' THEN NEW.standing
            WHEN TG_OP = 'UPDATE' AND OLD.standing <> 'gone' THEN 'taken-back'
            ELSE 'seen'
        END,
        jsonb_strip_nulls(jsonb_build_object(
            'outpoint', NEW.outpoint, 'address', NEW.address, 'amount_sat', NEW.amount_sat, 'label', NEW.label,
            'confirmations', NEW.confirmations, 'block_height', NEW.block_height, 'block_hash', NEW.block_hash)));
    RETURN NULL;
END
$$;
CREATE TRIGGER event AFTER INSERT OR UPDATE OF standing ON holdfast.deposits
    FOR EACH ROW EXECUTE FUNCTION holdfast.deposit_event();

CREATE VIEW holdfast_public.deposits AS
SELECT d.sequence, split_part(d.outpoint, ':', 1) AS txid, split_part(d.outpoint, ':', 2)::bigint AS vout, d.address,
       d.amount_sat, d.label, d.standing, d.block_height, d.block_hash, d.first_at, d.updated_at
FROM holdfast.deposits d;
COMMENT ON VIEW holdfast_public.deposits IS 'What others sent to addresses that the wallet gave out; change and what channels leave is not among them.';
COMMENT ON COLUMN holdfast_public.deposits.sequence IS 'Order of the first sight, with gaps. Good for paging.';
COMMENT ON COLUMN holdfast_public.deposits.txid IS 'The transaction, as explorers show it.';
COMMENT ON COLUMN holdfast_public.deposits.vout IS 'Which of its outputs.';
COMMENT ON COLUMN holdfast_public.deposits.address IS 'The address that it pays.';
COMMENT ON COLUMN holdfast_public.deposits.amount_sat IS 'In satoshi.';
COMMENT ON COLUMN holdfast_public.deposits.label IS 'The address''s label, when it was last told of.';
COMMENT ON COLUMN holdfast_public.deposits.standing IS '`unconfirmed` (in no block, or in one no more), `mined`, `confirmed` (as deep as `deposit_confirmations` wants) or `gone` (another transaction has its coins).';
COMMENT ON COLUMN holdfast_public.deposits.block_height IS 'Of the block that has it; of one that is gone, of the block that has the other spend. Null in no block.';
COMMENT ON COLUMN holdfast_public.deposits.block_hash IS 'That block.';
COMMENT ON COLUMN holdfast_public.deposits.first_at IS 'When it was first seen.';
COMMENT ON COLUMN holdfast_public.deposits.updated_at IS 'When it came to stand so.';

COMMENT ON COLUMN holdfast.forwards.event_id IS 'Made of the incoming channel and HTLC, so that what LDK tells again after a restart is no second row.';
