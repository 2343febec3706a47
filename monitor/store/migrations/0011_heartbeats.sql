-- The keys that jobs of the kind heartbeat are reported with, as hashes, and the last beats.

-- dialect: postgresql
CREATE TABLE heartbeat (
    job_id bigint PRIMARY KEY,
    key_hash text NOT NULL UNIQUE,
    beat_at double precision,
    beat_up boolean,
    message text
);

-- dialect: sqlite
CREATE TABLE heartbeat (
    job_id INTEGER PRIMARY KEY,
    key_hash TEXT NOT NULL UNIQUE,
    beat_at REAL,
    beat_up INTEGER,
    message TEXT
);
