"""recodex-monitor: a daemon that carries operational events to the people who watch them."""

__version__ = "2.0.0"
