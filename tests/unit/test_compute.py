from __future__ import annotations

import signal
import threading
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from runner.backfill.compute import Applier
from runner.backfill.failures import CallTimeout, Failure, WrongOutput
from runner.backfill.policy import ErrorPolicy
from runner.errors import BadInput
from runner.functions import UDF, udf


@dataclass
class Size:
    chars: int
    tags: list[str]


class Calls:
    """Counts calls by argument; raises as often as asked for an argument."""

    def __init__(self, raises: dict[Any, int] | None = None, exception: type[BaseException] = ValueError) -> None:
        self.counts: Counter[Any] = Counter()
        self._raises = raises or {}
        self._exception = exception

    def __call__(self, x: Any) -> Any:
        self.counts[x] += 1
        if self.counts[x] <= self._raises.get(x, 0):
            raise self._exception(f"no {x}")
        return x

    def udf(self, data_type: Any = None) -> UDF:
        def function(x: int) -> int:
            return self(x)  # type: ignore[no-any-return]

        return udf(data_type=data_type)(function)


def batch(*values: Any, data_type: Any = None) -> pa.RecordBatch:
    return pa.record_batch({"x": pa.array(values, data_type)})


def apply(made: UDF, given: pa.RecordBatch, policy: str = "fail", timeout: float | None = None) -> tuple[list[Any], list[Failure]]:
    values, failures = Applier(made, ErrorPolicy.parse(policy), timeout)(given)
    assert values.type == made.data_type
    return values.to_pylist(), failures


def rows(failures: list[Failure]) -> list[tuple[int, str, str]]:
    return [(failure.row, failure.error, failure.message) for failure in failures]


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    waited: list[float] = []
    monkeypatch.setattr("time.sleep", waited.append)
    monkeypatch.setattr("random.uniform", lambda least, most: most)
    return waited


def test_every_row_is_called_once_in_order() -> None:
    calls = Calls()
    assert apply(calls.udf(), batch(*range(1000))) == (list(range(1000)), [])
    assert calls.counts == Counter(range(1000))
    assert list(calls.counts) == list(range(1000))


def test_skip_calls_every_row_once_and_leaves_null_where_it_raised() -> None:
    calls = Calls({0: 9, 3: 9, 4: 9, 9: 9})
    values, failures = apply(calls.udf(), batch(*range(10)), "skip")
    assert values == [None, 1, 2, None, None, 5, 6, 7, 8, None]
    assert rows(failures) == [(n, "ValueError", f"no {n}") for n in (0, 3, 4, 9)]
    assert calls.counts == Counter(range(10))


def test_fail_ends_at_the_first_row_that_raises_and_keeps_those_before() -> None:
    calls = Calls({3: 9, 5: 9})
    values, failures = apply(calls.udf(), batch(*range(10)))
    assert (values, rows(failures)) == ([0, 1, 2], [(3, "ValueError", "no 3")])
    assert calls.counts == Counter(range(4))


def test_retries_call_the_row_again_until_it_answers(waits: list[float]) -> None:
    calls = Calls({2: 2})
    assert apply(calls.udf(), batch(*range(5)), "retry:3") == ([0, 1, 2, 3, 4], [])
    assert calls.counts == Counter({0: 1, 1: 1, 2: 3, 3: 1, 4: 1})
    assert waits == [0.1, 0.2]


@pytest.mark.parametrize(("policy", "values", "after"), [("retry:8,skip", [0, None, 2], 1), ("retry:8", [0], 0)])
def test_a_row_that_never_answers_is_called_once_more_than_it_is_retried(
    waits: list[float], policy: str, values: list[Any], after: int
) -> None:
    calls = Calls({1: 99})
    found, failures = apply(calls.udf(), batch(0, 1, 2), policy)
    assert (found, rows(failures)) == (values, [(1, "ValueError", "no 1")])
    assert calls.counts == Counter({0: 1, 1: 9, 2: after})
    assert waits == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0])


@pytest.mark.parametrize("exception", [StopIteration, SystemExit, MemoryError, RecursionError])
def test_exceptions_of_every_kind_are_the_rows_own(exception: type[BaseException]) -> None:
    calls = Calls({1: 9, 3: 9}, exception)
    values, failures = apply(calls.udf(), batch(0, 1, 2, 3), "skip")
    assert values == [0, None, 2, None]
    assert [(failure.row, failure.error) for failure in failures] == [(1, exception.__name__), (3, exception.__name__)]
    assert calls.counts == Counter(range(4))


