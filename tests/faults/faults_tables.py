"""Tables of the fault tests, and what must hold of them."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fault_functions
import lance
import numpy as np
import pyarrow as pa

import runner

CALLS_A_SECOND = int(1 / fault_functions.SECONDS_A_ROW)
COLUMN = "out"


@dataclass(frozen=True)
class Subject:
    """A table with a computed column that is still NULL, and the log of the calls of its function."""

    database: Path
    log: Path
    rows: int

    @property
    def uri(self) -> str:
        return str(self.database / "t.lance")

    def dataset(self, version: int | None = None) -> Any:
        return lance.dataset(self.uri, version=version)

    def values(self) -> Any:
        table = self.dataset().to_table(columns=["row", COLUMN])
        return table["row"].to_numpy(), table[COLUMN]

    def calls(self) -> Any:
        """``(row, pid)`` of every call so far."""
        if not self.log.exists():
            return np.empty((0, 2), np.int64)
        data = self.log.read_bytes()
        size = fault_functions.RECORD.size
        return np.frombuffer(data[: len(data) // size * size], "<i8").reshape(-1, 2)

    def call_count(self) -> int:
        """Cheap enough to poll."""
        try:
            return os.stat(self.log).st_size // fault_functions.RECORD.size
        except FileNotFoundError:
            return 0


def make(folder: Path, rows: int, fragments: int, function: Any = fault_functions.noted) -> Subject:
    subject = Subject(folder / "db", folder / "calls.log", rows)
    data = pa.table({"row": pa.array(range(rows), pa.int64()), "log": pa.array([str(subject.log)] * rows)})
    lance.write_dataset(data, subject.uri, max_rows_per_file=rows // fragments, max_rows_per_group=rows // fragments)
    table = runner.connect(subject.database).open_table("t")
    table.add_columns({COLUMN: function})
    assert len(table.to_lance().get_fragments()) == fragments
    return subject


def append(subject: Subject, count: int) -> None:
    """More rows, without a value in the column."""
    rows = range(subject.rows, subject.rows + count)
    data = pa.table({"row": pa.array(rows, pa.int64()), "log": pa.array([str(subject.log)] * count)})
    lance.write_dataset(data, subject.uri, mode="append")


def assert_untouched(subject: Subject) -> None:
    """The column is as `make` left it: one version for the rows, one for the column, every value NULL."""
    assert subject.dataset().version == 2
    assert subject.dataset().count_rows(f"{COLUMN} IS NOT NULL") == 0
    assert subject.dataset().count_rows() == subject.rows


def assert_complete(subject: Subject, *, published_twice: bool = False, versions: int = 3) -> None:
    """Every value is right, in the rows' order, in one data version, and nothing else is left in the database.

    Args:
        versions: the table has: one of the rows, one of the column, one of the values, and what the test made.
        published_twice: a run was killed between publishing files and committing them; their names may remain.
    """
    rows, values = subject.values()
    assert np.array_equal(rows, np.arange(subject.dataset().count_rows()))
    assert len(rows) >= subject.rows
    assert values.null_count == 0
    assert np.array_equal(values.to_numpy(), 3 * rows + 1)
    assert [version["version"] for version in subject.dataset().versions()] == list(range(1, versions + 1))
    if not published_twice:
        assert unreferenced(subject) == set()
    assert remains(subject) == []


def unreferenced(subject: Subject) -> set[str]:
    """Files in ``data/`` that no version of the table refers to."""
    used: set[str] = set()
    for version in subject.dataset().versions():
        for fragment in subject.dataset(version["version"]).get_fragments():
            used.update(str(file.path) for file in fragment.metadata.files)
    return set(os.listdir(f"{subject.uri}/data")) - used


def remains(subject: Subject) -> list[str]:
    """Files of staged work and of leases that are still there."""
    root = subject.database / "_runner"
    return [str(path) for part in ("staging", "leases") for path in (root / part).rglob("*") if path.is_file()]


def redone(subject: Subject) -> int:
    """Calls beyond one for each row. Every row has at least one."""
    counts = np.bincount(subject.calls()[:, 0], minlength=subject.rows)
    assert len(counts) == subject.rows
    assert counts.min() >= 1
    return int(counts.sum() - subject.rows)


@dataclass
class Watcher:
    """Reads the table again and again while others work on it: it is as before or complete, and never in between."""

    subject: Subject
    seen: set[tuple[int, int, int]] = field(default_factory=set)
    looks: int = 0

    def __enter__(self) -> Watcher:
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        try:
            while not self._stop.is_set():
                dataset = self.subject.dataset()
                filled = dataset.to_table(columns=[COLUMN])[COLUMN]
                self.seen.add((dataset.version, len(filled), len(filled) - filled.null_count))
                self.looks += 1
                self._stop.wait(0.05)
        except BaseException as exc:
            self._failure = exc

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        assert self._failure is None, self._failure
        assert self.looks > 0
        whole = {(2, self.subject.rows, 0), (3, self.subject.rows, self.subject.rows)}
        assert self.seen <= whole, self.seen - whole
