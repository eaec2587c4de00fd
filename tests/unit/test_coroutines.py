"""Coroutine functions: values in their rows, calls in flight, rate, retries and timeouts."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from runner.backfill.compute import Applier, Surroundings
from runner.backfill.coroutines import RateLimit
from runner.backfill.failures import Failure
from runner.backfill.flight import Flight
from runner.backfill.pacer import Pacer
from runner.backfill.policy import ErrorPolicy
from runner.functions import UDF, udf


def batch(*values: Any) -> pa.RecordBatch:
    return pa.record_batch({"x": pa.array(values, pa.int64())})


def apply(made: UDF, given: pa.RecordBatch, policy: str = "fail", timeout: float | None = None) -> tuple[list[Any], list[Failure]]:
    applier = Applier(made, ErrorPolicy.parse(policy), timeout)
    try:
        values, failures = applier(given)
    finally:
        applier.close()
    assert values.type == made.data_type
    return values.to_pylist(), failures


class Service:
    """Answers 2 * x when so many calls are in it, or at once; counts calls."""

    def __init__(self, gate: int = 0, raises: dict[int, int] | None = None) -> None:
        self.counts: Counter[int] = Counter()
        self.inside = self.most = 0
        self._gate = gate
        self._raises = raises or {}
        self._full = asyncio.Event()

    async def __call__(self, x: int) -> int:
        self.counts[x] += 1
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            if self.inside == self._gate:
                self._full.set()
            if self._gate:
                await self._full.wait()
            await asyncio.sleep(0)
            if self.counts[x] <= self._raises.get(x, 0):
                raise ConnectionError(f"no {x}")
            return 2 * x
        finally:
            self.inside -= 1

    def udf(self, **options: Any) -> UDF:
        async def function(x: int) -> int:
            return await self(x)

        return udf(**options)(function)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    waited: list[float] = []
    original = asyncio.sleep

    async def sleep(seconds: float, *args: Any) -> Any:
        if seconds:
            waited.append(seconds)
        return await original(0, *args)

    monkeypatch.setattr("asyncio.sleep", sleep)
    monkeypatch.setattr("random.uniform", lambda least, most: most)
    return waited


def test_every_row_is_called_once_and_answers_are_in_their_rows() -> None:
    service = Service()
    assert apply(service.udf(), batch(*range(100))) == ([2 * n for n in range(100)], [])
    assert service.counts == Counter(range(100))


@pytest.mark.parametrize(("concurrency", "most"), [(7, 7), (None, 16), (1, 1)])
def test_so_many_calls_are_in_flight_and_no_more(concurrency: int | None, most: int) -> None:
    service = Service(gate=most)  # would never answer with fewer
    assert apply(service.udf(concurrency=concurrency), batch(*range(50)))[0] == [2 * n for n in range(50)]
    assert service.most == most


def test_calls_of_the_next_batches_are_in_flight_before_the_first_is_finished() -> None:
    service = Service(gate=6)
    applier = Applier(service.udf(concurrency=6), ErrorPolicy(), None)
    begun = [applier.begin(batch(n, n + 1)) for n in (0, 2, 4)]
    assert [applier.finish(piece)[0].to_pylist() for piece in begun] == [[0, 2], [4, 6], [8, 10]]
    assert (applier.ahead.batches, applier.ahead.rows) == (0, 12)
    applier.close()


def test_the_last_calls_of_a_large_batch_run_beside_the_first_of_the_next() -> None:
    next_began = asyncio.Event()

    @udf(concurrency=2)
    async def function(x: int) -> int:
        if x == 10:
            next_began.set()
        if x == 9:
            await next_began.wait()
        return 2 * x

    applier = Applier(function, ErrorPolicy(), None)
    chunks = [(np.arange(start, start + 10, dtype=np.uint32), batch(*range(start, start + 10))) for start in (0, 10)]
    found = [results["f"][0].to_pylist() for _, results in Flight({"f": applier}, Pacer(10)).results(chunks)]
    assert found == [[2 * n for n in range(10)], [2 * n for n in range(10, 20)]]
    applier.close()


def test_skip_leaves_null_where_it_raised() -> None:
    service = Service(raises={0: 9, 3: 9})
    values, failures = apply(service.udf(), batch(0, 1, 2, 3), "skip")
    assert values == [None, 2, 4, None]
    assert [(f.row, f.error, f.message) for f in failures] == [(0, "ConnectionError", "no 0"), (3, "ConnectionError", "no 3")]
    assert failures[0].traceback.startswith(f'Traceback (most recent call last):\n  File "{__file__}"')


def test_fail_keeps_the_rows_before_and_calls_none_after() -> None:
    service = Service(raises={3: 9})
    values, (failure,) = apply(service.udf(concurrency=1), batch(*range(50)))
    assert (values, failure.row, failure.message) == ([0, 2, 4], 3, "no 3")
    assert service.counts == Counter(range(4))


def test_fail_waits_for_the_rows_before_the_one_that_failed_first() -> None:
    @udf
    async def function(x: int) -> int:
        if x == 2:
            raise ValueError("two")
        for _ in range(5):
            await asyncio.sleep(0)
        if x == 1:
            raise ValueError("one")
        return x

    values, (failure,) = apply(function, batch(0, 1, 2, 3))
    assert (values, failure.row, failure.message) == ([0], 1, "one")


def test_retries_wait_longer_and_longer(waits: list[float]) -> None:
    service = Service(raises={1: 2})
    assert apply(service.udf(), batch(0, 1), "retry:3") == ([0, 2], [])
    assert service.counts == Counter({0: 1, 1: 3})
    assert waits == pytest.approx([0.1, 0.2])


def test_only_named_exceptions_are_retried(waits: list[float]) -> None:
    other = Service(raises={1: 9})
    assert apply(other.udf(on_error="retry:3,skip", retry_on=(TimeoutError, "json.JSONDecodeError")), batch(0, 1), "retry:3,skip")[
        0
    ] == [0, None]
    assert other.counts == Counter({0: 1, 1: 1})
    named = Service(raises={1: 9})
    assert apply(named.udf(on_error="retry:3,skip", retry_on=OSError), batch(0, 1), "retry:3,skip")[0] == [0, None]
    assert named.counts == Counter({0: 1, 1: 4})


def test_what_the_service_says_counts_and_holds_the_other_calls_back(waits: list[float]) -> None:
    class Throttled(Exception):
        retry_after = 7

    calls: Counter[int] = Counter()

    @udf(concurrency=1)
    async def function(x: int) -> int:
        calls[x] += 1
        if x == 0 and calls[x] == 1:
            raise Throttled
        return x

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RateLimit, "pause", lambda self, seconds: waits.append(-seconds))
        assert apply(function, batch(0, 1), "retry:1") == ([0, 1], [])
    assert waits == [-7.0, 7.0]
    assert calls == Counter({0: 2, 1: 1})


def test_a_rate_limit_begins_calls_at_even_distances_and_pauses() -> None:
    class Clock:
        now = 100.0

    began: list[float] = []

    async def run() -> None:
        loop = asyncio.get_running_loop()
        loop.time = lambda: Clock.now  # type: ignore[method-assign]
        rate = RateLimit(4)

        async def sleep(seconds: float) -> None:
            Clock.now += seconds

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("asyncio.sleep", sleep)
            for number in range(8):
                if number == 4:
                    rate.pause(10)
                if number == 6:
                    Clock.now += 5  # the caller is slow: what it missed is not made up for
                await rate.turn()
                began.append(Clock.now)

    asyncio.run(run())
    assert began == [100.0, 100.25, 100.5, 100.75, 110.75, 110.75, 115.75, 116.0]


def test_a_rate_limit_is_divided_over_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[float | None] = []
    original = RateLimit.__init__
    monkeypatch.setattr(RateLimit, "__init__", lambda self, rate: (made.append(rate), original(self, rate))[1])
    for workers in (1, 4):
        Applier(Service().udf(rate_limit=10), ErrorPolicy(), None, Surroundings(workers=workers)).close()
    assert made == [10.0, 2.5]


def test_a_timeout_ends_one_call_with_the_stack_of_where_it_hung() -> None:
    async def deep() -> None:
        await asyncio.Event().wait()

    @udf
    async def function(x: int) -> int:
        if x == 1:
            await deep()
        return x

    values, (failure,) = apply(function, batch(0, 1, 2), "skip", timeout=0.05)
    assert (values, failure.row, failure.error) == ([0, None, 2], 1, "CallTimeout")
    assert failure.message == "the call took longer than 0.05 s"
    assert "in deep\n    await asyncio.Event().wait()" in failure.traceback


def test_a_timeout_error_of_the_functions_own_stays_its_own() -> None:
    @udf
    async def function(x: int) -> int:
        raise TimeoutError("mine")

    assert apply(function, batch(0), "skip", timeout=30)[1][0].message == "mine"


def test_a_call_that_cancels_itself_is_a_failure_of_its_row() -> None:
    @udf
    async def function(x: int) -> int:
        if x == 1:
            raise asyncio.CancelledError
        return x

    values, (failure,) = apply(function, batch(0, 1, 2), "skip")
    assert (values, failure.row, failure.message) == ([0, None, 2], 1, "the call was cancelled from within")


def test_nulls_and_wrong_values() -> None:
    @udf
    async def function(x: int) -> int:
        return x if x != 5 else "five"  # type: ignore[return-value]

    values, (failure,) = apply(function, batch(None, 1, None, 5, 6), "skip")
    assert (values, failure.row, failure.error) == ([None, 1, None, None, 6], 3, "WrongOutput")


def test_a_batch_coroutine_is_halved_and_runs_ahead() -> None:
    calls: list[list[int]] = []

    @udf(data_type=pa.int64(), concurrency=3)
    async def function(x: pa.Array) -> pa.Array:
        calls.append(x.to_pylist())
        if 2 in calls[-1]:
            raise ValueError("two")
        return x

    values, (failure,) = apply(function, batch(0, 1, 2, 3), "skip")
    assert (values, failure.row) == ([0, 1, None, 3], 2)
    assert calls == [[0, 1, 2, 3], [0, 1], [2, 3], [2], [3]]
    applier = Applier(function, ErrorPolicy(), None)
    assert (applier.ahead.batches, applier.ahead.rows) == (3, 0)
    applier.close()


def test_a_class_of_coroutines_is_set_up_in_the_loop_that_calls_it() -> None:
    @udf
    class Client:
        async def setup(self) -> None:
            self.loop = asyncio.get_running_loop()

        async def __call__(self, x: int) -> int:
            assert asyncio.get_running_loop() is self.loop
            return x + 1

    assert apply(Client, batch(1, 2)) == ([2, 3], [])


def test_closing_ends_the_calls_that_run_and_the_thread() -> None:
    cancelled: list[int] = []
    both = threading.Barrier(2)
    inside: list[int] = []

    @udf
    async def function(x: int) -> int:
        inside.append(x)
        if len(inside) == 2:
            asyncio.get_running_loop().call_soon(both.wait)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(x)
            raise
        return x

    before = set(threading.enumerate())
    applier = Applier(function, ErrorPolicy(), None)
    applier.begin(batch(1, 2))
    (thread,) = set(threading.enumerate()) - before
    both.wait()
    applier.close()
    assert not thread.is_alive()
    assert sorted(cancelled) == [1, 2]


def test_it_runs_in_a_thread_that_is_not_the_main_one_with_a_timeout() -> None:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(apply(Service().udf(), batch(1, 2), timeout=30)))
    thread.start()
    thread.join()
    assert found == [([2, 4], [])]
