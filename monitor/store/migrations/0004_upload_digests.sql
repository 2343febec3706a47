-- What an upload that named itself held, to tell its repeat from another one under the same name;
-- null of those that were answered before.

-- dialect: postgresql
ALTER TABLE log_upload ADD COLUMN digest text;

-- dialect: sqlite
ALTER TABLE log_upload ADD COLUMN digest TEXT;
