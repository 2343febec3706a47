"""Files that people write, read within bounds: of kind, of size, of depth and of time."""
