"""What an error of PostgreSQL means: the server is unavailable, the login or the tables are wrong.

Only an error of the data itself is left to the caller. The codes are SQLSTATEs:
https://www.postgresql.org/docs/current/errcodes-appendix.html
"""

from __future__ import annotations

import re

import psycopg2
import psycopg2.errorcodes as codes
import psycopg2.extensions

from monitor.errors import MonitorError, UnavailableError
from monitor.store import migrate
from monitor.store.interface import LoginError, TablesError

__all__ = ["is_lost", "translate"]

_UNDEFINED = {codes.UNDEFINED_TABLE, codes.UNDEFINED_COLUMN, codes.UNDEFINED_FUNCTION}
# The login fails before there is a result with a code. The last line is PgBouncer's.
_LOGIN = re.compile(
    r"authentication failed|no password supplied|no pg_hba\.conf entry|"
    r'(database|role) ".*" (does not exist|is not permitted to log in)|'
    r"not currently accepting connections|permission denied for database|"
    r'no such (database|user)|login rejected|bouncer config error|database ".*" is disabled'
)
# No column of ours limits the length of a text.
_CHANGED_COLUMN = {codes.STRING_DATA_RIGHT_TRUNCATION}
_MEND = "nothing is lost: this resumes once the table accepts the row"
_DROPPED = (
    f"if it was dropped or renamed, undo that; if all tables are gone, run: {migrate.COMMAND}"
)


def translate(
    error: psycopg2.Error,
    server: str,
    text: str,
    raw: psycopg2.extensions.connection | None = None,
) -> MonitorError | None:
    """Return what an operator can act on; None for an error of the data.

    ``text`` is the error in one line; ``raw`` the connection, to find out what the server is.
    """
    code = error.pgcode
    # Without its statement, which may be another one at each try.
    primary = error.diag.message_primary or text
    if code in _UNDEFINED:
        return TablesError(server, f"{primary}; {_DROPPED}")
    if code == codes.INSUFFICIENT_PRIVILEGE:
        return TablesError(server, primary)
    if code == codes.READ_ONLY_SQL_TRANSACTION:
        return UnavailableError(server, f"{_role(raw)}: {primary}")
    if code == codes.LOCK_NOT_AVAILABLE:
        return UnavailableError(server, f"waited too long for a lock: {text}")
    if isinstance(error, psycopg2.OperationalError | psycopg2.InterfaceError):
        kind = LoginError if code is None and _LOGIN.search(text) else UnavailableError
        return kind(server, text)
    blameless = code in _CHANGED_COLUMN or _in_a_function(error)
    if isinstance(error, psycopg2.DataError) and not blameless:
        return None
    return TablesError(server, _refused(error, text))


def is_lost(error: psycopg2.Error) -> bool:
    """Return whether the connection, not the statement, failed."""
    code = error.pgcode or ""
    # 08: connection exceptions, 57P: the administrator, a crash, a start.
    return code.startswith(("08", "57P")) or (
        not code and isinstance(error, psycopg2.OperationalError | psycopg2.InterfaceError)
    )


def _in_a_function(error: psycopg2.Error) -> bool:
    """Return whether a function failed, of a trigger for example, and not the data's own types.

    In every language the context of the latter begins with the name of a format, if there is any.
    """
    lines = (error.diag.context or "").splitlines()
    return any(not line.startswith(("COPY", "JSON")) for line in lines)


def _role(raw: psycopg2.extensions.connection | None) -> str:
    # Servers since PostgreSQL 14 report it; poolers may not.
    if raw and not raw.closed and raw.info.parameter_status("in_hot_standby") == "on":
        return "a standby, in recovery, which takes no writes"
    return "a standby, or read-only"


def _refused(error: psycopg2.Error, text: str) -> str:
    """Describe what the tables refused, without the values of the row."""
    diag = error.diag
    table = f"table {diag.table_name}: " if diag.table_name else ""
    problem = diag.message_primary or text
    where = (diag.context or "").partition("\n")[0]
    if where.startswith("PL/pgSQL function"):
        problem += f" ({where})"
    return f"{table}{problem}; {_MEND}"
