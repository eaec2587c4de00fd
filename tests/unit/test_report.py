"""The figures of a report, and the page around them."""

from __future__ import annotations

import dataclasses
import datetime as dt
import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runner.records import JobRecord, now
from runner.watch.history import COLUMNS, CUT_OFF, DONE, RETRIED, RUNNING, ErrorKind, History, Phase
from runner.watch.report import page
from runner.watch.report_data import MAX_MARKS, report_data

CHROMIUM = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
NASTY = "</script><script>document.title='owned'</script><!-- {{data}} &lt;"


def record(**changes: Any) -> JobRecord:
    made = JobRecord(
        "20260131-235959-3f9a1c2", "images", ["caption"], ["v1"], ["features:caption"], "local", {"where": "x < 3"}, "ana", "host",
        now(), status="DONE", rows_done=90, rows_total=100, rows_failed=10,
    )  # fmt: skip
    return dataclasses.replace(made, **changes)


def history(tasks: list[dict[str, int]], seconds: float = 10.0, **changes: Any) -> History:
    """Tasks by what of them is not 0, ended and done unless they say otherwise."""
    base = {"outcome": DONE, "width": 1, "works": 1, "error": -1}
    columns = {name: np.array([{**base, **task}.get(name, 0) for task in tasks], np.int64) for name in COLUMNS}
    workers = tuple(("node", 100 + i) for i in range(int(columns["worker"].max(initial=-1)) + 1))
    made = History(
        now(), seconds, True, columns, workers, ("caption",), (Phase("plan", 0, 1), Phase("compute", 1, 9), Phase("commit", 9, 10))
    )
    return dataclasses.replace(made, **changes)


def many(count: int, workers: int) -> History:
    """So many tasks of a second each, one after the other on each worker; every 500th was retried."""
    numbers = np.arange(count)
    zeros = np.zeros(count, np.int64)
    tasks = dict.fromkeys(COLUMNS, zeros) | {
        "worker": numbers % workers, "start_ms": numbers // workers * 1000, "end_ms": numbers // workers * 1000 + 1000,
        "outcome": np.where(numbers % 500, DONE, RETRIED), "rows": numbers, "failed": (numbers % 7 == 0) * 2, "width": zeros + 1,
        "calls": zeros + 4, "call_us": zeros + 900_000, "memory": numbers * 1000, "bytes_read": numbers * 4096,
    }  # fmt: skip
    return dataclasses.replace(
        history([], count / workers), tasks=tasks, workers=tuple((f"images-worker-{i}", i) for i in range(workers))
    )


def test_totals_workers_and_calls() -> None:
    tasks = [
        {
            "worker": 0,
            "start_ms": 1000,
            "end_ms": 5000,
            "rows": 40,
            "calls": 4,
            "call_us": 3_000_000,
            "memory": 700,
            "bytes_read": 80,
        },
        {"worker": 0, "start_ms": 5000, "end_ms": 9000, "rows": 30, "failed": 10, "calls": 1, "call_us": 1_000_000, "memory": 900},
        {"worker": 1, "start_ms": 1000, "end_ms": 9000, "bytes_written": 60, "memory": 500},
    ]
    data = report_data(record(), history(tasks))
    assert data["totals"] == {
        "rows_done": 90, "rows_total": 100, "rows_failed": 10, "rows_resumed": 0, "tasks": 3, "workers": 2, "bytes_read": 80,
        "bytes_written": 60, "calls": 5, "call_seconds": 4.0, "rows_per_second": 70 / 8, "busy": 1.0, "memory": 900,
        "task_seconds": 4.0,
    }  # fmt: skip
    assert data["workers"] == [["node", 100, 2, 70, 8.0, 900], ["node", 101, 1, 0, 8.0, 500]]
    assert data["phases"] == [["plan", 0, 1], ["compute", 1, 9], ["commit", 9, 10]]
    assert data["outcomes"][DONE] == ["done", 3]
    batches = data["batches"]
    assert batches["rows"][0] is None  # before the first task
    assert (batches["rows"][25], batches["seconds"][25]) == (10, 0.75)  # 40 rows in 4 calls, 3 s
    assert (batches["rows"][150], batches["seconds"][150]) == (40, 1)
    assert batches["rows"][199] is None
    assert data["notes"] == []


