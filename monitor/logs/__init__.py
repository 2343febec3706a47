"""Logs: what the devices of a fleet say, kept for a time window, queried and watched live."""
