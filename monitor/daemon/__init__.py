"""The daemon: its config, its assembly from parts, and its life cycle."""
