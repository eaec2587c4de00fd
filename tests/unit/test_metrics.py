"""What of a job goes to its metrics, and what becomes of it where they fail."""

from __future__ import annotations

from typing import Any

import pytest

from runner.backfill.executors import Task
from runner.backfill.selection import ColumnState
from runner.backfill.work import FragmentWork, Progress
from runner.local_context import LocalContext
from runner.watch.metrics import CALLS, COUNTERS, GAUGES, JobMetrics
from runner.watch.recorder import Recorder


class Metric:
    """A metric of any kind, and all that it was told."""

    def __init__(self, *, broken: bool = False) -> None:
        self.told: list[float] = []
        self._broken = broken

    def inc(self, value: float) -> None:
        if self._broken:
            raise RuntimeError("no Ray any more")
        self.told.append(value)

    set = observe = inc


@pytest.fixture
def context(monkeypatch: pytest.MonkeyPatch) -> LocalContext:
    monkeypatch.setenv("INFILL_METRICS", "1")
    return LocalContext("local")


def metrics(monkeypatch: pytest.MonkeyPatch, recorder: Recorder, **made: Metric) -> tuple[JobMetrics, dict[str, Any]]:
    all_of_them = {name: Metric() for name in (*COUNTERS, *GAUGES, CALLS)} | made
    monkeypatch.setattr(JobMetrics, "_new", lambda self: all_of_them)
    return JobMetrics("job", "t", ["y"], recorder), all_of_them


def began(recorder: Recorder, waiting: int) -> Task:
    task = Task((FragmentWork(0, ("y",), ColumnState(None, None), 10, "folder"),))
    recorder.began(task, waiting)
    return task


def test_counters_are_told_what_is_new_and_gauges_what_is(monkeypatch: pytest.MonkeyPatch, context: LocalContext) -> None:
    recorder = Recorder()
    told, made = metrics(monkeypatch, recorder)
    told.tell(99)  # before it computes
    with told.on(context):
        task = began(recorder, waiting=7)
        recorder.saw(task, Progress(6, 1, 800, calls=2, call_seconds=1.0))
        told.tell(99)
        recorder.saw(task, Progress(4, 0, 200, calls=1, call_seconds=2.0))
        told.tell(99)
        recorder.closed()
    found = {name: metric.told for name, metric in made.items()}
    assert (found["infill_rows_done"], found["infill_rows_failed"], found["infill_read_bytes"]) == ([6, 4], [1], [800, 200])
    assert found["infill_rows_expected"][:2] == [99, 99]
    assert found["infill_tasks_running"] == [1, 1, 0, 0]
    assert found["infill_tasks_queued"] == [7, 7, 0, 0]
    assert found[CALLS] == [0.5, 2.0]


def test_metrics_that_fail_end_and_the_job_does_not(
    monkeypatch: pytest.MonkeyPatch, context: LocalContext, capsys: pytest.CaptureFixture[str]
) -> None:
    recorder = Recorder()
    told, made = metrics(monkeypatch, recorder, infill_tasks_running=Metric(broken=True))
    with told.on(context):
        recorder.saw(began(recorder, 0), Progress(6))
        told.tell(1)
        told.tell(2)
    assert capsys.readouterr().err == "runner: job job has no metrics from now on: no Ray any more\n"
    assert made["infill_rows_done"].told == [6]


@pytest.mark.parametrize(("setting", "exported"), [("0", False), ("1", True), ("", True)])
def test_a_ray_that_was_there_exports_unless_it_is_switched_off(
    monkeypatch: pytest.MonkeyPatch, setting: str, exported: bool
) -> None:
    monkeypatch.setenv("INFILL_METRICS", setting)
    context = LocalContext("local")
    monkeypatch.setattr(context, "_origin", "joined")
    assert context.exports_metrics is exported
    monkeypatch.setattr(context, "_origin", "started")
    assert context.exports_metrics is (setting == "1")
