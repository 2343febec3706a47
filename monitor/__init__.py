"""recodex-monitor: one daemon that carries operational events to those who watch them."""

__version__ = "2.0.0"
