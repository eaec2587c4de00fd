"""Rows with random NULLs, exceptions and wrong values, in every way of calling row by row: always the same outcome."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any

import pyarrow as pa
import pytest

from runner.backfill.compute import Applier, Surroundings
from runner.backfill.policy import ErrorPolicy
from runner.functions import UDF, udf


def plain(check: Any) -> UDF:
    @udf
    def function(x: int) -> int:
        return check(x)

    return function


def awaited(check: Any) -> UDF:
    @udf(concurrency=3)
    async def function(x: int) -> int:
        for _ in range(x % 3):
            await asyncio.sleep(0)
        return check(x)

    return function


def prepared(check: Any) -> UDF:
    @udf(num_cpus=2)
    class Function:
        def preprocess(self, x: int) -> list[int]:
            return [x]

        def __call__(self, made: Any) -> int:
            return check(made[0])

    return Function


def prepared_badly(check: Any) -> UDF:
    @udf
    class Function:
        def preprocess(self, x: int) -> Any:
            return check(x)

        def __call__(self, made: Any) -> int:
            return made

    return Function


@pytest.mark.parametrize("form", [plain, awaited, prepared, prepared_badly])
@pytest.mark.parametrize("policy", ["fail", "skip"])
@pytest.mark.parametrize("seed", range(25))
def test_the_outcome_is_that_of_each_row_by_itself(form: Any, policy: str, seed: int) -> None:
    draw = random.Random(f"{form.__name__} {policy} {seed}")
    rows = draw.randrange(1, 60)
    share = draw.choice([0, 0.05, 0.5])
    kinds = [draw.choice(["null", "raises", "wrong"]) if draw.random() < share else "good" for _ in range(rows)]
    calls: Counter[int] = Counter()

    def check(x: int) -> Any:
        calls[x] += 1
        if kinds[x] == "raises":
            raise ValueError("bad")
        return "wrong" if kinds[x] == "wrong" else 10 * x

    noted: list[int] = []
    applier = Applier(form(check), ErrorPolicy.parse(policy), None, Surroundings(note=noted.append))
    given = pa.record_batch({"x": pa.array([None if kind == "null" else n for n, kind in enumerate(kinds)], pa.int64())})
    values, failures = applier(given)
    applier.close()
    bad = [n for n, kind in enumerate(kinds) if kind in ("raises", "wrong")]
    expected = [10 * n if kind == "good" else None for n, kind in enumerate(kinds)]
    if policy == "fail":
        assert values.to_pylist() == expected[: min(bad, default=rows)]
        assert [f.row for f in failures] == bad[:1]
    else:
        assert values.to_pylist() == expected
        assert [f.row for f in failures] == bad
        assert calls == Counter(n for n, kind in enumerate(kinds) if kind != "null")
        assert [f.error for f in failures] == ["WrongOutput" if kinds[n] == "wrong" else "ValueError" for n in bad]
    assert set(calls.values()) <= {1}
    if form is plain:
        assert noted == sorted(calls)
