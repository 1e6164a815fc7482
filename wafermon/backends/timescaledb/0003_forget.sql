-- Where TimescaleDB does not drop what is old: SELECT forget('90 days'), once a day by cron. Answers with the number of
-- rows. `traces` are forgotten by it alone, since they are no hypertable.
CREATE FUNCTION forget(older_than interval) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    of_table text;
    forgotten bigint;
    total bigint := 0;
BEGIN
    FOREACH of_table IN ARRAY ARRAY['events', 'metrics', 'progress', 'resources', 'span_starts', 'spans', 'traces'] LOOP
        EXECUTE format('DELETE FROM %I WHERE time < now() - $1', of_table) USING older_than;
        GET DIAGNOSTICS forgotten = ROW_COUNT;
        total := total + forgotten;
    END LOOP;
    RETURN total;
END
$$;
