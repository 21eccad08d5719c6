-- The static backup of the channels as a view: the entries are small records like others (holdfast.kv), written by the
-- batches that change a channel.

CREATE VIEW holdfast_public.channel_backups AS
SELECT k.key AS channel_id, e->>'counterparty' AS counterparty,
       ARRAY(SELECT jsonb_array_elements_text(e->'addresses')) AS addresses,
       e->>'funding_outpoint' AS funding_outpoint, (e->>'capacity_sat')::bigint AS capacity_sat,
       e->>'channel_type' AS channel_type, e->>'channel_keys_id' AS channel_keys_id,
       to_timestamp((e->>'written_ms')::bigint / 1000.0) AS written_at
FROM holdfast.kv k, LATERAL (SELECT convert_from(k.value, 'UTF8')::jsonb) AS v (e)
WHERE k.primary_namespace = 'channel-backup';
COMMENT ON VIEW holdfast_public.channel_backups IS 'What names each channel and its peer, until all its money is on chain; `holdfast channel-backup export` shows the same.';
COMMENT ON COLUMN holdfast_public.channel_backups.channel_id IS 'Hex of the 32 bytes.';
COMMENT ON COLUMN holdfast_public.channel_backups.counterparty IS 'Hex; the node at the other end.';
COMMENT ON COLUMN holdfast_public.channel_backups.addresses IS 'Where that node was, or said that it is; `host:port` each.';
COMMENT ON COLUMN holdfast_public.channel_backups.funding_outpoint IS '`txid:vout`';
COMMENT ON COLUMN holdfast_public.channel_backups.capacity_sat IS 'Value of the funding output, in satoshi.';
COMMENT ON COLUMN holdfast_public.channel_backups.channel_type IS '`anchors` or `static-remote-key`.';
COMMENT ON COLUMN holdfast_public.channel_backups.channel_keys_id IS 'Hex; names the channel''s keys to the signer, and gives none away.';
COMMENT ON COLUMN holdfast_public.channel_backups.written_at IS 'When the entry last changed, by the leader''s clock.';
