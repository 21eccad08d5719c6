-- What peers gave back of our encrypted backup, and this database did not know, stands beside the channels' own entries.

CREATE OR REPLACE VIEW holdfast_public.channel_backups WITH (security_barrier = true) AS
SELECT k.key AS channel_id, e->>'counterparty' AS counterparty,
       ARRAY(SELECT jsonb_array_elements_text(e->'addresses')) AS addresses,
       e->>'funding_outpoint' AS funding_outpoint, (e->>'capacity_sat')::bigint AS capacity_sat,
       e->>'channel_type' AS channel_type, e->>'channel_keys_id' AS channel_keys_id,
       to_timestamp((e->>'written_ms')::bigint / 1000.0) AS written_at,
       e->>'returned_by' AS returned_by
FROM holdfast.kv k, LATERAL (SELECT convert_from(k.value, 'UTF8')::jsonb) AS v (e)
WHERE k.primary_namespace IN ('channel-backup', 'channel-backup-returned');
COMMENT ON COLUMN holdfast_public.channel_backups.returned_by IS 'Hex; the peer who gave the entry back, if this database had never heard of the channel; else NULL.';
