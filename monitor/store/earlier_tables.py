"""Tables of another program in our schema: an earlier monitor of websites, with the same names.

Its ``availability_monitor_config`` has the columns amc_id, amc_url_with_schema and amc_regexp. It
is renamed, so that our own table can have its name.
"""

from __future__ import annotations

from monitor.store.interface import Connection, TablesError

__all__ = ["EARLIER_SITES", "has_earlier_sites", "set_aside"]

EARLIER_SITES = "earlier_monitor_config"
"""What the earlier monitor's table of sites is called from then on."""


def set_aside(connection: Connection, server: str) -> None:
    """Rename the earlier monitor's table of sites, if there is one, in the caller's transaction."""
    if connection.dialect != "postgresql":
        return
    found = connection.query(
        "SELECT 1 FROM information_schema.columns WHERE table_schema = current_schema()"
        " AND table_name = 'availability_monitor_config' AND column_name = 'amc_url_with_schema'"
    )
    if not found:
        return
    if has_earlier_sites(connection):
        problem = f"both availability_monitor_config and {EARLIER_SITES} are an earlier monitor's"
        raise TablesError(server, f"{problem}: rename or drop one of them")
    connection.execute(f"ALTER TABLE availability_monitor_config RENAME TO {EARLIER_SITES}")


def has_earlier_sites(connection: Connection) -> bool:
    """Return whether there are sites that were set aside."""
    if connection.dialect != "postgresql":
        return False
    return bool(
        connection.query(
            "SELECT 1 FROM pg_class WHERE relname = %s"
            " AND relnamespace = current_schema()::regnamespace",
            (EARLIER_SITES,),
        )
    )
