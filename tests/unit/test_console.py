from __future__ import annotations

import datetime as dt
import json

import pytest

from runner import console
from runner.backfill.driver import Meter
from runner.errors import BadInput
from runner.watch import settings


def computing(**counts: int) -> Meter:
    return Meter(phase="compute", compute_started=0.0, workers=counts.pop("workers", 2), **counts)


@pytest.mark.parametrize(
    ("meter", "text"),
    [
        (Meter(), "planning"),
        (Meter(phase="start"), "starting workers"),
        (Meter(phase="commit", compute_started=0.0), "publishing"),
        (Meter(phase="done", compute_started=0.0), "publishing"),
        (Meter(phase="done"), "done"),
    ],
)
def test_a_phase_without_rows_is_named(meter: Meter, text: str) -> None:
    assert console.describe(meter) == text


@pytest.mark.parametrize(
    ("meter", "text"),
    [
        (computing(rows_total=4000, rows_done=1000), "1,000 of 4,000 rows (25%), 1 rows/s, 50 min left, 2 workers"),
        (computing(rows_total=5000, rows_done=4950, workers=1), "4,950 of 5,000 rows (99%), 5 rows/s, 10 s left, 1 worker"),
        (computing(rows_total=100_000, rows_done=1000), "1,000 of 100,000 rows (1%), 1 rows/s, 27.5 h left, 2 workers"),
        (computing(rows_total=40, rows_done=39, rows_failed=1), "39 of 40 rows (100%), 0 rows/s, 2 workers, 1 failed"),
        (computing(rows_total=40), "0 of 40 rows (0%), 0 rows/s, 2 workers"),
        (
            computing(rows_total=5000, rows_done=3000, rows_resumed=2000),
            "3,000 of 5,000 rows (60%), 1 rows/s, 33 min left, 2 workers",
        ),
        (computing(), "0 of 0 rows (0%), 0 rows/s, 2 workers"),
    ],
)
def test_rows_rate_time_left_and_failures_are_told(meter: Meter, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.monotonic", lambda: 1000.0)
    assert console.describe(meter) == text


def test_a_line_goes_to_stderr_only(capsys: pytest.CaptureFixture[str]) -> None:
    console.say("hello")
    assert capsys.readouterr() == ("", "runner: hello\n")


def test_a_line_is_json_where_that_is_asked_for(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFILL_LOG", "json")
    console.say("hello", job_id="j", rows_done=3)
    out, line = capsys.readouterr()
    assert out == ""
    said = json.loads(line)
    assert dt.datetime.fromisoformat(said.pop("time")).tzinfo is not None
    assert said == {"level": "INFO", "logger": "infill", "message": "hello", "job_id": "j", "rows_done": 3}


@pytest.mark.parametrize(
    ("name", "value", "known"), [("INFILL_LOG", "yaml", "'text' or 'json'"), ("INFILL_METRICS", "yes", "'0' or '1'")]
)
def test_settings_that_cannot_be_are_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str, known: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(BadInput, match=rf"{name}='{value}': it is {known}, or not set"):
        settings.given()


def test_settings_that_are_given_go_to_drivers_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("INFILL_METRICS", raising=False)
    monkeypatch.setenv("INFILL_LOG", "json")
    assert settings.given() == {"INFILL_LOG": "json"}


def test_a_job_shorter_than_a_line_is_followed_silently(capsys: pytest.CaptureFixture[str]) -> None:
    with console.following("label", None):  # type: ignore[arg-type]  # never asked
        pass
    assert capsys.readouterr() == ("", "")
