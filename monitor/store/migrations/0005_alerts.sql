-- Incidents, their deliveries to receivers, and the states of rules, which are committed together
-- with the offsets of the messages that were judged. Instants are seconds since the epoch, UTC;
-- state, note and match are JSON.

-- dialect: postgresql
CREATE TABLE alert_incident (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id text NOT NULL UNIQUE,
    rule text NOT NULL,
    watch text NOT NULL,
    subject text NOT NULL,
    job_id bigint,
    title text NOT NULL,
    reason text NOT NULL,
    opened_at double precision NOT NULL,
    caused_at double precision NOT NULL,
    noted_at double precision NOT NULL,
    late boolean NOT NULL,
    acknowledged_at double precision,
    acknowledged_by text,
    resolved_at double precision,
    suppressed_by text,
    announced_at double precision,
    told_at double precision,
    look_at double precision,
    changed_at double precision NOT NULL
);

CREATE UNIQUE INDEX alert_incident_open ON alert_incident (rule, subject)
    WHERE resolved_at IS NULL;
CREATE INDEX alert_incident_look ON alert_incident (look_at) WHERE look_at IS NOT NULL;
CREATE INDEX alert_incident_announced ON alert_incident (announced_at)
    WHERE announced_at IS NOT NULL;
CREATE INDEX alert_incident_job ON alert_incident (job_id, seq) WHERE job_id IS NOT NULL;
CREATE INDEX alert_incident_resolved ON alert_incident (resolved_at)
    WHERE resolved_at IS NOT NULL;
CREATE INDEX alert_incident_changed ON alert_incident (changed_at);

CREATE TABLE alert_delivery (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id text NOT NULL UNIQUE,
    receiver text NOT NULL,
    target text NOT NULL,
    event text NOT NULL,
    incidents integer NOT NULL,
    created_at double precision NOT NULL,
    next_at double precision,
    attempts integer NOT NULL DEFAULT 0,
    error text,
    accepted_at double precision
);

CREATE INDEX alert_delivery_waiting ON alert_delivery (receiver, target, seq)
    WHERE next_at IS NOT NULL;

CREATE TABLE alert_notice (
    incident_id text NOT NULL,
    delivery_id text NOT NULL,
    PRIMARY KEY (incident_id, delivery_id)
);

CREATE INDEX alert_notice_delivery ON alert_notice (delivery_id);

CREATE TABLE alert_state (
    rule text NOT NULL,
    subject text NOT NULL,
    source text NOT NULL,
    place integer NOT NULL,
    incident text,
    since double precision,
    bad_at double precision,
    state text NOT NULL,
    PRIMARY KEY (rule, subject)
);

CREATE INDEX alert_state_source ON alert_state (source, place);

CREATE TABLE alert_offset (
    source text NOT NULL,
    place integer NOT NULL,
    next_offset bigint NOT NULL,
    began_at double precision NOT NULL,
    note text,
    PRIMARY KEY (source, place)
);

CREATE TABLE alert_seen (
    job_id bigint PRIMARY KEY,
    seen_at double precision NOT NULL
);

CREATE TABLE alert_silence (
    id text PRIMARY KEY,
    created_at double precision NOT NULL,
    created_by text NOT NULL,
    until double precision NOT NULL,
    match text NOT NULL,
    comment text NOT NULL
);

CREATE TABLE alert_lease (
    name text PRIMARY KEY,
    holder text NOT NULL,
    until double precision NOT NULL
);

-- dialect: sqlite
CREATE TABLE alert_incident (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    rule TEXT NOT NULL,
    watch TEXT NOT NULL,
    subject TEXT NOT NULL,
    job_id INTEGER,
    title TEXT NOT NULL,
    reason TEXT NOT NULL,
    opened_at REAL NOT NULL,
    caused_at REAL NOT NULL,
    noted_at REAL NOT NULL,
    late INTEGER NOT NULL,
    acknowledged_at REAL,
    acknowledged_by TEXT,
    resolved_at REAL,
    suppressed_by TEXT,
    announced_at REAL,
    told_at REAL,
    look_at REAL,
    changed_at REAL NOT NULL
);

CREATE UNIQUE INDEX alert_incident_open ON alert_incident (rule, subject)
    WHERE resolved_at IS NULL;
CREATE INDEX alert_incident_look ON alert_incident (look_at) WHERE look_at IS NOT NULL;
CREATE INDEX alert_incident_announced ON alert_incident (announced_at)
    WHERE announced_at IS NOT NULL;
CREATE INDEX alert_incident_job ON alert_incident (job_id, seq) WHERE job_id IS NOT NULL;
CREATE INDEX alert_incident_resolved ON alert_incident (resolved_at)
    WHERE resolved_at IS NOT NULL;
CREATE INDEX alert_incident_changed ON alert_incident (changed_at);

CREATE TABLE alert_delivery (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    receiver TEXT NOT NULL,
    target TEXT NOT NULL,
    event TEXT NOT NULL,
    incidents INTEGER NOT NULL,
    created_at REAL NOT NULL,
    next_at REAL,
    attempts INTEGER NOT NULL DEFAULT 0,
    error TEXT,
    accepted_at REAL
);

CREATE INDEX alert_delivery_waiting ON alert_delivery (receiver, target, seq)
    WHERE next_at IS NOT NULL;

CREATE TABLE alert_notice (
    incident_id TEXT NOT NULL,
    delivery_id TEXT NOT NULL,
    PRIMARY KEY (incident_id, delivery_id)
) WITHOUT ROWID;

CREATE INDEX alert_notice_delivery ON alert_notice (delivery_id);

CREATE TABLE alert_state (
    rule TEXT NOT NULL,
    subject TEXT NOT NULL,
    source TEXT NOT NULL,
    place INTEGER NOT NULL,
    incident TEXT,
    since REAL,
    bad_at REAL,
    state TEXT NOT NULL,
    PRIMARY KEY (rule, subject)
) WITHOUT ROWID;

CREATE INDEX alert_state_source ON alert_state (source, place);

CREATE TABLE alert_offset (
    source TEXT NOT NULL,
    place INTEGER NOT NULL,
    next_offset INTEGER NOT NULL,
    began_at REAL NOT NULL,
    note TEXT,
    PRIMARY KEY (source, place)
) WITHOUT ROWID;

CREATE TABLE alert_seen (
    job_id INTEGER PRIMARY KEY,
    seen_at REAL NOT NULL
);

CREATE TABLE alert_silence (
    id TEXT PRIMARY KEY,
    created_at REAL NOT NULL,
    created_by TEXT NOT NULL,
    until REAL NOT NULL,
    match TEXT NOT NULL,
    comment TEXT NOT NULL
);

CREATE TABLE alert_lease (
    name TEXT PRIMARY KEY,
    holder TEXT NOT NULL,
    until REAL NOT NULL
) WITHOUT ROWID;
