"""The numbered steps that create and upgrade the tables: files ``NNNN_name.sql`` in this package.

A file has a section for each database: the lines after ``-- dialect: postgresql`` and those
after ``-- dialect: sqlite``. To add a step, add a file with the next number; never change a
released step. A step runs in one transaction with the schema as search path, so names have no
schema.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from monitor.store.interface import Dialect

__all__ = ["Migration", "load"]

_FILE = re.compile(r"^(\d{4})_([a-z0-9_]+)\.sql$")
_SECTION = re.compile(r"^-- dialect: (postgresql|sqlite)[ \t]*$", re.MULTILINE)


@dataclass(frozen=True, slots=True, order=True)
class Migration:
    """One step; ``sections`` holds its SQL by dialect."""

    number: int
    name: str
    sections: dict[str, str]

    def __str__(self) -> str:
        return f"{self.number:04} {self.name}"

    @classmethod
    def parse(cls, file_name: str, text: str) -> Migration:
        """Parse one file; raise ValueError for a wrong name or a missing section."""
        found = _FILE.match(file_name)
        if found is None:
            raise ValueError(f"{file_name}: the name of a migration is NNNN_name.sql")
        _, *pieces = _SECTION.split(text)
        sections = dict(zip(pieces[::2], pieces[1::2], strict=True))
        if sections.keys() != {"postgresql", "sqlite"}:
            raise ValueError(f"{file_name}: needs one section for each of postgresql and sqlite")
        return cls(int(found[1]), found[2], sections)

    def statements(self, dialect: Dialect) -> Iterator[str]:
        """Yield the statements to execute; PostgreSQL executes a section as a whole."""
        section = self.sections[dialect]
        if dialect == "postgresql":
            yield section
            return
        statement = ""
        for line in section.splitlines(keepends=True):
            statement += line
            if sqlite3.complete_statement(statement):
                yield statement
                statement = ""


def load() -> list[Migration]:
    """Return all steps, sorted by number."""
    return sorted(
        Migration.parse(file.name, file.read_text(encoding="utf-8"))
        for file in resources.files(__name__).iterdir()
        if file.name.endswith(".sql")
    )
