"""How many rows make one call."""

from __future__ import annotations

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
        self._most: int | None = None
        self._calls, self._seconds = 0, 0.0

    def steps(self, rows: int) -> Iterator[tuple[int, int]]:
        """Cut so many rows into calls, each sized by how long the calls told of by then took."""
        start = 0
        while start < rows:
            stop = min(start + min(self._rows, self._most or self._rows), rows)
            yield start, stop
            start = stop

    def took(self, rows: int, seconds: float) -> None:
        """Tell how long a call took."""
        self._calls += 1
        self._seconds += seconds
        if self._fixed is None:
            fitting = int(CALL_SECONDS * rows / max(seconds, 1e-6))
            most = GROWTH * rows if rows == self._rows else self._rows
            self._rows = max(1, min(fitting, most))

    def told(self) -> tuple[int, float]:
        """How many calls were told of since this was last asked, and their seconds."""
        told = self._calls, self._seconds
        self._calls, self._seconds = 0, 0.0
        return told

    def at_most(self, rows: int | None) -> None:
        """From now on no call of more rows, None for as many as otherwise: more did not fit in memory."""
        self._most = rows
