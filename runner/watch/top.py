"""What runs now: one line a job, from the records of a database alone."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runner.console import duration
from runner.records import JobRecord

if TYPE_CHECKING:
    from rich.table import Table

WINDOW_SECONDS = 30.0
MIN_SECONDS = 4.0  # of two looks for the rate between them; a driver tells every two seconds
ENDED_SHOWN = 5


@dataclass(frozen=True)
class JobLine:
    """A job as `top` shows it.

    Attributes:
        rate: rows a second: of the last half minute where it was watched for long enough, else since it began to compute; None of a
            job that does not compute now.
        seconds_left: at that rate.
    """

    job_id: str
    state: str
    table: str
    columns: list[str]
    phase: str
    rows_done: int
    rows_failed: int
    rows_total: int
    workers: int
    rate: float | None
    seconds_left: float | None
    cluster: str | None
    started_at: str


class Top:
    """Looks at the jobs of a database again and again.

    Args:
        jobs: the latest records, newest first.
        clock: seconds that never go back.
    """

    def __init__(self, jobs: Callable[[], Sequence[JobRecord]], clock: Callable[[], float] = time.monotonic) -> None:
        self._jobs = jobs
        self._clock = clock
        self._seen: dict[str, deque[tuple[float, int]]] = {}

    def look(self) -> list[JobLine]:
        """Jobs that have not ended, newest first, and the last few that have."""
        records = self._jobs()
        running = [record for record in records if not record.is_ended]
        ended = [record for record in records if record.is_ended]
        self._seen = {record.job_id: self._seen.get(record.job_id, deque()) for record in running}
        return [self._line(record) for record in [*running, *ended[:ENDED_SHOWN]]]

    def _line(self, record: JobRecord) -> JobLine:
        rate = self._rate(record) if record.state == "RUNNING" and record.phase == "compute" else None
        left = record.rows_total - record.rows_done - record.rows_failed
        return JobLine(
            job_id=record.job_id,
            state=record.state,
            table=record.table,
            columns=record.columns,
            phase=record.phase,
            rows_done=record.rows_done,
            rows_failed=record.rows_failed,
            rows_total=record.rows_total,
            workers=record.workers,
            rate=rate,
            seconds_left=left / rate if rate and left >= 0 else None,
            cluster=record.cluster,
            started_at=record.started_at,
        )

    def _rate(self, record: JobRecord) -> float | None:
        now, seen = self._clock(), self._seen[record.job_id]
        seen.append((now, record.rows_done))
        while seen[0][0] < now - WINDOW_SECONDS:
            seen.popleft()
        then, rows = seen[0]
        if now - then >= MIN_SECONDS:
            return max(record.rows_done - rows, 0) / (now - then)
        compute = record.seconds.get("compute", 0.0)
        return (record.rows_done - record.rows_resumed) / compute if compute else None


def render(lines: Sequence[JobLine]) -> Table:
    """The lines as a table for a terminal."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    styles = {"RUNNING": "bold cyan", "DONE": "green", "FAILED": "red", "LOST": "bold red", "CANCELLED": "yellow"}
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, caption=None if lines else "no jobs")
    for name in ("job", "column", "state"):
        table.add_column(name, overflow="fold")
    for name in ("rows", "", "failed", "workers", "rows/s", "left"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("cluster", overflow="fold")
    for line in lines:
        share = (line.rows_done + line.rows_failed) / line.rows_total if line.rows_total else 0.0
        state = f"{line.state} {line.phase}" if line.state == "RUNNING" else line.state
        table.add_row(
            line.job_id,
            Text(f"{line.table}.{', '.join(line.columns)}"),
            Text(state, style=styles.get(line.state, "")),
            f"{line.rows_done:,} of {line.rows_total:,}",
            f"{100 * share:.0f}%",
            f"{line.rows_failed:,}" if line.rows_failed else "",
            str(line.workers or ""),
            "" if line.rate is None else f"{line.rate:,.0f}",
            "" if line.seconds_left is None else duration(line.seconds_left),
            Text(line.cluster or ""),
        )
    return table
