"""Run ``preprocess`` in threads, on the batches after the one that is being computed."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any

from runner.backfill.failures import CALL_ERRORS


class Late(Exception):
    """A task takes longer than its patience; what it was to do is done by the caller, who can be interrupted."""


class Raised:
    """What ``preprocess`` raised, in the place of what it returns."""

    def __init__(self, exc: BaseException) -> None:
        self.exc = exc


class Pending:
    """The outcome of a task in a thread.

    Args:
        patience: seconds to wait for it, None for as long as it takes.
        replace_thread: called where the task hangs in its thread.
    """

    def __init__(self, task: Callable[[], Any], patience: float | None, replace_thread: Callable[[], None]) -> None:
        self._task = task
        self._patience = patience
        self._replace_thread = replace_thread
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._running = False
        self._outcome: Any = None
        self.abandoned = False

    def run(self) -> bool:
        """Run the task in this thread; whether the thread is still wanted."""
        with self._lock:
            if self.abandoned:
                return True
            self._running = True
        try:
            self._outcome = self._task()
        except CALL_ERRORS as exc:
            self._outcome = Raised(exc)
        self._done.set()
        with self._lock:
            return not self.abandoned

    def result(self) -> Any:
        """What the task returned; a `Raised` of what it raised, or of `Late`."""
        if self._done.wait(self._patience):
            return self._outcome
        with self._lock:
            self.abandoned = True
            if self._running:
                self._replace_thread()
        return Raised(Late())


class Preparer:
    """Daemon threads that prepare batches, first come, first served; one that hangs is replaced.

    Args:
        preprocess: of the user's object; called from several threads at once where there are several.
        threads: how many.
        timeout: seconds for one call, None for no limit.
    """

    def __init__(self, preprocess: Callable[..., Any], threads: int, timeout: float | None) -> None:
        self._preprocess = preprocess
        self._timeout = timeout
        self._tasks: queue.SimpleQueue[Pending | None] = queue.SimpleQueue()
        self.threads = threads
        for _ in range(threads):
            self._start_thread()

    def rows(self, columns: Sequence[Sequence[Any]]) -> Pending:
        """Prepare rows, each by a call; a row that raises is a `Raised`."""
        return self._submit(lambda: [self._row(args) for args in zip(*columns, strict=True)], max(len(columns[0]), 1))

    def batch(self, args: Sequence[Any]) -> Pending:
        """Prepare a whole batch by one call."""
        return self._submit(lambda: self._preprocess(*args), 1)

    def whole(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """``preprocess`` and the call in one, for what is called again."""
        preprocess = self._preprocess
        return lambda *args: call(preprocess(*args))

    def close(self) -> None:
        for _ in range(self.threads):
            self._tasks.put(None)

    def _row(self, args: Sequence[Any]) -> Any:
        try:
            return self._preprocess(*args)
        except CALL_ERRORS as exc:
            return Raised(exc)

    def _submit(self, task: Callable[[], Any], calls: int) -> Pending:
        pending = Pending(task, None if self._timeout is None else self._timeout * calls, self._start_thread)
        self._tasks.put(pending)
        return pending

    def _start_thread(self) -> None:
        threading.Thread(target=self._work, name="runner-preprocess", daemon=True).start()

    def _work(self) -> None:
        while (pending := self._tasks.get()) is not None:
            if not pending.run():
                return
