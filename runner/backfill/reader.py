"""Read the input columns of chosen rows of a fragment, a few megabytes at a time.

Lance's own stream over a fragment keeps hundreds of megabytes of pages in flight, and on a plain glibc every one of them is
faulted in anew. Scans of a few megabytes each reuse the same memory: 1 GB of 10 KiB values is read in a quarter of the time
and in 60 MB instead of 300.
"""

from __future__ import annotations

import ctypes
import queue
import threading
from collections.abc import Generator, Iterable, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from runner.backfill.offsets import NONE, Offsets

CHUNK_BYTES = 4 << 20
FIRST_CHUNK_ROWS = 1024
MAX_CHUNK_ROWS = 1 << 17
TAKE_ROWS = 2048  # up to so many rows looking them up costs less than planning a scan; beyond, a scan of a dense span does

_T = TypeVar("_T")


def keep_freed_memory() -> None:
    """Ask glibc to reuse freed buffers up to 32 MiB instead of giving them back to the kernel; nothing elsewhere."""
    m_trim_threshold, m_mmap_threshold, m_arena_max = -1, -3, -8
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(m_mmap_threshold, 32 << 20)
    mallopt(m_trim_threshold, 64 << 20)
    mallopt(m_arena_max, 2)


class FragmentRows:
    """The live rows of a fragment, and how physical offsets map to positions among them."""

    def __init__(self, fragment: Any) -> None:
        self.fragment = fragment
        meta = fragment.metadata
        self.physical: int = meta.physical_rows
        self.live: int = meta.physical_rows - meta.num_deletions
        self._offsets: Offsets | None = None

    def offsets(self) -> Offsets:
        """Physical offsets of the live rows, ascending."""
        if self._offsets is None:
            if self.live == self.physical:
                self._offsets = np.arange(self.live, dtype=np.uint32)
            else:
                self._offsets = self.matching(None)
        return self._offsets

    def matching(self, filter: str | None) -> Offsets:
        """Physical offsets of the live rows for which a SQL predicate is true, ascending."""
        batches = self.fragment.scanner(columns=[], with_row_address=True, filter=filter, batch_readahead=2).to_reader()
        found = [batch.column("_rowaddr").to_numpy().astype(np.uint32) for batch in batches]
        return np.sort(np.concatenate(found)) if found else NONE

    def row_ids(self) -> npt.NDArray[np.uint64]:
        """``_rowid`` of the live rows, in order of their offsets."""
        return self._column("_rowid")

    def last_updated(self) -> npt.NDArray[np.uint64]:
        """Table version of the last update of the live rows, in order of their offsets. Means nothing without stable row ids."""
        return self._column("_row_last_updated_at_version")

    def _column(self, name: str) -> npt.NDArray[np.uint64]:
        table = self.fragment.scanner(columns=[name], with_row_address=True).to_table()
        order = np.argsort(table.column("_rowaddr").to_numpy())
        found: npt.NDArray[np.uint64] = table.column(name).to_numpy().astype(np.uint64)[order]
        return found

    def positions(self, offsets: Offsets) -> npt.NDArray[np.int64]:
        """Positions among the live rows of physical offsets, all of them live."""
        if self.live == self.physical:
            return offsets.astype(np.int64)
        return np.searchsorted(self.offsets(), offsets)


def read(
    rows: FragmentRows, columns: Sequence[str], offsets: Offsets, *, multiple_of: int | None = None
) -> Generator[tuple[Offsets, pa.RecordBatch], None, None]:
    """The chosen rows in order, in batches of about `CHUNK_BYTES` and `multiple_of` rows; columns in the order asked for."""
    positions = rows.positions(offsets)
    bytes_per_row = _bytes_per_row(rows)
    step = multiple_of or 1
    count = max(step, _rows_for(bytes_per_row, FIRST_CHUNK_ROWS) // step * step)
    start = 0
    while start < len(offsets):
        stop = min(start + count, len(offsets))
        batch = _read_chunk(rows, columns, positions[start:stop])
        yield offsets[start:stop], batch
        bytes_per_row = max(batch.nbytes / max(batch.num_rows, 1), 1.0)
        count = max(step, _rows_for(bytes_per_row, min(count * 16, MAX_CHUNK_ROWS)) // step * step)
        start = stop


def _read_chunk(rows: FragmentRows, columns: Sequence[str], positions: npt.NDArray[np.int64]) -> pa.RecordBatch:
    first, count = int(positions[0]), len(positions)
    span = int(positions[-1]) + 1 - first
    names = list(dict.fromkeys(columns))
    if span <= 2 * count and count > TAKE_ROWS:
        scanner = rows.fragment.scanner(columns=names, offset=first, limit=span, batch_size=span, batch_readahead=1)
        table = scanner.to_table()
        if span != count:
            table = table.take(pa.array(positions - first))
    else:
        table = rows.fragment.take(positions.tolist(), columns=names)
    if table.num_rows != count:
        raise RuntimeError(f"asked fragment {rows.fragment.fragment_id} for {count} rows and got {table.num_rows}")
    batches = table.select(list(columns)).combine_chunks().to_batches()
    return batches[0]


def _bytes_per_row(rows: FragmentRows) -> float:
    stored = sum(file.file_size_bytes or 0 for file in rows.fragment.data_files())
    return max(stored / max(rows.physical, 1), 1.0)


def _rows_for(bytes_per_row: float, most: int) -> int:
    return max(1, min(int(CHUNK_BYTES / bytes_per_row), most))


def ahead(items: Iterable[_T], depth: int = 1) -> Generator[_T, None, None]:
    """The same items, produced in a thread up to `depth` ahead of the consumer; an exception comes through in its place."""
    ready: queue.Queue[tuple[str, Any]] = queue.Queue(maxsize=depth)
    stop = threading.Event()

    def put(kind: str, value: Any) -> bool:
        while not stop.is_set():
            try:
                ready.put((kind, value), timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def produce() -> None:
        try:
            for item in items:
                if not put("item", item):
                    return
            put("end", None)
        except BaseException as exc:
            put("error", exc)

    thread = threading.Thread(target=produce, name="runner-read-ahead", daemon=True)
    thread.start()
    try:
        while True:
            kind, value = ready.get()
            if kind == "item":
                yield value
            elif kind == "error":
                raise value
            else:
                return
    finally:
        stop.set()
        thread.join()
