"""How many rows make one call."""

from __future__ import annotations

import time
from collections.abc import Iterator

CALL_SECONDS = 0.25
GROWTH = 8


class Pacer:
    """A fixed number of rows a call, or as many as take about `CALL_SECONDS`.

    Starts with one row, as the first call may load a model or be slow for good, and what a killed worker loses is a call.
    """

    def __init__(self, fixed: int | None) -> None:
        self._fixed = fixed
        self._rows = fixed or 1

    def steps(self, rows: int) -> Iterator[tuple[int, int]]:
        """Cut so many rows into calls, each sized by how long the ones before it took."""
        start = 0
        while start < rows:
            stop = min(start + self._rows, rows)
            began = time.monotonic()
            yield start, stop
            self._took(stop - start, time.monotonic() - began)
            start = stop

    def _took(self, rows: int, seconds: float) -> None:
        if self._fixed is None:
            fitting = int(CALL_SECONDS * rows / max(seconds, 1e-6))
            most = GROWTH * rows if rows == self._rows else self._rows
            self._rows = max(1, min(fitting, most))
