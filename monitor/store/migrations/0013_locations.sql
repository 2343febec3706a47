-- Where a check ran. Checks of one site from several locations have the same times: the location
-- tells their results and their metrics apart. Earlier rows have the location ''.

-- dialect: postgresql
ALTER TABLE availability_result ADD COLUMN location text NOT NULL DEFAULT '';
ALTER TABLE availability_result ADD COLUMN quorum integer;
ALTER TABLE availability_result DROP CONSTRAINT availability_result_pkey;
ALTER TABLE availability_result ADD PRIMARY KEY (job_id, scheduled_at, location);

ALTER TABLE availability_metric ADD COLUMN location text NOT NULL DEFAULT '';
ALTER TABLE availability_metric DROP CONSTRAINT availability_metric_pkey;
ALTER TABLE availability_metric ADD PRIMARY KEY (job_id, dt, granularity, location);

-- dialect: sqlite
-- The columns of a key come first: before 3.42, SQLite's integrity_check mistakes others for NULL.
DROP INDEX availability_result_scheduled_at;
ALTER TABLE availability_result RENAME TO earlier_result;

CREATE TABLE availability_result (
    job_id INTEGER NOT NULL,
    scheduled_at REAL NOT NULL,
    location TEXT NOT NULL DEFAULT '',
    checked_at REAL NOT NULL,
    url TEXT NOT NULL,
    kind TEXT NOT NULL,
    up INTEGER NOT NULL,
    status INTEGER,
    response_time REAL,
    duration REAL,
    error TEXT,
    matched INTEGER,
    phases TEXT,
    certificate_expires_at REAL,
    producer INTEGER,
    attempt INTEGER,
    missed INTEGER,
    degraded INTEGER,
    chain_expires_at REAL,
    quorum INTEGER,
    PRIMARY KEY (job_id, scheduled_at, location)
) WITHOUT ROWID;

INSERT INTO availability_result (job_id, scheduled_at, checked_at, url, kind, up, status, response_time,
    duration, error, matched, phases, certificate_expires_at, producer, attempt, missed, degraded,
    chain_expires_at)
SELECT job_id, scheduled_at, checked_at, url, kind, up, status, response_time,
    duration, error, matched, phases, certificate_expires_at, producer, attempt, missed, degraded,
    chain_expires_at
FROM earlier_result;

DROP TABLE earlier_result;
CREATE INDEX availability_result_scheduled_at ON availability_result (scheduled_at);

DROP INDEX availability_metric_dt;
DROP INDEX availability_metric_failed;
ALTER TABLE availability_metric RENAME TO earlier_metric;

CREATE TABLE availability_metric (
    job_id INTEGER NOT NULL,
    dt INTEGER NOT NULL,
    granularity TEXT NOT NULL,
    location TEXT NOT NULL DEFAULT '',
    checks INTEGER NOT NULL,
    failures INTEGER NOT NULL,
    rt_min REAL,
    rt_max REAL,
    rt_sum REAL NOT NULL,
    data TEXT NOT NULL,
    rt_buckets TEXT NOT NULL,
    fields TEXT NOT NULL DEFAULT '{}',
    PRIMARY KEY (job_id, dt, granularity, location)
) WITHOUT ROWID;

INSERT INTO availability_metric (job_id, dt, granularity, checks, failures, rt_min, rt_max, rt_sum, data,
    rt_buckets, fields)
SELECT job_id, dt, granularity, checks, failures, rt_min, rt_max, rt_sum, data, rt_buckets, fields
FROM earlier_metric;

DROP TABLE earlier_metric;
CREATE INDEX availability_metric_dt ON availability_metric (granularity, dt);
CREATE INDEX availability_metric_failed ON availability_metric (granularity, dt)
    WHERE failures > 0;
