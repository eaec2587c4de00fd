"""How long one call may take.

A call that hangs in Python is ended by an exception, raised where it hangs. A call that hangs in C code lets nothing of Python
run any more, so the worker's process ends itself, with the stack of where it hung; what becomes of its row is decided like
that of any row that kills its worker.
"""

from __future__ import annotations

import asyncio
import faulthandler
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from runner.backfill.failures import CallTimeout
from runner.errors import BadInput

AGAIN_SECONDS = 1.0  # a function that catches everything is interrupted again
GRACE_SECONDS = 2.0
BEAT_SECONDS = 0.25


class TimeLimit:
    """A limit on each call of a function; a call in C code ends between 1 and 2 times the limit, and `GRACE_SECONDS`.

    Args:
        seconds: for one call; None for no limit.
        kills: end this process where a call does not end by an exception. Not in a process of the user's own.
        stack_file: descriptor of the file that gets the stack then.
    """

    def __init__(self, seconds: float | None, *, kills: bool, stack_file: int = 2) -> None:
        self._seconds = seconds
        self._kills = kills
        self._stack_file = stack_file
        self._arm_again_at = 0.0

    @property
    def is_set(self) -> bool:
        return self._seconds is not None

    def of(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, limited; to be called between `watch` and its end."""
        seconds = self._seconds
        if seconds is None:
            return call

        def limited(*args: Any) -> Any:
            self._arm()
            signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN_SECONDS)
            try:
                return call(*args)
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)

        return limited

    def _arm(self, *, now: bool = False) -> None:
        """Put the process's end off. Costs a thread, so not for each call but when a limit's time has passed, or `now`."""
        if not self._kills or self._seconds is None or (time.monotonic() < self._arm_again_at and not now):
            return
        self._arm_again_at = time.monotonic() + self._seconds
        faulthandler.dump_traceback_later(2 * self._seconds + GRACE_SECONDS, exit=True, file=self._stack_file)

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Around some calls.

        Raises:
            BadInput: not in the main thread, which alone can be interrupted.
        """
        if self._seconds is None:
            yield
            return
        if threading.current_thread() is not threading.main_thread():
            raise BadInput("timeout needs the main thread; use backfill() instead of backfill_async(), or cluster='local'")
        before = signal.signal(signal.SIGALRM, self._ring)
        try:
            yield
        finally:
            signal.signal(signal.SIGALRM, before)
            self._disarm()

    async def beat(self) -> None:
        """Until it is cancelled: the process ends once the event loop that this runs in stands still for too long."""
        if not self._kills or self._seconds is None:
            return
        try:
            while True:
                self._arm(now=True)
                await asyncio.sleep(max(self._seconds / 2, BEAT_SECONDS))
        finally:
            self._disarm()

    def _disarm(self) -> None:
        if self._kills:
            self._arm_again_at = 0.0
            faulthandler.cancel_dump_traceback_later()

    def _ring(self, signum: int, frame: FrameType | None) -> None:
        raise CallTimeout(f"the call took longer than {self._seconds:g} s")
