"""Random histories of a table with stable row ids: whatever happened, ``stale=True`` leaves every value of its row's inputs."""

from __future__ import annotations

import datetime as dt
import random
from typing import Any

import pytest

from runner import Connection, Table, udf
from tests.e2e.helpers import append, make_table, numbers

STEPS = 25
NAMES = ["append", "update", "update", "touch", "delete", "compact", "compact", "clean", "missing", "part", "limit", "stale"]


@udf
def first(x: int) -> int | None:
    return None if x % 5 == 0 else 2 * x


@udf
def then(first: int | None) -> str | None:
    return None if first is None else f"<{first}>"


@udf
def alone(x: int) -> int:
    return -x


class History:
    def __init__(self, table: Table, seed: int) -> None:
        self.table = table
        self.random = random.Random(seed)
        self.rows = set(range(60))
        self.newest = 1000
        self.done: list[str] = []

    def step(self) -> None:
        names = [
            "append",
            "update",
            "update",
            "touch",
            "delete",
            "compact",
            "compact",
            "clean",
            "missing",
            "part",
            "limit",
            "stale",
        ]
        name = self.random.choice(names)
        self.done.append(name)
        getattr(self, name)()

    def append(self) -> None:
        count = self.random.randint(1, 15)
        append(self.table, numbers(self.newest, self.newest + count))
        self.rows |= set(range(self.newest, self.newest + count))
        self.newest += count

    def update(self) -> None:
        chosen = self._some(4)
        by = 10_000 * len(" | ".join(self.done))
        self.table.to_lance().update({"x": f"x + {by}"}, where=self._are(chosen))
        self.rows = (self.rows - chosen) | {x + by for x in chosen}

    def touch(self) -> None:
        self.table.to_lance().update({"s": "'touched'"}, where=self._are(self._some(4)))

    def delete(self) -> None:
        gone = self._some(3)
        self.table.to_lance().delete(self._are(gone))
        self.rows -= gone

    def compact(self) -> None:
        self.table.to_lance().optimize.compact_files(target_rows_per_fragment=self.random.choice([40, 1000]))

    def clean(self) -> None:
        self.table.to_lance().cleanup_old_versions(dt.timedelta(0), delete_unverified=True)

    def missing(self) -> None:
        self._backfill()

    def part(self) -> None:
        self._backfill(where=self._are(self._some(10)))

    def limit(self) -> None:
        self._backfill(limit=self.random.randint(1, 10), stale=self.random.random() < 0.5)

    def stale(self) -> None:
        columns = self._backfill(stale=True)
        rows = self.table.to_arrow(["x", "first", "then", "alone"]).to_pylist()
        assert {row["x"] for row in rows} == self.rows
        for row in rows:
            if "first" in columns:
                assert row["first"] == (None if row["x"] % 5 == 0 else 2 * row["x"]), (row, " | ".join(self.done))
            if "then" in columns:
                assert row["then"] == (None if row["first"] is None else f"<{row['first']}>"), (row, " | ".join(self.done))
            if "alone" in columns:
                assert row["alone"] == -row["x"], (row, " | ".join(self.done))
        assert self.table.plan(columns, stale=True).rows == 0, " | ".join(self.done)

    def _backfill(self, **options: Any) -> list[str]:
        columns = self.random.choice([["first"], ["first", "then"], ["alone"], ["then"], ["first", "then", "alone"]])
        self.done[-1] += f" {columns}"
        result = self.table.backfill(columns, progress=False, **options)
        assert result.rows_unknown == 0 or not options.get("stale"), " | ".join(self.done)
        return columns

    def _some(self, count: int) -> set[int]:
        return set(self.random.sample(sorted(self.rows), min(count, len(self.rows))))

    @staticmethod
    def _are(rows: set[int]) -> str:
        return f"x IN ({', '.join(map(str, sorted(rows)))})" if rows else "false"


@pytest.mark.parametrize("seed", range(10))
def test_nights(inline: Connection, seed: int) -> None:
    table = make_table(inline, 60, rows_per_fragment=25, enable_stable_row_ids=True)
    table.add_columns({"first": first, "then": then, "alone": alone})
    history = History(table, seed)
    for _ in range(STEPS):
        history.step()
    table.to_lance().validate()
