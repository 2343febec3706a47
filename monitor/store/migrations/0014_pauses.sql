-- Until when a job is stopped; null: until it is started by hand.

-- dialect: postgresql
ALTER TABLE job_state ADD COLUMN stopped_until double precision;

-- dialect: sqlite
ALTER TABLE job_state ADD COLUMN stopped_until REAL;
