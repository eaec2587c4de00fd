"""Random histories of a table, checked after each step against a model: the function version that made each row."""

from __future__ import annotations

import random

import pytest

from runner import UDF, Connection, Table, udf
from tests.e2e.helpers import append, make_table, numbers

STEPS = 25


def labelled(version: int) -> UDF:
    @udf(version=str(version))
    def label(x: int) -> str | None:
        return None if x % 11 == 5 else f"{version}:{x}"

    return label


class Model:
    """``made`` has the version of each row's value, None where it was never computed."""

    def __init__(self, table: Table, seed: int) -> None:
        self.table = table
        self.random = random.Random(seed)
        self.made: dict[int, int | None] = dict.fromkeys(range(60))
        self.rows = 60
        self.current = 0
        self.newest = 0

    def step(self) -> str:
        names = ["append", "delete", "move", "compact", "missing", "part", "part", "another", "stale", "force"]
        name = self.random.choice(names)
        getattr(self, name)()
        return name

    def append(self) -> None:
        count = self.random.randint(1, 20)
        append(self.table, numbers(self.rows, self.rows + count))
        self.made.update(dict.fromkeys(range(self.rows, self.rows + count)))
        self.rows += count

    def delete(self) -> None:
        gone = self.chosen(self.random.randint(2, 15))
        self.table.to_lance().delete(self.predicate(gone))
        self.made = {x: version for x, version in self.made.items() if x not in gone}

    def move(self) -> None:
        """An update writes its rows anew, at the end of the table, and keeps their other columns."""
        self.table.to_lance().update({"s": "'moved'"}, where=self.predicate(self.chosen(5)))

    def compact(self) -> None:
        self.table.to_lance().optimize.compact_files(target_rows_per_fragment=self.random.choice([40, 1000]))

    def missing(self) -> None:
        result = self.table.backfill("label", progress=False)
        self.made = {x: self.current if version is None else version for x, version in self.made.items()}
        assert result.rows_done + result.rows_valid == len(self.made)

    def part(self) -> None:
        rows = self.chosen(self.random.randint(1, 40))
        self.table.backfill("label", where=self.predicate(rows), progress=False)
        self.made.update(dict.fromkeys(rows, self.current))

    def another(self) -> None:
        self.newest += 1
        rows = self.chosen(self.random.randint(1, 40))
        self.table.backfill("label", udf=labelled(self.newest), where=self.predicate(rows), progress=False)
        self.current = self.newest
        self.made.update(dict.fromkeys(rows, self.current))

    def stale(self) -> None:
        self.table.backfill("label", stale=True, progress=False)
        self.made = dict.fromkeys(self.made, self.current)
        assert self.table.plan("label", stale=True).rows == 0

    def force(self) -> None:
        rows = self.chosen(10)
        result = self.table.backfill("label", where=self.predicate(rows), force=True, progress=False)
        assert result.rows_done == len(rows)
        self.made.update(dict.fromkeys(rows, self.current))

    def chosen(self, count: int) -> set[int]:
        return set(self.random.sample(sorted(self.made), min(count, len(self.made))))

    @staticmethod
    def predicate(rows: set[int]) -> str:
        return f"x IN ({', '.join(map(str, sorted(rows)))})" if rows else "false"

    def check(self, history: list[str]) -> None:
        rows = self.table.to_arrow(["x", "label"])
        found = dict(zip(rows.column("x").to_pylist(), rows.column("label").to_pylist(), strict=True))
        expected = {x: None if version is None or x % 11 == 5 else f"{version}:{x}" for x, version in self.made.items()}
        assert found == expected, history


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("stable_row_ids", [False, True])
def test_history(inline: Connection, seed: int, stable_row_ids: bool) -> None:
    table = make_table(inline, 60, rows_per_fragment=25, enable_stable_row_ids=stable_row_ids)
    table.add_columns({"label": labelled(0)})
    model = Model(table, seed)
    history: list[str] = []
    for _ in range(STEPS):
        history.append(model.step())
        model.check(history)
    table.to_lance().validate()
