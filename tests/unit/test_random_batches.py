"""Batches of random size, with random bad rows and random memory, applied in every way: always the same outcome."""

from __future__ import annotations

import random
from typing import Any

import pyarrow as pa
import pytest

from runner.backfill.compute import Applier
from runner.backfill.policy import ErrorPolicy
from runner.functions import UDF, udf


class OutOfMemoryError(RuntimeError):
    """As torch names its own."""


def plain(check: Any) -> UDF:
    @udf(data_type=pa.int64())
    def function(x: pa.Array) -> pa.Array:
        return check(x)

    return function


def awaited(check: Any) -> UDF:
    @udf(data_type=pa.int64(), concurrency=2)
    async def function(x: pa.Array) -> pa.Array:
        return check(x)

    return function


def prepared(check: Any) -> UDF:
    @udf(data_type=pa.int64())
    class Function:
        def preprocess(self, x: pa.Array) -> pa.Array:
            return x

        def __call__(self, made: Any) -> pa.Array:
            return check(made)

    return Function


def prepared_badly(check: Any) -> UDF:
    @udf(data_type=pa.int64())
    class Function:
        def preprocess(self, x: pa.Array) -> pa.Array:
            return check(x)

        def __call__(self, made: Any) -> pa.Array:
            return made

    return Function


@pytest.mark.parametrize("form", [plain, awaited, prepared, prepared_badly])
@pytest.mark.parametrize("policy", ["fail", "skip"])
@pytest.mark.parametrize("seed", range(25))
def test_the_outcome_is_that_of_each_row_by_itself(form: Any, policy: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.backfill.batches._free_memory", lambda: None)
    draw = random.Random(f"{form.__name__} {policy} {seed}")
    rows = draw.randrange(1, 60)
    bad = {n for n in range(rows) if draw.random() < draw.choice([0, 0.05, 0.5])}
    fits = draw.choice([1, 2, 3, 7, 60])
    calls: list[int] = []

    def check(x: pa.Array) -> pa.Array:
        calls.append(len(x))
        if len(x) > fits:
            raise OutOfMemoryError
        if bad.intersection(x.to_pylist()):
            raise ValueError("bad")
        return pa.array([10 * value for value in x.to_pylist()], pa.int64())

    applier = Applier(form(check), ErrorPolicy.parse(policy), None)
    begun = [applier.begin(pa.record_batch({"x": pa.array(range(rows), pa.int64())})) for _ in range(2)]
    for piece in begun:
        values, failures = applier.finish(piece)
        first = min(bad, default=rows)
        if policy == "fail":
            assert values.to_pylist() == [10 * n for n in range(first)]
            assert [f.row for f in failures] == ([first] if bad else [])
        else:
            assert values.to_pylist() == [None if n in bad else 10 * n for n in range(rows)]
            assert [f.row for f in failures] == sorted(bad)
        assert {f.message for f in failures} <= {"bad"}
    applier.close()
    assert applier.most_rows is None or applier.most_rows <= fits
    assert len(calls) <= 2 * (2 * rows + 2 * 7)
