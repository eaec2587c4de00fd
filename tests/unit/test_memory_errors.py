"""Batches that do not fit in memory are halved, and later ones are no larger."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from runner.backfill.compute import Applier
from runner.backfill.failures import is_out_of_memory
from runner.backfill.flight import Flight
from runner.backfill.pacer import Pacer
from runner.backfill.policy import ErrorPolicy
from runner.functions import UDF, udf


class OutOfMemoryError(RuntimeError):
    """As torch names its own."""


def fitting(rows: int, greedy: int | None = None, exception: Exception | None = None) -> tuple[UDF, list[int]]:
    """A function that so many rows fit in, and one that never does; and the sizes that it was called with."""
    calls: list[int] = []

    @udf(data_type=pa.int64())
    def function(x: pa.Array) -> pa.Array:
        calls.append(len(x))
        if len(x) > rows or greedy in x.to_pylist():
            raise exception or OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return pc.add(x, 100)

    return function, calls


def batch(start: int, stop: int) -> pa.RecordBatch:
    return pa.record_batch({"x": pa.array(range(start, stop), pa.int64())})


@pytest.mark.parametrize(
    ("exc", "is_one"),
    [
        (OutOfMemoryError("anything"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate"), True),
        (MemoryError(), True),
        (RuntimeError("shapes do not match"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_which_exceptions_are_of_memory(exc: Exception, is_one: bool) -> None:
    assert is_out_of_memory(exc) is is_one


@pytest.mark.parametrize("policy", ["fail", "skip", "retry:3,skip"])
def test_a_batch_that_does_not_fit_is_halved_and_no_row_fails(policy: str) -> None:
    function, calls = fitting(3)
    applier = Applier(function, ErrorPolicy.parse(policy), None)
    values, failures = applier(batch(0, 16))
    assert (values.to_pylist(), failures) == (list(range(100, 116)), [])
    assert calls == [16, 8, 4, 2, 2, 2, 2, 2, 2, 2, 2]
    assert applier.most_rows == 2
    calls.clear()
    assert applier(batch(16, 21))[0].to_pylist() == list(range(116, 121))
    assert calls == [2, 2, 1]


@pytest.mark.parametrize("fixed", [16, None])
def test_the_pacer_remembers(fixed: int | None) -> None:
    function, calls = fitting(4)
    pacer = Pacer(fixed)
    flight = Flight({"f": Applier(function, ErrorPolicy(), None)}, pacer)
    chunks = [(np.arange(start, start + 64, dtype=np.uint32), batch(start, start + 64)) for start in (0, 64)]
    found: list[Any] = []
    for offsets, results in flight.results(chunks):
        values, failures = results["f"]
        assert failures == []
        assert values.to_pylist() == [100 + int(offset) for offset in offsets]
        found += values.to_pylist()
    assert found == list(range(100, 228))
    too_large = [size for size in calls if size > 4]
    assert too_large == ([16, 8] if fixed else [8])
    assert list(pacer.steps(10)) == [(0, 4), (4, 8), (8, 10)]


def test_a_row_that_is_too_large_by_itself_fails_and_the_others_go_on_as_before() -> None:
    function, calls = fitting(100, greedy=3)
    applier = Applier(function, ErrorPolicy.parse("skip"), None)
    values, failures = applier(batch(0, 16))
    assert values.to_pylist() == [None if n == 3 else 100 + n for n in range(16)]
    assert [(f.row, f.error) for f in failures] == [(3, "OutOfMemoryError")]
    assert applier.most_rows is None
    assert calls == [16, 8, 4, 2, 2, 1, 1, 12]


def test_fail_names_the_row_that_is_too_large_by_itself() -> None:
    function, _ = fitting(100, greedy=3)
    values, (failure,) = Applier(function, ErrorPolicy(), None)(batch(0, 16))
    assert (values.to_pylist(), failure.row) == ([100, 101, 102], 3)


def test_no_memory_for_anything_ends_and_does_not_try_forever() -> None:
    function, calls = fitting(0)
    values, failures = Applier(function, ErrorPolicy.parse("skip"), None)(batch(0, 64))
    assert (values.to_pylist(), [f.row for f in failures]) == ([None] * 64, list(range(64)))
    assert len(calls) <= 64 + 2 * 7


def test_memory_and_a_bad_row_in_one_batch() -> None:
    @udf(data_type=pa.int64())
    def function(x: pa.Array) -> pa.Array:
        if len(x) > 4:
            raise OutOfMemoryError
        if 5 in x.to_pylist():
            raise ValueError("five")
        return x

    values, (failure,) = Applier(function, ErrorPolicy.parse("skip"), None)(batch(0, 10))
    assert (values.to_pylist(), failure.row, failure.message) == ([0, 1, 2, 3, 4, None, 6, 7, 8, 9], 5, "five")


def test_what_a_call_held_is_free_before_the_next_one() -> None:
    class Tensor:
        pass

    held: list[weakref.ref[Tensor]] = []
    alive: list[int] = []

    @udf(data_type=pa.int64())
    def function(x: pa.Array) -> pa.Array:
        alive.append(sum(ref() is not None for ref in held))
        tensor = Tensor()
        held.append(weakref.ref(tensor))
        if len(x) > 2:
            raise OutOfMemoryError
        return x

    assert Applier(function, ErrorPolicy(), None)(batch(0, 8))[0].to_pylist() == list(range(8))
    assert alive == [0] * 6
