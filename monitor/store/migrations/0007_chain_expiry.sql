-- The earliest expiry of all certificates that a site sent; null for results of earlier versions.

-- dialect: postgresql
ALTER TABLE availability_result ADD COLUMN chain_expires_at double precision;

-- dialect: sqlite
ALTER TABLE availability_result ADD COLUMN chain_expires_at REAL;
