"""What `top` makes of the records of jobs."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from runner.records import JobRecord, now
from runner.watch.top import ENDED_SHOWN, Top, render


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def record(number: int, status: str = "RUNNING", **changes: object) -> JobRecord:
    made = JobRecord(f"job-{number}", "images", ["caption"], ["v"], ["f"], "local", {}, "ana", "host", now(), status=status)
    for name, value in {"updated_at": now(), "rows_total": 1000, "phase": "compute", **changes}.items():
        setattr(made, name, value)
    return made


def test_rates_are_of_the_last_half_minute_once_there_is_one() -> None:
    clock = Clock()
    made = record(1, rows_done=300, rows_resumed=100, rows_failed=100, seconds={"compute": 4.0}, workers=3)
    top = Top(lambda: [made], clock)
    (line,) = top.look()
    assert (line.rate, line.seconds_left, line.workers) == (50, 12, 3)
    for clock.now, made.rows_done in ((2, 320), (10, 400)):
        (line,) = top.look()
    assert (line.rate, line.seconds_left) == (10, 50)
    for clock.now, made.rows_done in ((20, 800), (41, 800), (60, 860)):
        (line,) = top.look()
    assert line.rate == pytest.approx(60 / 19)  # from 41 to 60
    made.phase = "commit"
    assert top.look()[0].rate is None


def test_running_jobs_first_then_the_last_that_ended() -> None:
    ended = [record(i, "DONE") for i in range(9, 1, -1)]
    lost = record(1, updated_at="2026-01-31T00:00:00+00:00")
    lines = Top(lambda: [*ended, lost]).look()
    assert [line.job_id for line in lines] == ["job-1", *(f"job-{9 - i}" for i in range(ENDED_SHOWN))]
    assert (lines[0].state, lines[0].rate) == ("LOST", None)


def test_the_table_says_it_all_and_takes_no_markup_from_names() -> None:
    made = record(1, rows_done=1200, rows_failed=300, rows_total=6000, seconds={"compute": 3.0}, cluster="[red]gpu")
    made.columns = ["[bold]x"]
    out = Console(file=io.StringIO(), width=160)
    out.print(render(Top(lambda: [made]).look()))
    shown = out.file.getvalue()  # type: ignore[attr-defined]
    for text in ("job-1", "images.[bold]x", "RUNNING compute", "1,200 of 6,000", "25%", "300", "400", "11 s", "[red]gpu"):
        assert text in shown
    out.print(render([]))
    assert "no jobs" in out.file.getvalue()  # type: ignore[attr-defined]
