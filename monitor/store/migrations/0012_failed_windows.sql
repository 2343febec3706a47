-- Finds the windows in which checks failed, for outages of all sites over a range of time.

-- dialect: postgresql
CREATE INDEX availability_metric_failed ON availability_metric (granularity, dt)
    WHERE failures > 0;

-- dialect: sqlite
CREATE INDEX availability_metric_failed ON availability_metric (granularity, dt)
    WHERE failures > 0;
