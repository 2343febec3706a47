"""The commands of the command line, one module each.

A module has ``add_arguments(parser)`` and ``run(args) -> exit status``; it is imported only
when its command runs. A failure is a MonitorError.
"""

from __future__ import annotations

__all__ = ["COMMANDS"]

# command -> (its module, its help)
COMMANDS: dict[str, tuple[str, str]] = {
    "follow": ("follow", "show a job's progress in the terminal"),
    "play": ("play", "send a job's messages to a relay, to try it out"),
    "job": ("job", "list, show, start and stop the jobs of a running daemon"),
    "logs": ("logs", "show log entries, and with --follow new ones"),
    "token": ("token", "create an API token"),
    "configure-database": ("configure_database", "create or upgrade the tables"),
    "start-consumer": ("start_consumer", "run only the aggregation"),
    "probe": ("probe", "check a site once and show its phases"),
    "producers-needed": ("producers_needed", "print how many producers the active sites need"),
    "start-producer": ("start_producer", "run only the probes, for one range of sites"),
    "topic": ("topic", "show the messages of a topic"),
    "check-config": ("check_config", "validate a config and print the settings in force"),
}
