"""Random writers at work while a backfill computes: every value is right after it, and no input is computed twice."""

from __future__ import annotations

import datetime as dt
import random
from pathlib import Path

import pyarrow as pa
import pytest

from runner import Connection, Table, udf
from tests.e2e.helpers import Gate, append, by_x, calls, log_call, make_table, numbers, pass_gate

ROWS = 90
WRITES = ["append", "delete", "drop", "update", "touch", "merge", "compact", "compact", "index", "clean"]


class Writer:
    """Changes a table at random. ``x`` stays unique, so that a call made twice is seen."""

    def __init__(self, table: Table, seed: int) -> None:
        self.table = table
        self.random = random.Random(seed)
        self.rows = set(range(ROWS))
        self.done: list[str] = []
        self._next = 1000

    def write(self) -> None:
        for _ in range(self.random.randint(1, 5)):
            name = self.random.choice(
                ["append", "delete", "drop", "update", "touch", "merge", "compact", "compact", "index", "clean"]
            )
            self.done.append(name)
            getattr(self, name)()

    def append(self) -> None:
        new = self._new(self.random.randint(1, 20))
        append(self.table, pa.table({"x": pa.array(new, pa.int64()), "s": ["new"] * len(new)}))
        self.rows |= set(new)

    def delete(self) -> None:
        gone = self._some(6)
        self.table.to_lance().delete(self._are(gone))
        self.rows -= gone

    def drop(self) -> None:
        """A range of rows, and with it perhaps a whole fragment."""
        start = self.random.randint(0, ROWS)
        self.table.to_lance().delete(f"x >= {start} and x < {start + 35}")
        self.rows -= set(range(start, start + 35))

    def update(self) -> None:
        changed = self._some(5)
        by = 10_000 * len(self.done)
        self.table.to_lance().update({"x": f"x + {by}"}, where=self._are(changed))
        self.rows = (self.rows - changed) | {x + by for x in changed}

    def touch(self) -> None:
        self.table.to_lance().update({"s": "'touched'"}, where=self._are(self._some(8)))

    def merge(self) -> None:
        keys = [*self._some(4), *self._new(3)]
        data = pa.table({"x": pa.array(keys, pa.int64()), "s": ["merged"] * len(keys)})
        self.table.to_lance().merge_insert("x").when_matched_update_all().when_not_matched_insert_all().execute(data)
        self.rows |= set(keys)

    def compact(self) -> None:
        self.table.to_lance().optimize.compact_files(target_rows_per_fragment=self.random.choice([35, 60, 1000]))

    def index(self) -> None:
        self.table.to_lance().create_scalar_index("x", "BTREE", replace=True)

    def clean(self) -> None:
        dataset = self.table.to_lance()
        dataset.cleanup_old_versions(dt.timedelta(0), delete_unverified=True, error_if_tagged_old_versions=False)

    def _new(self, count: int) -> list[int]:
        self._next += count
        return list(range(self._next - count, self._next))

    def _some(self, count: int) -> set[int]:
        return set(self.random.sample(sorted(self.rows), min(count, len(self.rows))))

    @staticmethod
    def _are(rows: set[int]) -> str:
        return f"x IN ({', '.join(map(str, sorted(rows)))})" if rows else "false"


@pytest.mark.parametrize("stable", [False, True], ids=["addresses", "stable ids"])
@pytest.mark.parametrize("seed", range(12))
def test_writers_meanwhile(inline: Connection, gate: Gate, log: Path, seed: int, stable: bool) -> None:
    folder, path = str(gate.folder), str(log)
    table = make_table(inline, data=numbers(0, ROWS), rows_per_fragment=30, enable_stable_row_ids=stable)
    writer = Writer(table, seed)
    stop = writer.random.randrange(ROWS)

    @udf
    def value(x: int) -> int | None:
        log_call(path, x)
        if x == stop:
            pass_gate(folder)
        return None if x % 7 == 0 else 2 * x

    @udf
    def text(x: int) -> str:
        return f"{x}"

    table.add_columns({"value": value, "text": text})
    job = table.backfill_async(["value", "text"])
    gate.wait()
    try:
        writer.write()
    finally:
        gate.open()
    job.result(60)
    table.backfill(["value", "text"])
    assert by_x(table, "value") == {x: None if x % 7 == 0 else 2 * x for x in writer.rows}, writer.done
    assert by_x(table, "text") == {x: str(x) for x in writer.rows}, writer.done
    assert len(calls(log)) == len(set(calls(log))), writer.done
    assert set(calls(log)) >= writer.rows
    assert table.backfill(["value", "text"]).rows_done == 0
    table.to_lance().validate()
