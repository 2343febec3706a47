"""The progress of a job, from its messages; pure."""

from __future__ import annotations

import json
from dataclasses import dataclass

__all__ = ["Progress"]


@dataclass(slots=True)
class Progress:
    """Counts of the tasks of a job by state, and the last command.

    ``expected`` is the number of tasks of the job, if known.
    """

    expected: int | None = None
    completed: int = 0
    failed: int = 0
    skipped: int = 0
    command: str = ""
    finished: bool = False

    @property
    def done(self) -> int:
        """The number of tasks that have ended, in any state."""
        return self.completed + self.failed + self.skipped

    def take(self, text: str) -> str:
        """Count one message of the relay and return it as a readable line.

        Raises ValueError if the text is not a message of a relay.
        """
        try:
            message = json.loads(text)
        except RecursionError:
            raise ValueError("not a message of a relay") from None
        if not isinstance(message, dict) or not isinstance(message.get("command"), str):
            raise ValueError("not a message of a relay")  # noqa: TRY004 - a wrong value, not a wrong argument
        self.command = message["command"]
        self.finished = self.finished or self.command == "FINISHED"
        if self.command != "TASK":
            return self.command
        state = str(message.get("task_state"))
        if state == "COMPLETED":
            self.completed += 1
        elif state == "FAILED":
            self.failed += 1
        elif state == "SKIPPED":
            self.skipped += 1
        total = f"/{self.expected}" if self.expected else ""
        return f"TASK {message.get('task_id')} {state} ({self.done}{total})"

    def summary(self) -> str:
        """Return the counts in words."""
        total = f" of {self.expected}" if self.expected else ""
        counts = f"{self.completed} completed, {self.failed} failed, {self.skipped} skipped"
        return f"{self.done}{total} done: {counts}"
