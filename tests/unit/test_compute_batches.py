from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from runner.backfill.compute import Applier
from runner.backfill.failures import Failure, WrongOutput
from runner.backfill.policy import ErrorPolicy
from runner.functions import UDF, udf

PAIR = pa.struct([("a", pa.int64()), ("b", pa.string())])


def batch(*values: Any) -> pa.RecordBatch:
    return pa.record_batch({"x": pa.array(values)})


def apply(made: UDF, given: pa.RecordBatch, policy: str = "fail") -> tuple[list[Any], list[Failure]]:
    values, failures = Applier(made, ErrorPolicy.parse(policy), None)(given)
    assert values.type == made.data_type
    return values.to_pylist(), failures


def returning(make: Callable[[pa.Array], Any], data_type: Any = None) -> UDF:
    def function(x: pa.Array) -> pa.Array:
        return make(x)

    return udf(data_type=data_type or pa.int64())(function)


def refusing(*bad: int, times: int = 1 << 30) -> tuple[UDF, list[list[int]]]:
    """A batch function that raises where it meets one of the bad values, and the batches it was called with."""
    calls: list[list[int]] = []

    def function(x: pa.Array) -> pa.Array:
        calls.append(x.to_pylist())
        found = set(bad).intersection(calls[-1])
        if found and len(calls) <= times:
            raise ValueError(f"no {sorted(found)}")
        return pc.add(x, 100)

    return udf(data_type=pa.int64())(function), calls


def test_a_batch_function_is_called_once_for_the_batch_nulls_included() -> None:
    made, calls = refusing()
    assert apply(made, batch(1, None, 3)) == ([101, None, 103], [])
    assert calls == [[1, None, 3]]


def test_skip_halves_the_batch_until_the_bad_row_is_alone() -> None:
    made, calls = refusing(5)
    values, failures = apply(made, batch(*range(8)), "skip")
    assert values == [100, 101, 102, 103, 104, None, 106, 107]
    assert [(f.row, f.error, f.message) for f in failures] == [(5, "ValueError", "no [5]")]
    assert calls == [list(range(8)), [0, 1, 2, 3], [4, 5, 6, 7], [4, 5], [4], [5], [6, 7]]


@pytest.mark.parametrize("bad", [[0], [6], [0, 6], [1, 2, 3], list(range(7))])
def test_every_bad_row_is_found_wherever_it_is(bad: list[int]) -> None:
    made, _ = refusing(*bad)
    values, failures = apply(made, batch(*range(7)), "skip")
    assert values == [None if n in bad else 100 + n for n in range(7)]
    assert [failure.row for failure in failures] == bad


def test_fail_halves_down_to_the_first_bad_row_and_keeps_the_rows_before() -> None:
    made, calls = refusing(5, 6)
    values, failures = apply(made, batch(*range(8)))
    assert (values, [(f.row, f.message) for f in failures]) == ([100, 101, 102, 103, 104], [(5, "no [5]")])
    assert calls == [list(range(8)), [0, 1, 2, 3], [4, 5, 6, 7], [4, 5], [4], [5]]


@pytest.mark.parametrize("policy", ["fail", "skip"])
@pytest.mark.parametrize("bad", [0, 1, 500, 999, 1000])
def test_one_bad_row_of_a_thousand_costs_no_more_than_two_calls_for_each_halving(bad: int, policy: str) -> None:
    made, calls = refusing(bad)
    values, failures = apply(made, batch(*range(1001)), policy)
    assert [f.row for f in failures] == [bad]
    assert values == [100 + n for n in range(bad)] if policy == "fail" else [None if n == bad else 100 + n for n in range(1001)]
    assert len(calls) <= 1 + 2 * math.ceil(math.log2(1001))


def test_every_row_bad_costs_no_more_than_two_calls_a_row() -> None:
    made, calls = refusing(*range(64))
    values, failures = apply(made, batch(*range(64)), "skip")
    assert (values, [f.row for f in failures]) == ([None] * 64, list(range(64)))
    assert len(calls) == 127


@pytest.mark.parametrize("policy", ["fail", "skip"])
def test_a_batch_that_raises_where_no_row_does_is_no_failure(policy: str) -> None:
    made, calls = refusing(3, times=1)
    assert apply(made, batch(*range(4)), policy) == ([100, 101, 102, 103], [])
    assert calls == [[0, 1, 2, 3], [0, 1], [2, 3]]


