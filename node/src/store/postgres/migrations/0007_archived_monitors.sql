-- Nobody reads the updates of an archived monitor, so they go with it, in the batch that archives it.

CREATE FUNCTION holdfast.archived_monitor() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM holdfast.monitor_updates WHERE channel_id = NEW.channel_id;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION holdfast.archived_monitor IS 'Removes the updates of a monitor that is archived.';

CREATE TRIGGER archived AFTER UPDATE OF archived_at ON holdfast.monitors
    FOR EACH ROW WHEN (OLD.archived_at IS NULL AND NEW.archived_at IS NOT NULL)
    EXECUTE FUNCTION holdfast.archived_monitor();

-- Those that were archived before.
DELETE FROM holdfast.monitor_updates u USING holdfast.monitors m
    WHERE m.channel_id = u.channel_id AND m.archived_at IS NOT NULL;
