"""A lease in the database: of all instances, one at a time sends messages.

An instance that is restarted on the same host takes its own lease again at once. Another one takes
it 15 s after it was last renewed, by the clock of the database.
"""

from __future__ import annotations

import socket
import time
from pathlib import Path

from monitor.settings import state_directory
from monitor.store import Connection

__all__ = ["LEASE_S", "acquire", "holder", "release"]

LEASE_S = 15.0


def holder() -> str:
    """Return the name of this instance: the same after a restart, and different elsewhere."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        boot = ""
    return f"{socket.gethostname()} {boot} {state_directory()}"


def acquire(connection: Connection, name: str, me: str) -> bool:
    """Take or renew the lease; return False while another instance has it."""
    if connection.dialect == "postgresql":
        ((now,),) = connection.query("SELECT extract(epoch FROM clock_timestamp())::float8")
    else:
        now = time.time()
    connection.insert(
        "alert_lease", ("name", "holder", "until"), [(name, "", 0.0)], "ON CONFLICT DO NOTHING"
    )
    changed = connection.execute(
        "UPDATE alert_lease SET holder = %s, until = %s"
        # A clock that was set back by a lot must not keep a lease that nobody renews.
        " WHERE name = %s AND (holder = %s OR until < %s OR until > %s)",
        (me, now + LEASE_S, name, me, now, now + 2 * LEASE_S),
    )
    return changed == 1


def release(connection: Connection, name: str, me: str) -> None:
    """End the lease, so that another instance can take it at once."""
    connection.execute(
        "UPDATE alert_lease SET until = 0 WHERE name = %s AND holder = %s", (name, me)
    )
