"""Where backfills run: an execution context, and which one is current."""

from __future__ import annotations

import contextvars
from abc import ABC, abstractmethod
from types import TracebackType
from typing import TYPE_CHECKING, Self

from runner import console
from runner.errors import BadInput

if TYPE_CHECKING:
    from runner.jobs import Handle
    from runner.table import Table
    from runner.targets import Request

_current: contextvars.ContextVar[Context | None] = contextvars.ContextVar("runner_context", default=None)
_open: list[Context] = []


def current_context() -> Context | None:
    """The context entered here; in a new thread or notebook cell, which know none of their own, the last one that is open."""
    own = _current.get()
    if own is not None and own.is_open:
        return own
    return _open[-1] if _open else None


class Context(ABC):
    """An execution context: backfills inside the ``with`` block (or ``async with``) run in it, and share its workers.

    Made by `runner.Connection.context`. A notebook may call ``__enter__()`` and ``__exit__(None, None, None)`` in cells of its own.
    """

    kind: str

    def __init__(self) -> None:
        self.is_open = False
        self._jobs: list[Handle] = []
        self._token: contextvars.Token[Context | None] | None = None

    @abstractmethod
    def open(self) -> Self:
        """Get ready for jobs, without becoming the current context."""

    @abstractmethod
    def close(self, failure: BaseException | None = None) -> None:
        """End it.

        Args:
            failure: what the block raised.
        """

    @abstractmethod
    def job(self, table: Table, request: Request) -> Handle:
        """A backfill that runs here; not started yet."""

    def track(self, job: Handle) -> None:
        """Wait for this job before the context closes."""
        self._jobs = [*[known for known in self._jobs if not known.done()], job]

    def wait_for_jobs(self) -> None:
        for job in self._jobs:
            try:
                job.result()
            except Exception as exc:
                console.say(f"job {job.job_id} failed: {exc}")

    def __enter__(self) -> Self:
        self._check_closed()
        self.open()
        self._become_current()
        return self

    def __exit__(
        self, kind: type[BaseException] | None = None, exc: BaseException | None = None, trace: TracebackType | None = None
    ) -> None:
        self._step_back()
        self.close(exc)

    async def __aenter__(self) -> Self:
        """`open` in a thread, so that the loop goes on while a cluster comes."""
        import asyncio

        self._check_closed()
        await asyncio.to_thread(self.open)
        self._become_current()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None = None, exc: BaseException | None = None, trace: TracebackType | None = None
    ) -> None:
        import asyncio

        self._step_back()
        await asyncio.to_thread(self.close, exc)

    def _check_closed(self) -> None:
        if self.is_open:
            raise BadInput("this context is open already; make another for a block inside it")

    def _become_current(self) -> None:
        self._token = _current.set(self)
        _open.append(self)

    def _step_back(self) -> None:
        _open.remove(self)
        if self._token is not None:
            try:
                _current.reset(self._token)
            except ValueError:  # entered in another notebook cell or thread
                _current.set(None)
            self._token = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.kind!r}, {'open' if self.is_open else 'closed'})"
