-- The id of the topic that an offset is a place in: a topic that is created again has another id,
-- and is read from its beginning. Null is not known: an offset of an earlier version, or a broker
-- older than 2.8.

-- dialect: postgresql
ALTER TABLE consumed_offset ADD COLUMN topic_id text;

-- dialect: sqlite
ALTER TABLE consumed_offset ADD COLUMN topic_id TEXT;
