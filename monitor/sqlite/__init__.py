"""What all SQLite files of the daemon share."""
