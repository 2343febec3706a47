"""Writes results from the bus to the database: raw rows, and counters per window."""
