"""The end of a job: works that wait are cut, a slow worker's task is done once more and the first result taken."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator

import pytest

from runner.backfill.checkpoint import StagedColumn, StagedFragment
from runner.backfill.driver import Driver, Meter
from runner.backfill.executors import Event, Lost, Task, TaskDone
from runner.backfill.plan import BackfillPlan
from runner.backfill.policy import ErrorPolicy
from runner.backfill.selection import ColumnState
from runner.backfill.stragglers import Stragglers
from runner.backfill.work import Failed, FragmentWork, Progress, SpanDone
from runner.watch.history import DONE, DUPLICATE
from runner.watch.recorder import Recorder


def work(number: int, rows: int) -> FragmentWork:
    return FragmentWork(number, ("y",), ColumnState(None, None), rows, f"staging/t/y/{number}")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def watched(rows: int, rows_done: int, seconds: float) -> tuple[Stragglers, Clock]:
    """After two workers have done some rows in some seconds."""
    clock = Clock()
    watch = Stragglers(rows, clock)
    done = [Task((work(number, rows_done // 2),)) for number in range(2)]
    for task in done:
        watch.started(task)
    clock.now = seconds
    for task in done:
        watch.ended(task)
    return watch, clock


def test_nothing_is_cut_before_the_speed_is_known_nor_for_one_worker() -> None:
    assert Stragglers(1000).cut(work(1, 1000), 4) == [work(1, 1000)]
    watch, _ = watched(8000, 2000, 100.0)
    assert watch.cut(work(1, 6000), 1) == [work(1, 6000)]


def test_a_work_is_cut_where_it_is_much_of_what_is_left() -> None:
    watch, _ = watched(8000, 2000, 100.0)  # 0.1 s a row and worker; two workers need 300 s more
    assert watch.cut(work(1, 1000), 2) == [work(1, 1000)]
    pieces = watch.cut(work(1, 6000), 2)
    assert [piece.span for piece in pieces] == [(0, 1500), (1500, 3000), (3000, 4500), (4500, 6000)]
    assert [piece.rows for piece in pieces] == [1500] * 4
    late, _ = watched(8000, 7000, 350.0)  # the last fragment of eight
    assert [piece.span for piece in late.cut(work(7, 1000), 2)] == [(0, 250), (250, 500), (500, 750), (750, 1000)]
    inner = late.cut(late.cut(work(7, 1000), 2)[1], 4)
    assert [piece.span for piece in inner] == [(250, 375), (375, 500)], "a span is cut further, where more workers wait"


def test_what_takes_no_second_is_not_cut() -> None:
    watch, _ = watched(8000, 7000, 3.5)
    assert watch.cut(work(7, 1000), 2) == [work(7, 1000)]


def test_the_slowest_task_is_the_one_that_is_latest() -> None:
    watch, clock = watched(8000, 2000, 100.0)
    first, second = Task((work(3, 100),)), Task((work(4, 50),))
    watch.started(first)
    watch.started(second)
    clock.now += 2 * 10 + 3
    assert watch.slowest([first]) is None
    assert watch.slowest([first, second]) is second
    clock.now += 30
    assert watch.slowest([first]) is first
    first.unfinished = []
    assert watch.slowest([first]) is None


# -- the driver


def plan(*works: FragmentWork) -> BackfillPlan:
    rows = sum(each.rows for each in works)
    return BackfillPlan(
        "t", ("y",), ("v",), 1, rows, rows, 0, 0, 0, 0, 0, 0, len(works), len(works), tuple(works), (), tuple(works), {}
    )  # fmt: skip


def staged(each: FragmentWork, path: str) -> StagedFragment:
    return StagedFragment(each.fragment_id, each.rows, (StagedColumn("y", path, each.rows, 8, "full", "v"),))


class Scripted:
    """An executor of two workers; the test says what happens on them."""

    parallelism = growth = 2

    def __init__(self, script: list[tuple[bool, int, list[Event]]]) -> None:
        self.script = deque(script)
        self.running: list[Task] = []
        self.started: list[Task] = []
        self.abandoned: list[Task] = []

    def submit(self, task: Task, waiting: int) -> bool:
        if len(self.running) == 2:
            return False
        self.running.append(task)
        self.started.append(task)
        return True

    def events(self, timeout: float) -> Iterator[tuple[Task, Event]]:
        of_twin, fragment, events = self.script.popleft()
        task = next(t for t in self.running if t.works[0].fragment_id == fragment and (t.twin_of is not None) == of_twin)
        if isinstance(events[-1], (TaskDone, Lost)):
            self.running.remove(task)
        for event in events:
            yield task, event

    def abandon(self, task: Task) -> None:
        self.running.remove(task)
        self.abandoned.append(task)

    def close(self) -> None:
        assert not self.running


WORKS = (work(0, 100), work(1, 100))
FAST = (False, 0, [Progress(100), staged(WORKS[0], "fast"), TaskDone()])


def drive(
    monkeypatch: pytest.MonkeyPatch, script: list[tuple[bool, int, list[Event]]], watcher: Recorder | None = None
) -> tuple[Scripted, Meter, dict[int, str]]:
    """Run two fragments on two workers; the second one is late as soon as the first one is done."""
    monkeypatch.setattr("runner.backfill.stragglers.SLOW_SECONDS", -1e9)
    executor, meter = Scripted(script), Meter()
    made = plan(*WORKS)
    meter.expect(made)
    policy = ErrorPolicy.parse("skip:50")
    result = Driver(made, executor, meter, policy, threading.Event(), lambda fragment: None, watcher or Recorder()).run()
    return executor, meter, {fragment.fragment_id: fragment.columns[0].path for fragment in result}


def test_the_first_result_is_taken_where_it_is_the_twins(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder()
    executor, meter, paths = drive(
        monkeypatch,
        [
            FAST,
            (False, 1, [Progress(30, failed=1)]),
            (True, 1, [Progress(resumed=20), Progress(79, failed=1), staged(WORKS[1], "twin"), TaskDone()]),
        ],
        recorder,
    )
    assert paths == {0: "fast", 1: "twin"}
    assert (meter.rows_done, meter.rows_failed, meter.rows_total) == (199, 1, 200)
    assert [task.works[0].fragment_id for task in executor.abandoned] == [1]
    assert executor.abandoned[0].twin_of is None
    assert executor.started[-1].works[0].has_parts, "it goes on from what the slow worker has saved"
    recorded = recorder.snapshot().tasks
    assert list(recorded["outcome"]) == [DONE, DUPLICATE, DONE]
    assert list(recorded["rows"]) == [100, 30, 79]


def test_the_first_result_is_taken_where_it_is_the_slow_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    executor, meter, paths = drive(
        monkeypatch,
        [FAST, (True, 1, [Progress(60)]), (False, 1, [Progress(100), staged(WORKS[1], "slow"), TaskDone()])],
    )
    assert paths == {0: "fast", 1: "slow"}
    assert meter.rows_done == 200
    assert [task.twin_of is not None for task in executor.abandoned] == [True]


@pytest.mark.parametrize("end", [Lost("killed"), Failed("no storage here")])
def test_a_twin_that_fails_or_dies_changes_nothing_and_has_no_successor(monkeypatch: pytest.MonkeyPatch, end: Event) -> None:
    executor, meter, paths = drive(
        monkeypatch,
        [FAST, (True, 1, [Progress(60), end]), (False, 1, [Progress(100), staged(WORKS[1], "slow"), TaskDone()])],
    )
    assert paths == {0: "fast", 1: "slow"}
    assert meter.rows_done == 200
    assert len(executor.started) == 3


def test_a_slow_worker_that_dies_ends_its_twin_and_is_succeeded(monkeypatch: pytest.MonkeyPatch) -> None:
    executor, meter, paths = drive(
        monkeypatch,
        [
            FAST,
            (False, 1, [Progress(40), Lost("killed")]),
            (False, 1, [Progress(100), staged(WORKS[1], "successor"), TaskDone()]),
        ],
    )
    assert paths == {0: "fast", 1: "successor"}
    assert meter.rows_done == 200
    twins = [task.twin_of for task in executor.abandoned]
    assert [twin.works[0].has_parts for twin in twins if twin] == [False, True], "the successor is late too, and has one as well"


def test_a_large_last_fragment_is_cut_and_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.backfill.stragglers.MIN_SECONDS", 0.0)
    small, large = [work(number, 100) for number in range(3)], work(3, 100)
    executor = Scripted([])
    seen: list[tuple[int, int] | str] = []

    def events(timeout: float) -> Iterator[tuple[Task, Event]]:
        task = executor.running.pop(0)
        (each,) = task.works
        if each.span:
            seen.append(each.span)
            yield task, SpanDone(each, ())
        else:
            seen.append("joined" if each.join else "whole")
            yield task, staged(each, str(each.fragment_id))
        yield task, TaskDone()

    monkeypatch.setattr(executor, "events", events)
    made = plan(*small, large)
    result = Driver(made, executor, Meter(), ErrorPolicy.parse("fail"), threading.Event(), lambda fragment: None, Recorder()).run()
    assert sorted(fragment.fragment_id for fragment in result) == [0, 1, 2, 3]
    assert seen[:2] == ["whole", "whole"]
    assert any(isinstance(each, tuple) for each in seen), "what is left is cut once the speed is known"
    assert seen[-1] == "joined"


class Simulated:
    """Workers of different speeds, and a clock that jumps to what happens next.

    Args:
        seconds_per_row: of each worker.
    """

    def __init__(self, seconds_per_row: list[float]) -> None:
        self.clock = Clock()
        self.parallelism = self.growth = len(seconds_per_row)
        self.seconds_per_row = seconds_per_row
        self.ends: dict[int, tuple[float, Task]] = {}
        self.busy_until = [0.0] * len(seconds_per_row)

    def submit(self, task: Task, waiting: int) -> bool:
        idle = next((worker for worker in range(self.parallelism) if worker not in self.ends), None)
        if idle is None:
            return False
        rows = sum(each.rows for each in task.works if not each.join)
        self.ends[idle] = self.clock.now + rows * self.seconds_per_row[idle], task
        return True

    def events(self, timeout: float) -> Iterator[tuple[Task, Event]]:
        worker = min(self.ends, key=lambda each: self.ends[each][0])
        self.clock.now, task = self.ends.pop(worker)
        if any(not each.join for each in task.works):
            self.busy_until[worker] = self.clock.now
        for each in task.works:
            yield task, SpanDone(each, ()) if each.span else staged(each, "made")
        yield task, TaskDone()

    def abandon(self, task: Task) -> None:
        (worker,) = [each for each, (_, running) in self.ends.items() if running is task]
        self.busy_until[worker] = self.clock.now
        del self.ends[worker]

    def close(self) -> None:
        assert not self.ends


@pytest.mark.parametrize(
    ("sizes", "seconds_per_row"),
    [
        ([1000] * 8, [0.5, 0.5]),
        ([1000] * 8, [0.5, 0.8]),
        ([1000] * 8, [0.5, 0.8, 0.6]),
        ([8000], [0.5, 0.5, 0.5, 0.9]),
        ([8] * 1000, [0.5, 0.5, 0.5, 0.9]),
        ([5000, *[300] * 10], [0.5, 0.7]),
    ],
    ids=["even", "slower", "three", "one-fragment", "small-fragments", "mixed"],
)
def test_no_worker_idles_more_than_a_twentieth_of_a_job(
    monkeypatch: pytest.MonkeyPatch, sizes: list[int], seconds_per_row: list[float]
) -> None:
    executor = simulated(monkeypatch, sizes, seconds_per_row)
    end = max(executor.busy_until)
    idle = [(end - until) / end for until in executor.busy_until]
    assert max(idle) <= 0.05, (end, idle)


def test_a_worker_ten_times_slower_than_others_does_not_hold_up_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    executor = simulated(monkeypatch, [1000] * 8, [0.5, 0.5, 0.5, 5.0])
    assert max(executor.busy_until) < 2000, "5,000 s are what its first fragment takes it"


def simulated(monkeypatch: pytest.MonkeyPatch, sizes: list[int], seconds_per_row: list[float]) -> Simulated:
    executor = Simulated(seconds_per_row)
    monkeypatch.setattr("runner.backfill.driver.Stragglers", lambda rows: Stragglers(rows, executor.clock))
    made = plan(*(work(number, rows) for number, rows in enumerate(sizes)))
    result = Driver(made, executor, Meter(), ErrorPolicy.parse("fail"), threading.Event(), lambda fragment: None, Recorder()).run()
    assert sorted(fragment.fragment_id for fragment in result) == list(range(len(sizes)))
    return executor
