"""Batches that are begun before the ones before them are finished."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from runner.backfill.compute import Ahead
from runner.backfill.failures import Failure
from runner.backfill.offsets import Offsets
from runner.backfill.pacer import Pacer

Results = dict[str, tuple[Any, list[Failure]]]


class Applies(Protocol):
    """What a flight needs of an `Applier`."""

    inputs: list[str] | None
    ahead: Ahead

    @property
    def most_rows(self) -> int | None: ...
    def begin(self, batch: pa.RecordBatch) -> Any: ...
    def finish(self, begun: Any) -> tuple[Any, list[Failure]]: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class _Piece:
    offsets: Offsets
    begun: dict[str, Any]
    since: float


class Flight:
    """Takes chunks of rows, in calls of the pacer's size, through one or more functions.

    Args:
        appliers: by the key that their results have.
    """

    def __init__(self, appliers: Mapping[str, Applies], pacer: Pacer) -> None:
        self._appliers = appliers
        self._pacer = pacer
        self._pieces: deque[_Piece] = deque()
        self._rows = 0
        self._finished_at = 0.0
        self._ahead = Ahead(
            max(applier.ahead.batches for applier in appliers.values()), max(applier.ahead.rows for applier in appliers.values())
        )
        self._limit_rows()

    def results(self, chunks: Iterable[tuple[Offsets, pa.RecordBatch]]) -> Iterator[tuple[Offsets, Results]]:
        """The outcome of each call, in the order of the rows."""
        for offsets, batch in chunks:
            for start, stop in self._pacer.steps(len(offsets)):
                self._begin(offsets[start:stop], batch.slice(start, stop - start))
                while self._pieces and not self._has_room():
                    yield from self._finish()
        while self._pieces:
            yield from self._finish()

    def _has_room(self) -> bool:
        behind = self._rows - len(self._pieces[0].offsets)
        return len(self._pieces) <= self._ahead.batches or behind < self._ahead.rows

    def _begin(self, offsets: Offsets, batch: pa.RecordBatch) -> None:
        since = time.monotonic()
        begun = {key: applier.begin(batch) for key, applier in self._appliers.items()}
        self._pieces.append(_Piece(offsets, begun, since))
        self._rows += len(offsets)

    def _finish(self) -> Iterator[tuple[Offsets, Results]]:
        piece = self._pieces.popleft()
        rows = len(piece.offsets)
        self._rows -= rows
        results = {key: applier.finish(piece.begun[key]) for key, applier in self._appliers.items()}
        yield piece.offsets, results
        now = time.monotonic()
        self._pacer.took(rows, now - max(piece.since, self._finished_at))
        self._finished_at = now
        if any(applier.most_rows is not None for applier in self._appliers.values()):
            self._limit_rows()

    def _limit_rows(self) -> None:
        fitting = [applier.most_rows for applier in self._appliers.values() if applier.most_rows]
        self._pacer.at_most(min(fitting, default=None))
