"""The commands beside the daemon, one module each.

A module has ``add_arguments(parser)`` and ``run(args) -> exit status``; it is imported only
when its command runs. A failure is a MonitorError.
"""

from __future__ import annotations

__all__ = ["COMMANDS"]

# command -> (module here, what --help says)
COMMANDS: dict[str, tuple[str, str]] = {
    "follow": ("follow", "show a job's progress in the terminal"),
    "play": ("play", "send a job's messages to a relay, to try it out"),
    "job": ("job", "list, show, start and stop the jobs of a running daemon"),
    "logs": ("logs", "show what the fleet said, and with --follow what it says"),
    "token": ("token", "make an API token"),
    "configure-database": ("configure_database", "create or upgrade the tables"),
    "start-consumer": ("start_consumer", "run the aggregation alone"),
    "probe": ("probe", "check a site once, now, and show where the time goes"),
    "producers-needed": ("producers_needed", "print how many producers the active sites need"),
    "start-producer": ("start_producer", "run the probes of one range of sites, and no other part"),
    "topic": ("topic", "show what a topic holds"),
    "check-config": ("check_config", "validate a config and print the settings in force"),
}
