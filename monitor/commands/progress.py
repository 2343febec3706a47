"""What a job's messages say about its progress; pure, the terminal is elsewhere."""

from __future__ import annotations

import json
from dataclasses import dataclass

__all__ = ["Progress"]


@dataclass(slots=True)
class Progress:
    """Counts of a job's tasks by their state, and the last command.

    ``expected`` is how many tasks the job has, where that is known. A relay gives a channel's
    whole history to whoever connects, so a new connection starts with a new Progress.
    """

    expected: int | None = None
    completed: int = 0
    failed: int = 0
    skipped: int = 0
    command: str = ""
    finished: bool = False

    @property
    def done(self) -> int:
        """How many tasks have ended, in whatever state."""
        return self.completed + self.failed + self.skipped

    def take(self, text: str) -> str:
        """Count one message of the relay and return it as a line for people.

        Raises ValueError where the text is no message of a relay.
        """
        try:
            message = json.loads(text)
        except RecursionError:
            raise ValueError("not a message of a relay") from None
        if not isinstance(message, dict) or not isinstance(message.get("command"), str):
            raise ValueError("not a message of a relay")  # noqa: TRY004 - JSON of any type may come
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
