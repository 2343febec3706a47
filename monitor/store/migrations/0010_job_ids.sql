-- The greatest id that a site ever had, so that none is given twice.

-- dialect: postgresql
CREATE TABLE job_id_mark (
    place integer PRIMARY KEY,
    greatest bigint NOT NULL
);

-- dialect: sqlite
CREATE TABLE job_id_mark (
    place INTEGER PRIMARY KEY,
    greatest INTEGER NOT NULL
);
