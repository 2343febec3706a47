"""The commands of the command line, one module each.

A module has ``add_arguments(parser)`` and ``run(args) -> exit status``; it is imported only
when its command runs. A failure is a MonitorError.
"""

from __future__ import annotations

__all__ = ["COMMANDS"]

# command -> (its module, its help)
COMMANDS: dict[str, tuple[str, str]] = {
    "status": ("status", "show the parts, the sites that are down and the open incidents"),
    "follow": ("follow", "show a job's progress in the terminal"),
    "play": ("play", "send a job's messages to a relay, to try it out"),
    "job": ("job", "list, check, start, stop and edit the jobs of a running daemon"),
    "alerts": ("alerts", "list and acknowledge incidents, silence them, and test a receiver"),
    "logs": ("logs", "show log entries, and with --follow new ones"),
    "token": ("token", "create, list and revoke API tokens"),
    "rejected": ("rejected", "list messages that could not be counted, and try them again"),
    "configure-database": ("configure_database", "create or upgrade the tables"),
    "start-consumer": ("start_consumer", "run only the aggregation"),
    "probe": ("probe", "check a site once and show its phases"),
    "producers-needed": ("producers_needed", "print how many producers the active sites need"),
    "start-producer": ("start_producer", "run only the probes, for one range of sites"),
    "topic": ("topic", "show the messages of a topic"),
    "completion": ("completion", "print a script that completes commands in a shell"),
    "check-config": ("check_config", "validate a config and print the settings in force"),
}
