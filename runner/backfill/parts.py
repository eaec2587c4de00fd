"""Parts: what a worker saves of unfinished work twice a second, and how parts become a whole again."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa

from runner.backfill.checkpoint import Staging
from runner.backfill.offsets import Offsets

SAVE_SECONDS = 0.5  # what a killed worker loses is at most this, and the batch it is in
SAVE_BYTES = 64 << 20
WINDOW_ROWS = 1 << 14


class PartSaver:
    """Gathers computed rows of one fragment and saves them as parts, in a thread beside the computing.

    Args:
        names: the columns, in the order of the arrays given to `add`.
    """

    def __init__(self, staging: Staging, names: Sequence[str]) -> None:
        self._staging = staging
        self._names = names
        self._thread = ThreadPoolExecutor(1, "runner-save")
        self._saving: Future[None] | None = None
        self._start_over()

    def _start_over(self) -> None:
        self._offsets: list[Offsets] = []
        self._columns: list[Sequence[Any]] = []
        self._bytes = 0
        self._since = time.monotonic()

    def add(self, offsets: Offsets, columns: Sequence[Any]) -> None:
        """Take computed rows, and save all that was taken once it is due."""
        if len(offsets):
            self._offsets.append(offsets)
            self._columns.append(columns)
            self._bytes += sum(array.nbytes for array in columns)
        if self._bytes >= SAVE_BYTES or time.monotonic() - self._since >= SAVE_SECONDS:
            self._save()

    def flush(self) -> None:
        """Save what is left, and return when it is saved."""
        self._save()
        self.wait()

    def wait(self) -> None:
        """Return when what is being saved is saved; raises what that raised."""
        if self._saving is not None:
            self._saving.result()
            self._saving = None

    def close(self) -> None:
        self._thread.shutdown()

    def _save(self) -> None:
        offsets, columns = self._offsets, self._columns
        self._start_over()
        self.wait()
        if offsets:
            self._saving = self._thread.submit(self._write, offsets, columns)

    def _write(self, offsets: list[Offsets], columns: list[Sequence[Any]]) -> None:
        whole = [pa.concat_arrays(arrays) for arrays in zip(*columns, strict=True)]
        self._staging.save_part(np.concatenate(offsets), whole, self._names)


def merged(staging: Staging) -> Iterator[tuple[Offsets, dict[str, Any]]]:
    """The rows of all parts in ascending order, in windows; each part is in memory only while its rows pass."""
    waiting = [(int(path.rsplit("/", 1)[1].split("-")[0]), path) for path in staging.part_paths()]
    waiting.reverse()
    active: list[tuple[Offsets, dict[str, Any]]] = []
    start = 0
    while waiting or active:
        start = start if active else waiting[-1][0]
        end = start + WINDOW_ROWS
        while waiting and waiting[-1][0] < end:
            active.append(staging.load_part(waiting.pop()[1]))
        offsets = np.concatenate([part[0] for part in active])
        inside = np.flatnonzero((offsets >= start) & (offsets < end))
        ascending, first = np.unique(offsets[inside], return_index=True)
        chosen = pa.array(inside[first])
        yield ascending, {name: pa.concat_arrays([part[1][name] for part in active]).take(chosen) for name in active[0][1]}
        active = [part for part in active if int(part[0][-1]) >= end]
        start = end
