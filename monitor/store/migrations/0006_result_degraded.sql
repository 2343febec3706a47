-- Whether an up result is degraded; null for results of earlier versions.

-- dialect: postgresql
ALTER TABLE availability_result ADD COLUMN degraded boolean;

-- dialect: sqlite
ALTER TABLE availability_result ADD COLUMN degraded INTEGER;