def test_stragglers_are_the_longest_by_the_median() -> None:
    tasks = [{"worker": i, "start_ms": 0, "end_ms": 1000 * seconds} for i, seconds in enumerate((1, 2, 2, 2, 7, 30, 6))]
    found = report_data(record(), history(tasks))["stragglers"]
    assert [(task["worker"], task["seconds"], task["times"]) for task in found] == [(5, 30, 15.0), (4, 7, 3.5)]
    assert found[0]["columns"] == "caption"
    quick = [{"start_ms": 0, "end_ms": ms} for ms in (2, 2, 2, 2, 90)]
    assert report_data(record(), history(quick))["stragglers"] == []
    assert report_data(record(), history(tasks[3:6]))["stragglers"] == []  # of three there is no telling


def test_a_job_that_was_cut_off_says_so() -> None:
    silent = (dt.datetime.now(dt.UTC) - dt.timedelta(hours=2)).isoformat(timespec="seconds")
    lost = record(status="RUNNING", updated_at=silent)
    running = history([{"end_ms": -1, "start_ms": 4000, "outcome": RUNNING}], is_ended=False)
    data = report_data(lost, running)
    assert data["job"]["state"] == "LOST"
    assert "was cut off: its driver has given no sign of life since" in data["notes"][0]
    assert (data["outcomes"][RUNNING][1], data["outcomes"][CUT_OFF][1]) == (0, 1)
    assert (data["marks"]["start"], data["marks"]["end"]) == ([4000], [10_000])

    alive = report_data(record(status="RUNNING", updated_at=now()), running)
    assert "has not ended" in alive["notes"][0]
    assert alive["outcomes"][RUNNING][1] == 1
    assert "could not be recorded" in report_data(record(status="FAILED", error="no"), running)["notes"][0]
    assert "Nothing is recorded" in report_data(lost, None)["notes"][1]


def test_a_hundred_thousand_tasks_are_a_small_file_that_adds_up() -> None:
    made = many(100_000, 64)
    data = report_data(record(), made)
    marks = data["marks"]
    assert len(marks["worker"]) <= 2 * MAX_MARKS
    assert sum(marks["tasks"]) == 100_000
    assert sum(marks["rows"]) == sum(range(100_000))
    assert sum(marks["failed"]) == made.tasks["failed"].sum()
    retried = sum(n for n, outcome in zip(marks["tasks"], marks["outcome"], strict=True) if outcome == RETRIED)
    assert retried == data["outcomes"][RETRIED][1] == 200
    assert max(marks["end"]) == made.tasks["end_ms"].max()
    assert len(page("x", data)) < 1_000_000  # 3 MB are allowed


def test_few_tasks_are_drawn_each() -> None:
    marks = report_data(record(), many(MAX_MARKS, 8))["marks"]
    assert len(marks["worker"]) == MAX_MARKS
    assert set(marks["tasks"]) == {1}


def test_nothing_in_the_data_ends_its_block_or_reaches_the_network() -> None:
    data = report_data(record(error=NASTY, columns=[NASTY]), history([], errors={NASTY: ErrorKind(3, NASTY, 1)}))
    text = page(NASTY, data)
    (block,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text)
    assert json.loads(block)["errors"] == [[NASTY, 3, NASTY, 1]]
    assert text.count("<script") == 2
    assert f"<title>{html.escape(NASTY)}</title>" in text
    assert re.findall(r"(?:src|href)\s*=", text) == []
    assert set(re.findall(r"https?://[^\"]*", text)) == {"http://www.w3.org/2000/svg"}  # a name, which nobody fetches
    assert "default-src 'none'" in text


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH")
def test_a_browser_shows_the_figures(tmp_path: Path) -> None:
    tasks = [{"worker": i % 2, "start_ms": 1000 + 500 * i, "end_ms": 1500 + 500 * i, "rows": 10, "calls": 1} for i in range(9)]
    tasks.append({"worker": 0, "start_ms": 1000, "end_ms": 9000, "rows": 1, "outcome": RETRIED, "fragment": 4711})
    made = history(tasks, errors={"ValueError": ErrorKind(12, NASTY, 3), "KeyError": ErrorKind(1, "'k'", 9)})
    (tmp_path / "report.html").write_text(page("t", report_data(record(error=NASTY), made)))
    command = [
        str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}",
        "--virtual-time-budget=3000", "--dump-dom", (tmp_path / "report.html").as_uri(),
    ]  # fmt: skip
    shown = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True).stdout
    body = re.sub(r"<script.*?</script>", "", shown, flags=re.DOTALL)
    words = html.unescape(re.sub(r"<[^>]+>", "|", body))
    for text in ("images.caption", "done 9", "retried 1", "rows done of 100", "4711", "|8 s||16|", NASTY, "ValueError", "node 101"):
        assert text in words, text
    assert "<title>t</title>" in shown
    assert len(re.findall(r"<canvas", body)) == 1
    assert len(re.findall(r"<svg", body)) == 2  # rows and seconds a call; of the series nothing is recorded
