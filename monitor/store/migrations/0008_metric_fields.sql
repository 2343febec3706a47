-- Counters of other fields than the response time, up to where metrics were purged, and the headers
-- of rejected messages, for another try.

-- dialect: postgresql
ALTER TABLE availability_metric ADD COLUMN fields jsonb NOT NULL DEFAULT '{}';

-- Windows that start before this instant were deleted and must not come back incomplete.
CREATE TABLE metric_purge (
    granularity text PRIMARY KEY,
    purged_before double precision NOT NULL
);

ALTER TABLE rejected_message ADD COLUMN headers text;

-- Adds two objects of counters by field.
CREATE FUNCTION fields_add(a jsonb, b jsonb) RETURNS jsonb
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    AS $$
        SELECT a || coalesce(
            (SELECT jsonb_object_agg(key, CASE WHEN a ? key THEN jsonb_build_object(
                'count', (a -> key ->> 'count')::bigint + (value ->> 'count')::bigint,
                'min', least((a -> key ->> 'min')::float8, (value ->> 'min')::float8),
                'max', greatest((a -> key ->> 'max')::float8, (value ->> 'max')::float8),
                'sum', (a -> key ->> 'sum')::float8 + (value ->> 'sum')::float8,
                'buckets', counts_add(a -> key -> 'buckets', value -> 'buckets')
             ) ELSE value END)
             FROM jsonb_each(b)),
            '{}'
        )
    $$;

-- dialect: sqlite
ALTER TABLE availability_metric ADD COLUMN fields TEXT NOT NULL DEFAULT '{}';

CREATE TABLE metric_purge (
    granularity TEXT PRIMARY KEY,
    purged_before REAL NOT NULL
) WITHOUT ROWID;

ALTER TABLE rejected_message ADD COLUMN headers TEXT;
