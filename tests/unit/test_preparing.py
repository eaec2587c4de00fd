"""``setup`` and ``preprocess`` of a class: what gets what, in which thread, how far ahead, and what an exception becomes."""

from __future__ import annotations

import signal
import threading
from collections import Counter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from runner.backfill.compute import Ahead, Applier
from runner.backfill.failures import Failure
from runner.backfill.policy import ErrorPolicy
from runner.backfill.timeouts import AGAIN_SECONDS
from runner.errors import BadInput, RunnerError
from runner.functions import UDF, udf


def batch(*values: Any) -> pa.RecordBatch:
    return pa.record_batch({"x": pa.array(values, pa.int64())})


def apply(made: UDF, given: pa.RecordBatch, policy: str = "fail", timeout: float | None = None) -> tuple[list[Any], list[Failure]]:
    applier = Applier(made, ErrorPolicy.parse(policy), timeout)
    values, failures = applier(given)
    applier.close()
    return values.to_pylist(), failures


@udf(num_cpus=2)
class Rows:
    """Refuses 3 in preprocess and 5 in the call."""

    def __init__(self) -> None:
        self.prepared: Counter[int] = Counter()
        self.threads: set[str] = set()

    def preprocess(self, x: int) -> list[int]:
        self.prepared[x] += 1
        self.threads.add(threading.current_thread().name)
        if x == 3:
            raise ValueError("raw 3")
        return [x, x * x]

    def __call__(self, pair: Any) -> int:
        assert threading.current_thread() is threading.main_thread()
        if pair[0] == 5:
            raise ValueError("prepared 5")
        return int(sum(pair))


def batches(seen: list[list[int]], ahead: threading.Semaphore | None = None) -> UDF:
    @udf(data_type=pa.int64())
    class Batches:
        def preprocess(self, x: pa.Array) -> dict[str, Any]:
            if ahead is not None:
                ahead.release()
            if 3 in x.to_pylist():
                raise ValueError("raw 3")
            return {"tensor": pc.multiply(x, 10)}

        def __call__(self, prepared: Any) -> pa.Array:
            seen.append(prepared["tensor"].to_pylist())
            if 50 in seen[-1]:
                raise ValueError("prepared 5")
            return pc.add(prepared["tensor"], 1)

    return Batches


def test_the_inputs_follow_from_preprocess_and_the_output_from_the_call() -> None:
    assert (Rows.kind, Rows.input_columns, Rows.data_type) == ("scalar", ("x",), pa.int64())
    made = batches([])
    assert (made.kind, made.input_columns, made.data_type) == ("arrow", ("x",), pa.int64())


def test_rows_are_prepared_in_threads_and_called_in_the_main_one() -> None:
    applier = Applier(Rows, ErrorPolicy(), None)
    assert applier(batch(0, 1, None, 2))[0].to_pylist() == [0, 2, None, 6]
    model = applier._calls._preparer._preprocess.__self__  # type: ignore[union-attr]
    assert model.prepared == Counter([0, 1, 2])
    assert model.threads == {"runner-preprocess"}
    assert applier.ahead == Ahead(batches=3)
    applier.close()


def test_what_preprocess_raises_is_the_rows_own_failure_and_so_is_what_the_call_raises() -> None:
    values, failures = apply(Rows, batch(2, 3, 4, 5, 6), "skip")
    assert values == [6, None, 20, None, 42]
    assert [(f.row, f.message) for f in failures] == [(1, "raw 3"), (3, "prepared 5")]
    assert failures[0].traceback.splitlines()[1].endswith("in preprocess")
    values, failures = apply(Rows, batch(2, 3, 4))
    assert (values, [f.row for f in failures]) == ([6], [1])


def test_a_retry_prepares_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    calls: list[str] = []

    @udf
    class Flaky:
        def preprocess(self, x: int) -> int:
            calls.append(f"prepare {x}")
            return x

        def __call__(self, x: Any) -> int:
            calls.append(f"call {x}")
            if len(calls) < 4:
                raise ValueError
            return x + 1

    assert apply(Flaky, batch(7), "retry:2") == ([8], [])
    assert calls == ["prepare 7", "call 7"] * 2


@pytest.mark.parametrize("bad", [3, 5])
def test_a_batch_is_halved_down_to_the_row_that_either_refuses(bad: int) -> None:
    seen: list[list[int]] = []
    values, (failure,) = apply(batches(seen), batch(0, 1, bad, 2), "skip")
    assert (values, failure.row) == ([1, 11, None, 21], 2)
    assert failure.message == ("raw 3" if bad == 3 else "prepared 5")


