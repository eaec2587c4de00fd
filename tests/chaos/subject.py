"""A table on S3 with one column to compute, and what must hold of it at any moment and at the end."""

from __future__ import annotations

import contextlib
import struct
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import runner
from runner import UDF

RECORD = struct.Struct("<qq")


@dataclass
class Subject:
    """A table of so many rows, ``row`` = 0, 1, 2, ...

    Attributes:
        options: storage options that lead to the server without detours.
        log: of the function's calls.
        skipped: rows that may be NULL when all is published.
    """

    database: str
    options: Mapping[str, str]
    name: str
    rows: int
    log: Path
    skipped: int = 0

    @property
    def connection(self) -> runner.Connection:
        return runner.connect(self.database, storage_options=self.options)

    @property
    def uri(self) -> str:
        return f"{self.database}/{self.name}.lance"

    def dataset(self) -> Any:
        import lance

        return lance.dataset(self.uri, storage_options=dict(self.options))

    def make(self, function: UDF, fragments: int) -> None:
        import lance

        most = -(-self.rows // fragments)
        lance.write_dataset(_numbers(0, self.rows), self.uri, max_rows_per_file=most, storage_options=dict(self.options))
        self.connection.open_table(self.name).add_columns({"out": function})

    def append(self, count: int) -> None:
        """As another writer would."""
        import lance

        start = self.dataset().count_rows()
        lance.write_dataset(_numbers(start, start + count), self.uri, mode="append", storage_options=dict(self.options))

    def calls(self) -> Any:
        """``(row, pid)`` of every call so far."""
        data = self.log.read_bytes() if self.log.exists() else b""
        return np.frombuffer(data[: len(data) // RECORD.size * RECORD.size], "<i8").reshape(-1, 2)

    def call_count(self) -> int:
        """Cheap enough to poll."""
        return self.log.stat().st_size // RECORD.size if self.log.exists() else 0

    def state(self) -> tuple[int, int, int]:
        """``(rows, values among the first rows, wrong values)``; a row out of its place has a wrong value."""
        table = self.dataset().to_table(columns=["row", "out"])
        rows, out = table["row"].to_numpy(), table["out"]
        known = out.is_valid().to_numpy()
        values = out.fill_null(0).to_numpy()
        wrong = np.count_nonzero(values[known] != 3 * rows[known] + 1) + np.count_nonzero(rows != np.arange(len(rows)))
        return len(rows), int(np.count_nonzero(known[: self.rows])), int(wrong)

    def remains(self) -> list[str]:
        """Objects of staged work and of leases that are still there."""
        store = self.connection.store
        return [path for part in ("staging", "leases") for path, _ in store.objects(part) if f"/{self.name}/" in path]

    def called_twice(self) -> int:
        """Calls beyond the first for each row. Negative where rows were never called."""
        called = np.unique(self.calls()[:, 0])
        total = self.dataset().count_rows()
        return self.call_count() - total if len(called) == total else len(called) - total


def _numbers(start: int, stop: int) -> Any:
    import pyarrow as pa

    return pa.table({"row": pa.array(range(start, stop), pa.int64())})


@dataclass
class Watcher:
    """Reads the table again and again while others work on it: all of the column is NULL, or all is there, and right.

    Attributes:
        wrong: the greatest number of wrong values seen; `halves`: looks at a column that was half there.
    """

    subject: Subject
    looks: int = 0
    wrong: int = 0
    halves: set[tuple[int, int]] = field(default_factory=set)
    unexpected: list[str] = field(default_factory=list)

    def __enter__(self) -> Watcher:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._stop.wait(0.15):
            with contextlib.suppress(OSError):  # the server is killed at times
                self._look()

    def _look(self) -> None:
        try:
            total, filled, wrong = self.subject.state()
        except OSError:
            raise
        except Exception as exc:
            if "error sending request" not in str(exc) and "onnect" not in str(exc):
                self.unexpected.append(f"{type(exc).__name__}: {exc}")
            return
        self.looks += 1
        self.wrong = max(self.wrong, wrong)
        if filled not in (0, self.subject.rows - self.subject.skipped, self.subject.rows):
            self.halves.add((total, filled))

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
