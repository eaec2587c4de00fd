"""Where backfills run: an execution context, and which one is current."""

from __future__ import annotations

import contextvars
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
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
    """The context entered here; in a new thread or notebook cell, which know none of their own, the innermost one that is open.

    Raises:
        BadInput: several are open beside each other, and none of them was entered here.
    """
    own = _current.get()
    if own is not None and own.is_open:
        return own
    if not _open:
        return None
    innermost = _open[-1]
    if not all(known in innermost.around() for known in _open):
        raise BadInput(
            "several contexts are open beside each other, and this thread is in none of them; enter one here, or start what it "
            "does by contextvars.copy_context().run(...) where one was entered"
        )
    return innermost


class Context(ABC):
    """An execution context: backfills inside the ``with`` block (or ``async with``) run in it, and share its workers.

    Made by `runner.Connection.context`. A notebook may call ``__enter__()`` and ``__exit__(None, None, None)`` in cells of its own.
    """

    kind: str

    def __init__(self) -> None:
        self.is_open = False
        self._jobs: list[Handle] = []
        self._token: contextvars.Token[Context | None] | None = None
        self._outer: Context | None = None
        self._thread = 0
        self._stopped = threading.Event()

    @abstractmethod
    def open(self) -> Self:
        """Get ready for jobs, without becoming the current context."""

    @abstractmethod
    def close(self, failure: BaseException | None = None) -> None:
        """End it.

        Args:
            failure: what the block raised.
        """

    def stop_waiting(self) -> None:
        """Have `close`, which runs in another thread, wait no longer for jobs that go on without this process."""
        self._stopped.set()

    @abstractmethod
    def job(self, table: Table, request: Request) -> Handle:
        """A backfill that runs here; not started yet."""

    def around(self) -> Iterator[Context]:
        """This context, the one that it was entered in, and so on."""
        context: Context | None = self
        while context is not None:
            yield context
            context = context._outer

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
        closing = asyncio.ensure_future(asyncio.to_thread(self.close, exc))
        try:
            await asyncio.shield(closing)
        except asyncio.CancelledError:
            self.stop_waiting()
            await closing
            raise

    def _check_closed(self) -> None:
        if self.is_open:
            raise BadInput("this context is open already; make another for a block inside it")

    def _become_current(self) -> None:
        own, self._thread = _current.get(), threading.get_ident()
        before = next((known for known in reversed(_open) if known._thread == self._thread), None)
        self._outer = own if own is not None and own.is_open else before  # of another notebook cell
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
