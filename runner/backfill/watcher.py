"""Who is told of everything that happens to tasks, as it happens to each: also of twins, of which the driver counts nothing yet."""

from __future__ import annotations

from typing import Protocol

from runner.backfill.executors import Event, Task


class Watcher(Protocol):
    """What a driver tells while it runs."""

    def began(self, task: Task, waiting: int) -> None:
        """A task went to the worker at its `place`; so many still wait."""

    def saw(self, task: Task, event: Event) -> None:
        """What its executor told of it."""

    def abandoned(self, task: Task) -> None:
        """Its works are done elsewhere, or are taken up elsewhere; its worker is ended."""

    def closed(self) -> None:
        """No task runs any more."""
