-- When a silence begins; null: when it was made.

-- dialect: postgresql
ALTER TABLE alert_silence ADD COLUMN starts_at double precision;

-- dialect: sqlite
ALTER TABLE alert_silence ADD COLUMN starts_at REAL;