def test_an_interrupt_is_not_a_rows_error() -> None:
    with pytest.raises(KeyboardInterrupt):
        apply(Calls({1: 9}, KeyboardInterrupt).udf(), batch(0, 1, 2), "skip")


def test_a_traceback_begins_in_the_users_function() -> None:
    _, (failure,) = apply(Calls({0: 9}).udf(), batch(0))
    first = failure.traceback.splitlines()[1]
    assert first.startswith(f'  File "{__file__}", line ')
    assert first.endswith(", in function")
    assert failure.traceback.endswith("ValueError: no 0\n")


def test_a_null_gives_null_uncalled_and_failures_keep_their_row_numbers() -> None:
    calls = Calls({5: 9})
    values, failures = apply(calls.udf(), batch(None, 1, None, 5, 6, None), "skip")
    assert values == [None, 1, None, None, 6, None]
    assert rows(failures) == [(3, "ValueError", "no 5")]
    assert calls.counts == Counter([1, 5, 6])


def test_fail_after_nulls_keeps_the_rows_before_the_failure() -> None:
    assert apply(Calls({5: 9}).udf(), batch(None, 1, None, 5, None, 6))[0] == [None, 1, None]
    values, (failure,) = apply(Calls({5: 9}).udf(), batch(None, 5))
    assert (values, failure.row) == ([None], 1)


def test_nothing_but_nulls_calls_nothing() -> None:
    calls = Calls()
    assert apply(calls.udf(), batch(None, None, data_type=pa.int64())) == ([None, None], [])
    assert calls.counts == Counter()


def test_optional_takes_none_and_the_other_input_still_does_not() -> None:
    seen = []

    @udf
    def function(x: int | None, y: int) -> int:
        seen.append((x, y))
        return (x or 0) + y

    given = pa.record_batch({"y": [1, None, 3, None], "x": [None, 2, 5, None]})
    assert apply(function, given) == ([1, None, 8, None], [])
    assert seen == [(None, 1), (5, 3)]


def test_a_function_may_return_none() -> None:
    @udf
    def function(x: int) -> int | None:
        return x if x > 1 else None

    assert apply(function, batch(1, 2)) == ([None, 2], [])


def test_inputs_go_to_the_parameters_in_their_order_and_one_column_may_feed_two() -> None:
    @udf(input_columns=["b", "a", "b"])
    def function(x: int, y: int, z: int) -> str:
        return f"{x}{y}{z}"

    assert apply(function, pa.record_batch({"a": [1, 2], "unused": [0, 0], "b": [8, 9]}))[0] == ["818", "929"]


@pytest.mark.parametrize(
    ("data_type", "returned"),
    [
        (pa.int64(), "text"),
        (pa.int64(), 1.5),
        (pa.int64(), np.float32(1.5)),
        (pa.int64(), True),
        (pa.int64(), float("nan")),
        (pa.int64(), 1 << 70),
        (pa.int8(), 300),
        (pa.uint64(), -1),
        (pa.string(), 3),
        (pa.bool_(), 1),
        (pa.list_(pa.int64()), 3),
        (pa.list_(pa.float32(), 2), [1.0, 2.0, 3.0]),
        (pa.struct([("a", pa.int64())]), 3),
        (pa.struct([("a", pa.int64())]), {"a": "text"}),
    ],
)
def test_a_value_that_is_not_the_declared_type_is_that_rows_error(data_type: Any, returned: Any) -> None:
    made = udf(data_type=data_type)(lambda x: returned if x == 2 else None)
    values, (failure,) = apply(made, batch(0, 1, 2, 3), "skip")
    assert values == [None] * 4
    assert (failure.row, failure.error) == (2, "WrongOutput")
    assert f"({type(returned).__name__}), which is not the declared {data_type}" in failure.message
    values, (failure,) = apply(made, batch(0, 1, 2, 3))
    assert (values, failure.row) == ([None, None], 2)


def test_of_a_wrong_value_and_an_exception_the_first_row_ends_the_job() -> None:
    @udf
    def function(x: int) -> int:
        if x == 3:
            raise ValueError("three")
        return x if x != 1 else "one"  # type: ignore[return-value]

    values, failures = apply(function, batch(0, 1, 2, 3))
    assert (values, [(f.row, f.error) for f in failures]) == ([0], [(1, "WrongOutput")])
    values, failures = apply(function, batch(0, 1, 2, 3), "skip")
    assert (values, [(f.row, f.error) for f in failures]) == ([0, None, 2, None], [(1, "WrongOutput"), (3, "ValueError")])


