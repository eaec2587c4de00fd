"""What the handle on a job elsewhere tells of it, from its record alone."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from runner import console
from runner.errors import BadInput, JobLost
from runner.records import JobRecord, JobRecords, now
from runner.remote import places, remote_driver
from runner.remote.cluster_context import _ClusterJob
from runner.remote.remote_job import RemoteJob
from runner.store import Store


def job(folder: Path, **fields: Any) -> RemoteJob:
    """A handle on a job whose record says so."""
    store = Store(folder)
    names = {"job_id": "20260131-1", "table": "t", "columns": ["y"], "versions": ["1"], "functions": ["m:f"], "executor": "cluster"}
    known = {"started_at": now(), "updated_at": now(), "options": {}, "user": "ana", "host": "h", **fields}
    JobRecords(store).save(JobRecord(**names, **known))  # type: ignore[arg-type]
    return RemoteJob(store, "20260131-1")


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"status": "SUBMITTED"}, "its driver starts"),
        ({"status": "QUEUED", "phase": "queue"}, "waits for another job of the column"),
        ({"phase": "plan"}, "planning"),
        ({"phase": "compute", "rows_total": 100}, "waiting for the first worker"),
    ],
)
def test_what_it_does_before_rows_are_computed(tmp_path: Path, fields: dict[str, Any], text: str) -> None:
    assert console.describe(job(tmp_path, **fields).progress()) == text


def test_the_rate_is_that_of_the_whole_job_and_not_since_it_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.monotonic", lambda: 1000.0)
    counts = {"rows_total": 10_000, "rows_done": 3000, "rows_resumed": 1000, "workers": 4}
    found = job(tmp_path, phase="compute", seconds={"plan": 3.0, "compute": 200.0}, **counts).progress()
    assert console.describe(found) == "3,000 of 10,000 rows (30%), 10 rows/s, 12 min left, 4 workers"


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ("Job supervisor actor died.", "Job supervisor actor died."),
        (
            "Job entrypoint command failed with exit code 1, last available logs (truncated to 20,000 chars):\n"
            'Traceback (most recent call last):\n  File "a.py", line 1\nOSError: [Errno 28]  No space left\n\n',
            "Job entrypoint command failed with exit code 1: OSError: [Errno 28] No space left",
        ),
    ],
)
def test_of_what_ray_says_of_a_job_a_line_is_left(said: str, line: str) -> None:
    assert places._in_a_line(said) == line


def test_a_loss_that_is_certain_goes_on_record(tmp_path: Path) -> None:
    job(tmp_path, phase="compute")
    lost = RemoteJob(Store(tmp_path), "20260131-1", lambda: "as Ray says: FAILED, it died", is_certain=True)
    with pytest.raises(JobLost, match="its driver has ended without a word, as Ray says: FAILED, it died; finished work is kept"):
        lost.result(0)
    record = JobRecords(Store(tmp_path)).get("20260131-1")
    assert (record.status, record.error_type) == ("FAILED", "JobLost")
    with pytest.raises(JobLost, match="as Ray says: FAILED, it died"):
        RemoteJob(Store(tmp_path), "20260131-1").result(0)


def test_a_driver_that_is_silent_for_a_minute_is_lost_whatever_its_cluster_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    handle = job(tmp_path, phase="compute")
    assert not handle.done()
    clock[0] += 600  # the storage did not answer
    assert not handle.done()
    for _ in range(10):
        clock[0] += 5
        assert not handle.done()
    clock[0] += 5
    with pytest.raises(JobLost, match="its driver has ended without a word, 65 s ago"):
        handle.result(0)
    assert JobRecords(Store(tmp_path)).get("20260131-1").status == "RUNNING"  # it may only be cut off


def test_a_driver_that_has_not_begun_may_take_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    handle = job(tmp_path, status="SUBMITTED", updated_at=None)
    assert not handle.done()
    clock[0] += 600
    assert not handle.done()


def test_a_driver_refuses_another_python_and_one_without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadInput, match=r"the driver on the cluster runs Python \S+ and its client 3\.9;"):
        remote_driver._check_python("3.9")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        BadInput, match=rf"^`python` is {sys.executable} on the head of the cluster, and Ray is not installed in it"
    ):
        remote_driver._check_python("3.9")


def test_a_job_that_is_looked_at_while_it_is_submitted_is_not_lost(tmp_path: Path) -> None:
    class Place:
        def submit(self, job_id: str, database: str, options: Any) -> None:
            assert not handle.done()  # as whoever shows its progress asks

        def look(self, job_id: str) -> str:
            return "cluster gpu knows of it no more"

    job(tmp_path, status="SUBMITTED", updated_at=None)
    store = Store(tmp_path)
    record = JobRecords(store).get("20260131-1")
    handle = _ClusterJob(store, Place(), record, {})  # type: ignore[arg-type]
    handle.start()
    handle._looked_at = 0.0
    with pytest.raises(JobLost, match="cluster gpu knows of it no more"):
        handle.result(0)


@pytest.mark.parametrize(
    ("mode", "has_token", "then"), [(None, True, "token"), (None, False, None), ("disabled", True, "disabled")]
)
def test_ray_client_sends_the_token_that_is_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str | None, has_token: bool, then: str | None
) -> None:
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_AUTH_MODE", mode or "")
    if mode is None:
        monkeypatch.delenv("RAY_AUTH_MODE")
    if has_token:
        (tmp_path / ".ray").mkdir()
        (tmp_path / ".ray" / "auth_token").write_text("secret")
    places._send_token()
    assert os.environ.get("RAY_AUTH_MODE") == then
