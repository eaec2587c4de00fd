"""The only place that prints: a live line on a terminal, a line every few seconds in a log. Always on stderr."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from runner.watch import logs, settings

if TYPE_CHECKING:
    from runner.backfill.driver import Meter
    from runner.jobs import Handle

LIVE_SECONDS = 0.2
LOG_SECONDS = 5.0
_BEGINNINGS = {
    "submit": "its driver starts",
    "queue": "waits for another job of the column",
    "plan": "planning",
    "start": "starting workers",
}


def say(text: str, **fields: Any) -> None:
    """One line for the person who started this; as JSON, where that is asked for, with more fields for programs."""
    print(logs.line(text, **fields) if settings.logs_json() else f"runner: {text}", file=sys.stderr, flush=True)


@contextmanager
def following(title: str, job: Handle) -> Iterator[None]:
    """Show a job's progress while the block runs."""
    ended = threading.Event()
    show = _show_live if sys.stderr.isatty() and not settings.logs_json() else _show_lines
    thread = threading.Thread(target=show, args=(title, job, ended), name="runner-console", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def describe(meter: Meter) -> str:
    """Phase, rows, rate, time left and errors in one line."""
    if meter.compute_started is None:
        return _BEGINNINGS.get(meter.phase, meter.phase)
    if meter.phase in ("commit", "done"):
        return "publishing"
    if not meter.workers:
        return "waiting for the first worker"
    seconds = max(time.monotonic() - meter.compute_started, 1e-9)
    rate = (meter.rows_done - meter.rows_resumed) / seconds
    left = meter.rows_total - meter.rows_done - meter.rows_failed
    percent = 100 * (meter.rows_done + meter.rows_failed) / max(meter.rows_total, 1)
    parts = [f"{meter.rows_done:,} of {meter.rows_total:,} rows ({percent:.0f}%)", f"{rate:,.0f} rows/s"]
    if rate > 0 and left > 0:
        parts.append(f"{duration(left / rate)} left")
    parts.append(f"{meter.workers} worker{'s' * (meter.workers != 1)}")
    if meter.rows_failed:
        parts.append(f"{meter.rows_failed:,} failed")
    return ", ".join(parts)


def _show_lines(title: str, job: Handle, ended: threading.Event) -> None:
    while not ended.wait(LOG_SECONDS):
        meter = job.progress()
        names = ("phase", "rows_done", "rows_failed", "rows_total", "workers")
        say(f"{title}: {describe(meter)}", job_id=job.job_id, **{name: getattr(meter, name) for name in names})


def _show_live(title: str, job: Handle, ended: threading.Event) -> None:
    from rich.console import Console
    from rich.live import Live
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    def render() -> Table:
        meter = job.progress()
        grid = Table.grid(padding=(0, 1))
        bar = ProgressBar(total=max(meter.rows_total, 1), completed=meter.rows_done + meter.rows_failed, width=24)
        grid.add_row(title, bar, describe(meter))
        return grid

    if ended.wait(LIVE_SECONDS):  # not worth a flicker
        return
    with Live(render(), console=Console(stderr=True), transient=True, auto_refresh=False) as live:
        while not ended.wait(LIVE_SECONDS):
            live.update(render(), refresh=True)


def duration(seconds: float) -> str:
    """In the largest unit that leaves a number of two digits or so."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
