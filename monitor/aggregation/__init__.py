"""Results from the bus to the database: raw rows, and counters by window that match them."""
