"""How long the phases of a job take."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runner.backfill.driver import Meter
    from runner.watch.recorder import Recorder


class Phases:
    """A clock for the phases of a job, of which one runs at a time; the meter shows which. Another thread may read it.

    A phase may come again, where a job plans anew: its times add up.
    """

    def __init__(self, meter: Meter, recorder: Recorder) -> None:
        self._meter = meter
        self._recorder = recorder
        self._ended: dict[str, float] = {}
        self._running = ("", 0.0)

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """The block is this phase."""
        self._meter.phase = phase
        began = time.monotonic()
        self._running = (phase, began)
        try:
            with self._recorder.phase(phase):
                yield
        finally:
            self._running = ("", 0.0)
            self._ended[phase] = self._ended.get(phase, 0.0) + time.monotonic() - began

    def seconds(self) -> dict[str, float]:
        """Of each phase so far, the one that runs included."""
        (phase, began), found = self._running, self._ended.copy()
        if phase:
            found[phase] = found.get(phase, 0.0) + time.monotonic() - began
        return found
