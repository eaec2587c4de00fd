"""How the rows that kill are found among those of a batch; the process is a stand-in that dies on them."""

from __future__ import annotations

import random
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from runner.backfill import isolated
from runner.backfill.failures import Failure
from runner.backfill.function_process import NO_ROW
from runner.backfill.isolated import MAX_KILLING_ROWS, Isolated
from runner.backfill.policy import ErrorPolicy
from runner.errors import RunnerError
from runner.functions import udf


@udf
def function(x: int) -> int:
    return x


class Process:
    """Dies on the rows that kill, and on its first calls where it is to die by accident; counts deaths by row."""

    killing: set[int]
    notes: bool
    accidents: int
    deaths: Counter[int]
    lived: Counter[int]

    def __init__(self, settings: Any, column: Any) -> None:
        self.row = NO_ROW

    def wait_until_ready(self) -> None:
        pass

    def apply(self, batch: pa.RecordBatch) -> tuple[Any, list[Failure]]:
        rows = batch.column(0).to_pylist()
        if Process.accidents:
            Process.accidents -= 1
            raise EOFError
        for index, row in enumerate(rows):
            if row in Process.killing:
                Process.deaths[row] += 1
                self.row = index if Process.notes else NO_ROW
                raise EOFError
        Process.lived.update(rows)
        return pa.array([10 * row for row in rows], pa.int64()), []

    def died(self, timeout: float | None) -> tuple[Failure, int]:
        return Failure(0, "WorkerDied", "the worker died: exit code 9", ""), self.row

    def close(self) -> None:
        pass


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(isolated, "FunctionProcess", Process)
    monkeypatch.setattr(isolated.shipping, "load", lambda *args, **options: function)

    def ask(rows: int, killing: set[int], *, notes: bool, policy: str = "skip", accidents: int = 0) -> tuple[list[Any], list[int]]:
        Process.killing, Process.notes, Process.accidents = killing, notes, accidents
        Process.deaths, Process.lived = Counter(), Counter()
        settings: Any = SimpleNamespace(
            store=None, allow_pickle=True, batch_size=None, timeout=None, policy=ErrorPolicy.parse(policy)
        )
        column: Any = SimpleNamespace(spec=None)
        applier = Isolated(settings, column)
        values, failures = applier.finish(applier.begin(pa.record_batch({"x": pa.array(range(rows), pa.int64())})))
        return values.to_pylist(), [failure.row for failure in failures]

    return ask


@pytest.mark.parametrize("notes", [True, False], ids=["noted", "in halves"])
@pytest.mark.parametrize("seed", range(20))
def test_every_row_that_kills_is_found_and_no_other(ask: Any, notes: bool, seed: int) -> None:
    draw = random.Random(seed)
    rows = draw.randrange(1, 100)
    killing = {n for n in range(rows) if draw.random() < draw.choice([0, 0.02, 0.1])}
    values, failed = ask(rows, killing, notes=notes)
    assert (values, failed) == ([None if n in killing else 10 * n for n in range(rows)], sorted(killing))
    assert all(Process.deaths[row] >= 2 for row in killing)
    assert Process.lived == Counter(set(range(rows)) - killing)
    if notes:
        assert set(Process.deaths.values()) <= {2}


@pytest.mark.parametrize("notes", [True, False], ids=["noted", "in halves"])
def test_fail_ends_at_the_first_of_them(ask: Any, notes: bool) -> None:
    assert ask(50, {20, 40}, notes=notes, policy="fail") == ([10 * n for n in range(20)], [20])
    assert Process.deaths[40] <= 1


@pytest.mark.parametrize("rows", [1, 2, 50])
def test_one_accident_blames_no_row(ask: Any, rows: int) -> None:
    assert ask(rows, set(), notes=True, accidents=1) == ([10 * n for n in range(rows)], [])


def test_where_every_row_kills_there_is_an_end(ask: Any) -> None:
    with pytest.raises(RunnerError, match=f"function: {MAX_KILLING_ROWS} rows killed their worker, so it is not the rows that do"):
        ask(100, set(range(100)), notes=True)
    assert len(Process.deaths) == MAX_KILLING_ROWS + 1