def test_retries_come_before_halving(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    made, calls = refusing(1, times=2)
    assert apply(made, batch(0, 1), "retry:2,skip") == ([100, 101], [])
    assert calls == [[0, 1]] * 3
    made, calls = refusing(1)
    values, failures = apply(made, batch(0, 1), "retry:2,skip")
    assert (values, [f.row for f in failures]) == ([100, None], [1])
    assert calls == [[0, 1]] * 3 + [[0]] + [[1]] * 3


def test_retries_are_made_of_the_whole_and_of_the_row_and_not_of_what_lies_between(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    made, calls = refusing(3)
    values, failures = apply(made, batch(0, 1, 2, 3), "retry:2,skip")
    assert (values, [f.row for f in failures]) == ([100, 101, 102, None], [3])
    assert calls == [[0, 1, 2, 3]] * 3 + [[0, 1], [2, 3], [2]] + [[3]] * 3


@pytest.mark.parametrize(
    "result",
    [
        pa.array([1, 2, 3]),
        pa.chunked_array([[1], [2, 3]]),
        np.array([1, 2, 3]),
        np.array([1, 2, 3], np.int32),
        [1, 2, 3],
        (1, 2, 3),
    ],
    ids=lambda result: type(result).__name__,
)
def test_arrays_of_every_kind_are_taken(result: Any) -> None:
    assert apply(returning(lambda x: result), batch(0, 0, 0)) == ([1, 2, 3], [])


@pytest.mark.parametrize("policy", ["fail", "skip", "retry:3,skip"])
@pytest.mark.parametrize(
    ("result", "message"),
    [
        (pa.array([1, 2]), "returned 2 values for a batch of 3 rows"),
        ([1, 2, 3, 4], "returned 4 values for a batch of 3 rows"),
        (pa.array([], pa.int64()), "returned 0 values"),
        (pa.array([1, 2, 3], pa.int32()), "returned an array of int32, declared int64; cast it or change data_type"),
        (pa.array(["a", "b", "c"]), "returned an array of string, declared int64"),
        (["a", "b", "c"], "returned list, which is not an array of int64"),
        ([1 << 70, 0, 0], "returned list, which is not an array of int64"),
        (np.zeros((3, 2)), "returned ndarray, which is not an array of int64"),
        (None, "returned NoneType, which is not an array of int64"),
        (7, "returned int, which is not an array of int64"),
    ],
)
def test_a_wrong_output_is_forgiven_by_no_policy(result: Any, message: str, policy: str) -> None:
    calls = []

    def make(x: pa.Array) -> Any:
        calls.append(x)
        return result

    with pytest.raises(WrongOutput) as caught:
        apply(returning(make), batch(0, 0, 0), policy)
    assert message in str(caught.value)
    assert len(calls) == 1


def test_a_record_batch_function_gets_its_columns_and_gives_a_struct() -> None:
    @udf(data_type=PAIR, input_columns=["n", "t"])
    def function(rows: pa.RecordBatch) -> pa.RecordBatch:
        assert rows.schema.names == ["n", "t"]
        return pa.record_batch({"a": pc.add(rows["n"], 1), "b": rows["t"]}, schema=pa.schema(list(PAIR)))

    given = pa.record_batch({"t": ["x", None], "other": [0, 0], "n": [1, 2]})
    assert apply(function, given)[0] == [{"a": 2, "b": "x"}, {"a": 3, "b": None}]


def test_a_record_batch_function_without_named_inputs_gets_all_columns() -> None:
    @udf(data_type=pa.string())
    def function(rows: pa.RecordBatch) -> pa.Array:
        return pa.array([",".join(rows.schema.names)] * rows.num_rows)

    assert apply(function, pa.record_batch({"b": [1], "a": [2]}))[0] == ["b,a"]


def test_a_struct_with_its_fields_in_another_order_is_refused() -> None:
    @udf(data_type=PAIR)
    def function(rows: pa.RecordBatch) -> pa.RecordBatch:
        return pa.record_batch({"b": ["x"], "a": [1]})

    with pytest.raises(WrongOutput, match="declared struct<a: int64, b: string>"):
        apply(function, batch(0))


def test_a_class_is_constructed_once_for_all_batches() -> None:
    made = []

    @udf(data_type=pa.int64())
    class Model:
        def __init__(self) -> None:
            made.append(self)
            self.calls = 0

        def __call__(self, x: pa.Array) -> pa.Array:
            self.calls += 1
            return pa.array([self.calls] * len(x))

    applier = Applier(Model, ErrorPolicy(), None)
    assert [applier(batch(0))[0].to_pylist() for _ in range(3)] == [[1], [2], [3]]
    assert len(made) == 1
