"""What is recorded of a job, event by event, and that it comes back from its file as it was."""

from __future__ import annotations

import numpy as np
import pytest

from runner.backfill.checkpoint import StagedColumn, StagedFragment
from runner.backfill.executors import Lost, Task, TaskDone
from runner.backfill.process import Place
from runner.backfill.selection import ColumnState
from runner.backfill.work import Failed, FragmentWork, Progress
from runner.errors import RowError
from runner.watch import recorder as recorders
from runner.watch.history import CUT_OFF, DONE, DUPLICATE, FAILED, RETRIED, RUNNING, ErrorKind, History
from runner.watch.recorder import MAX_STEPS, Recorder

BAD = RowError(7, "ValueError", "seven is not possible", "Traceback")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def recorder(clock: Clock) -> Recorder:
    return Recorder(clock)


def task(fragment: int = 0, node: str = "a", columns: tuple[str, ...] = ("y",)) -> Task:
    work = FragmentWork(fragment, columns, ColumnState(None, None), 10, "folder")
    return Task((work,), place=Place(node, 1))


def column(history: History, name: str) -> list[int]:
    return list(history.tasks[name])


def test_a_task_from_begin_to_end(recorder: Recorder, clock: Clock) -> None:
    one = task(fragment=3)
    clock.now += 1.5
    recorder.began(one, 4)
    clock.now += 1
    recorder.saw(one, Progress(6, 1, 800, 2, (BAD,), (("ValueError", 1),), calls=2, call_seconds=0.25, memory=5_000))
    recorder.saw(one, Progress(4, 0, 200, calls=1, call_seconds=0.5, memory=4_000))
    recorder.saw(
        one, StagedFragment(3, 9, (StagedColumn("y", "p", 10, 640, "skip", "v"), StagedColumn("z", "q", 10, 60, "skip", "v")))
    )
    clock.now += 0.25
    recorder.saw(one, TaskDone())
    found = recorder.snapshot()
    assert {name: values[0] for name, values in found.tasks.items()} == {
        "number": one.number,
        "worker": 0, "start_ms": 1500, "end_ms": 2750, "outcome": DONE, "columns": 0, "width": 1, "fragment": 3, "works": 1,
        "rows": 10, "failed": 1, "resumed": 2, "bytes_read": 1000, "bytes_written": 700, "calls": 3, "call_us": 750_000,
        "memory": 5_000, "error": 0,
    }  # fmt: skip
    assert found.errors == {"ValueError": ErrorKind(1, "seven is not possible", 7)}
    assert (found.workers, found.columns, found.seconds) == ((("a", 1),), ("y",), 2.75)
    assert found.series == {"rows": [0, 0, 10], "failed": [0, 0, 1], "bytes_read": [0, 0, 1000]}


def test_rows_that_failed_on_a_dead_worker_count_once(recorder: Recorder) -> None:
    one, again, twice, other = task(0), task(0), task(1), task(1)
    told = Progress(0, 1, errors=(BAD,), kinds=(("ValueError", 1),))
    for each in (one, again, twice, other):
        recorder.began(each, 0)
        recorder.saw(each, told)
    recorder.saw(one, Lost("killed"))
    recorder.saw(again, TaskDone())
    recorder.abandoned(twice)
    assert recorder.snapshot().errors["ValueError"].count == 2  # `again`, and `other` which still runs
    assert column(recorder.snapshot(), "outcome") == [RETRIED, DONE, DUPLICATE, RUNNING]


def test_rows_that_failed_in_finished_works_count_whatever_becomes_of_the_task(recorder: Recorder) -> None:
    lost = task(0)
    recorder.began(lost, 0)
    recorder.saw(lost, Progress(0, 3, kinds=(("ValueError", 3),)))
    recorder.saw(lost, StagedFragment(0, 7, ()))
    recorder.saw(lost, Progress(0, 5, kinds=(("ValueError", 5),)))
    recorder.saw(lost, Lost("killed"))
    assert recorder.snapshot().errors["ValueError"].count == 3


def test_what_ends_the_job_ends_its_tasks(recorder: Recorder, clock: Clock) -> None:
    failed, running = task(0), task(1, node="b")
    recorder.began(failed, 0)
    recorder.began(running, 0)
    clock.now += 2
    recorder.saw(failed, Failed("y: no", (BAD,)))
    recorder.closed()
    found = recorder.snapshot(is_ended=True)
    assert column(found, "outcome") == [FAILED, CUT_OFF]
    assert column(found, "end_ms") == [2000, 2000]
    assert column(found, "error") == [0, -1]
    assert found.errors["ValueError"].count == 1
    assert column(found, "worker") == [0, 1]


def test_kinds_without_end_are_counted_together(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorders, "MAX_KINDS", 2)
    one = task()
    recorder.began(one, 0)
    recorder.saw(one, Progress(0, 10, kinds=tuple((f"E{i}", i) for i in range(1, 5))))
    assert {kind: found.count for kind, found in recorder.snapshot().errors.items()} == {"E1": 1, "E2": 2, "others": 7}


def test_steps_of_time_grow_with_the_job(recorder: Recorder, clock: Clock) -> None:
    one = task()
    recorder.began(one, 0)
    for _ in range(MAX_STEPS + 1):
        recorder.saw(one, Progress(2))
        clock.now += 1
    found = recorder.snapshot()
    assert found.step == 2
    assert len(found.series["rows"]) == MAX_STEPS // 2 + 1
    assert found.series["rows"][:2] == [4, 4]
    assert sum(found.series["rows"]) == 2 * (MAX_STEPS + 1)


def test_phases_in_phases_and_the_open_one(recorder: Recorder, clock: Clock) -> None:
    with recorder.phase("plan"):
        clock.now += 1
    with recorder.phase("compute"):
        clock.now += 2
        with recorder.phase("commit"):
            clock.now += 3
        phases = [(phase.name, phase.start, phase.end) for phase in recorder.snapshot().phases]
    assert phases == [("plan", 0, 1), ("compute", 1, None), ("commit", 3, 6)]


def test_a_history_comes_back_from_its_file(recorder: Recorder, clock: Clock) -> None:
    with recorder.phase("compute"):
        for fragment in range(3):
            one = task(fragment, node=f"n{fragment % 2}")
            recorder.began(one, 0)
            recorder.saw(one, Progress(fragment, 1, errors=(BAD,), kinds=(("ValueError", 1),)))
    before = recorder.snapshot(is_ended=True)
    after = History.from_bytes(before.to_bytes())
    for name, values in before.tasks.items():
        np.testing.assert_array_equal(after.tasks[name], values)
    rest = ("began_at", "seconds", "is_ended", "workers", "columns", "phases", "errors", "step", "series")
    assert [getattr(after, name) for name in rest] == [getattr(before, name) for name in rest]
