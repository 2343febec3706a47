-- Log entries and notifications of a fleet, and which uploads were answered.

-- dialect: postgresql
-- Partitioned by the entries' own time; partitions are made by the writer. Ids come in blocks
-- of 65,536, one for each commit: the block names the commit to other instances.
CREATE TABLE log_entry (
    id bigint NOT NULL,
    level text NOT NULL,
    time double precision NOT NULL,
    sender text NOT NULL,
    message text NOT NULL,
    received_at double precision NOT NULL,
    PRIMARY KEY (time, id)
) PARTITION BY RANGE (time);

CREATE INDEX log_entry_sender ON log_entry (sender, time, id);
CREATE INDEX log_entry_id ON log_entry (id);
CREATE SEQUENCE log_entry_block OWNED BY log_entry.id;

CREATE TABLE notification (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    level text NOT NULL,
    time double precision NOT NULL,
    sender text NOT NULL,
    message text NOT NULL,
    received_at double precision NOT NULL
);

CREATE INDEX notification_time ON notification (time, id);

CREATE TABLE log_upload (
    sender text NOT NULL,
    upload_id text NOT NULL,
    kind text NOT NULL,
    answer text NOT NULL,
    received_at double precision NOT NULL,
    PRIMARY KEY (sender, upload_id, kind)
);

CREATE INDEX log_upload_received_at ON log_upload (received_at);

-- dialect: sqlite
CREATE TABLE log_entry (
    id INTEGER PRIMARY KEY,
    level TEXT NOT NULL,
    time REAL NOT NULL,
    sender TEXT NOT NULL,
    message TEXT NOT NULL,
    received_at REAL NOT NULL
);

CREATE INDEX log_entry_time ON log_entry (time);
CREATE INDEX log_entry_sender ON log_entry (sender, time);

CREATE TABLE notification (
    id INTEGER PRIMARY KEY,
    level TEXT NOT NULL,
    time REAL NOT NULL,
    sender TEXT NOT NULL,
    message TEXT NOT NULL,
    received_at REAL NOT NULL
);

CREATE INDEX notification_time ON notification (time);

CREATE TABLE log_upload (
    sender TEXT NOT NULL,
    upload_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    answer TEXT NOT NULL,
    received_at REAL NOT NULL,
    PRIMARY KEY (sender, upload_id, kind)
) WITHOUT ROWID;

CREATE INDEX log_upload_received_at ON log_upload (received_at);