def test_batches_are_prepared_before_the_first_is_called() -> None:
    seen: list[list[int]] = []
    ahead = threading.Semaphore(0)
    applier = Applier(batches(seen, ahead), ErrorPolicy(), None)
    begun = [applier.begin(batch(n)) for n in (0, 1, 2)]
    for _ in begun:
        assert ahead.acquire(timeout=30)
    assert seen == []
    assert [applier.finish(piece)[0].to_pylist() for piece in begun] == [[1], [11], [21]]
    assert seen == [[0], [10], [20]]
    applier.close()


def test_a_preprocess_that_hangs_is_interrupted_and_the_thread_replaced() -> None:
    never = threading.Event()

    @udf(data_type=pa.int64())
    class Hangs:
        def preprocess(self, x: pa.Array) -> pa.Array:
            if 2 in x.to_pylist():
                never.wait()
            return x

        def __call__(self, x: Any) -> pa.Array:
            return x

    applier = Applier(Hangs, ErrorPolicy("skip"), 0.1)
    begun = [applier.begin(batch(0, 1)), applier.begin(batch(2, 3)), applier.begin(batch(4, 5))]
    outcomes = [applier.finish(piece) for piece in begun]
    assert [values.to_pylist() for values, _ in outcomes] == [[0, 1], [None, 3], [4, 5]]
    (failure,) = outcomes[1][1]
    assert (failure.row, failure.error) == (0, "CallTimeout")
    assert "in preprocess" in failure.traceback
    never.set()
    applier.close()


def test_setup_runs_once_before_the_first_batch_and_outside_the_timeout() -> None:
    order: list[tuple[str, bool]] = []

    def note(what: str) -> None:
        order.append((what, signal.getitimer(signal.ITIMER_REAL)[1] == AGAIN_SECONDS))

    @udf
    class Model:
        def setup(self) -> None:
            note("setup")

        def __call__(self, x: int) -> int:
            note(f"call {x}")
            return x

    applier = Applier(Model, ErrorPolicy(), 30)
    assert [applier(batch(n))[0].to_pylist() for n in (1, 2)] == [[1], [2]]
    assert order == [("setup", False), ("call 1", True), ("call 2", True)]


@pytest.mark.parametrize("policy", ["fail", "skip", "retry:3,skip"])
def test_an_exception_in_setup_ends_the_job_by_name(policy: str) -> None:
    tries: list[int] = []

    @udf
    class Model:
        def setup(self) -> None:
            tries.append(1)
            raise OSError("cannot download weights.bin")

        def __call__(self, x: int) -> int:
            return x

    with pytest.raises(RunnerError, match=r"Model.setup failed on a worker: OSError: cannot download weights.bin"):
        Applier(Model, ErrorPolicy.parse(policy), None)
    assert tries == [1]


def test_a_constructor_that_raises_ends_the_job_by_name() -> None:
    @udf
    class Model:
        def __init__(self) -> None:
            raise OSError("no weights")

        def __call__(self, x: int) -> int:
            return x

    with pytest.raises(RunnerError, match=r"Model could not be constructed: OSError: no weights"):
        Applier(Model, ErrorPolicy(), None)


# -- refused where it is said


def test_preprocess_of_a_plain_function_is_refused() -> None:
    def function(x: int) -> int:
        return x

    function.preprocess = lambda x: x  # type: ignore[attr-defined]
    with pytest.raises(BadInput, match=r"is a plain function and has preprocess, which would never run; make it a class"):
        udf(function)


class SetupWithArguments:
    def setup(self, path: str) -> None: ...
    def __call__(self, x: int) -> int:
        return x


class SetupThatIsNoMethod:
    setup = "model.bin"

    def __call__(self, x: int) -> int:
        return x


class CallOfTwo:
    def preprocess(self, x: int) -> int:
        return x

    def __call__(self, x: int, y: int) -> int:
        return x


class Coroutine:
    def preprocess(self, x: int) -> int:
        return x

    async def __call__(self, x: int) -> int:
        return x


class PreparesInACoroutine:
    async def preprocess(self, x: int) -> int:
        return x

    def __call__(self, x: int) -> int:
        return x


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (SetupWithArguments, r"SetupWithArguments.setup takes path; it is called with nothing but self"),
        (SetupThatIsNoMethod, r"SetupThatIsNoMethod.setup must be a method"),
        (CallOfTwo, r"CallOfTwo.__call__ takes x, y; it must take one value: what preprocess returns"),
        (Coroutine, r"Coroutine: preprocess runs in threads, ahead of a plain __call__"),
        (PreparesInACoroutine, r"PreparesInACoroutine: preprocess runs in threads"),
    ],
)
def test_methods_that_would_not_be_called_as_they_are_written_are_refused(made: Any, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        udf(made)