@pytest.mark.parametrize(
    ("data_type", "returned"),
    [(pa.int64(), 2.0), (pa.uint64(), (1 << 64) - 1), (pa.int8(), np.int64(7)), (pa.float32(), 3), (pa.timestamp("us"), None)],
)
def test_a_value_that_fits_the_declared_type_is_taken(data_type: Any, returned: Any) -> None:
    assert apply(udf(data_type=data_type)(lambda x: returned), batch(0)) == ([returned], [])


def test_structs_come_from_dataclasses_and_from_dicts() -> None:
    @udf
    def sized(x: str) -> Size:
        return Size(len(x), [x]) if x != "dict" else {"chars": 4, "tags": None}  # type: ignore[return-value]

    @udf
    def several(x: str) -> list[Size]:
        return [Size(n, []) for n in range(len(x))]

    assert apply(sized, batch("ab", "dict"))[0] == [{"chars": 2, "tags": ["ab"]}, {"chars": 4, "tags": None}]
    assert apply(several, batch("ab", ""))[0] == [[{"chars": 0, "tags": []}, {"chars": 1, "tags": []}], []]


VECTORS = {
    "fixed": pa.list_(pa.float32(), 2),
    "list": pa.list_(pa.float32()),
    "large": pa.large_list(pa.float32()),
}


@pytest.mark.parametrize("kind", VECTORS)
@pytest.mark.parametrize("annotation", [np.ndarray, npt.NDArray[np.float32]])
def test_a_numpy_parameter_gets_arrays_of_the_columns_type(kind: str, annotation: Any) -> None:
    seen: list[Any] = []

    def function(x):  # type: ignore[no-untyped-def]
        seen.append(x)
        return float(np.sum(x))

    function.__annotations__ = {"x": annotation, "return": float}
    given = batch([9, 9], [1, 2], None, [3, 4], data_type=VECTORS[kind]).slice(1)
    assert apply(udf(function), given) == ([3.0, None, 7.0], [])
    assert [(type(x), x.dtype, x.tolist()) for x in seen] == [(np.ndarray, np.float32, [1, 2]), (np.ndarray, np.float32, [3, 4])]


def test_an_optional_numpy_parameter_gets_none_among_arrays_of_the_columns_type() -> None:
    @udf
    def function(x: npt.NDArray[np.float32] | None) -> str:
        return "none" if x is None else f"{x.dtype} {x.tolist()}"

    given = batch([1, 2], None, data_type=VECTORS["fixed"])
    assert apply(function, given)[0] == ["float32 [1.0, 2.0]", "none"]


def test_a_timeout_ends_one_call_and_the_rest_go_on() -> None:
    @udf
    def function(x: int) -> int:
        while x == 1:
            pass
        return x

    before = signal.getsignal(signal.SIGALRM)
    values, failures = apply(function, batch(0, 1, 2), "skip", timeout=0.05)
    assert (values, rows(failures)) == ([0, None, 2], [(1, CallTimeout.__name__, "the call took longer than 0.05 s")])
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_a_timeout_has_the_stack_of_where_it_hung() -> None:
    def inner() -> None:
        threading.Event().wait()

    @udf
    def function(x: int) -> int:
        inner()
        return x

    _, (failure,) = apply(function, batch(0), "skip", timeout=0.05)
    assert failure.traceback.splitlines()[2].strip() == "inner()"
    assert "in inner\n    threading.Event().wait()" in failure.traceback


def test_a_function_that_catches_everything_is_interrupted_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.backfill.timeouts.AGAIN_SECONDS", 0.05)
    caught: list[str] = []

    @udf
    def function(x: int) -> int:
        while len(caught) < 3:
            try:
                threading.Event().wait()
            except Exception as exc:
                caught.append(type(exc).__name__)
        return x

    assert apply(function, batch(7), timeout=0.05) == ([7], [])
    assert caught == ["CallTimeout"] * 3


def test_a_timeout_in_another_thread_is_refused_in_words() -> None:
    caught: list[BaseException] = []

    def run() -> None:
        try:
            apply(Calls().udf(), batch(1), timeout=1.0)
        except BadInput as exc:
            caught.append(exc)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert "timeout needs the main thread" in str(caught[0])


def test_a_dict_with_a_name_that_the_struct_does_not_have_is_refused() -> None:
    made = udf(data_type=pa.struct([("width", pa.int64())]))(lambda x: {"widht": x}).with_inputs(["x"])
    with pytest.raises(WrongOutput, match="returned a dict with 'widht'"):
        Applier(made, ErrorPolicy("skip"), None)(pa.record_batch({"x": [1]}))
