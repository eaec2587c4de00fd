"""One run: a fresh link of the table, the driver as a process of its own, and a check of every value."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from bench import envs, measure, tables
from bench.functions import CALLS_VARIABLE, SLOW_SECONDS
from bench.workloads import TOOLS, Workload

REPO = Path(__file__).resolve().parent.parent
TIMEOUT_S = 180.0
QUIET_S = 4.0
KILL_SHARES = (0.675, 0.35, 0.5)
RESULT = "RESULT "


@dataclass(frozen=True)
class Place:
    """Where a run takes place: the generated table and the folder of the run."""

    table: Path
    rows: int
    folder: Path

    @property
    def database(self) -> Path:
        return self.folder / "db"

    @property
    def expected(self) -> Path:
        return self.table / "expected.feather"


@dataclass(frozen=True)
class Run:
    """One run to be done: round 0 and up measure time, round -1 samples PSS."""

    workload: Workload
    tool: str
    round: int
    place: Place

    @property
    def samples_pss(self) -> bool:
        return self.round < 0


def execute(run: Run) -> dict[str, Any]:
    """Do one run; a flat record of what was measured, with `error` where it failed."""
    shutil.rmtree(run.place.folder, ignore_errors=True)
    run.place.folder.mkdir(parents=True)
    (run.place.folder / "pyproject.toml").touch()
    tables.link(run.place.table, run.place.database)
    os.sync()
    record = {"workload": run.workload.key, "tool": run.tool, "round": run.round}
    temporary = tempfile.mkdtemp(prefix="bench-")
    try:
        record |= _resumed(run, temporary) if run.workload.kind == "resume" else _measured(run, temporary)
        if "error" not in record:
            record["error"] = _wrong(run)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(run.place.database, ignore_errors=True)
    return record


def _command(run: Run) -> list[str]:
    tool = TOOLS[run.tool]
    if run.tool.startswith("ours") and run.workload.key == "W7":
        function = f"bench.peers.ours_functions:{run.workload.function}"
        options = ["--udf", function, "--cluster", tool.mode]
        return [sys.executable, "-m", "runner", "backfill", str(run.place.database), "t", tables.OUTPUT, *options]
    job = {
        "db": str(run.place.database),
        "kind": run.workload.kind,
        "function": run.workload.function,
        "expected": str(run.place.expected),
        "missing": run.workload.missing(run.place.rows),
        "mode": tool.mode,
        "warm": run.workload.warm,
    }
    python = envs.python_of(tool.env) if tool.env else sys.executable
    return [python, "-m", f"bench.peers.drive_{tool.driver}", json.dumps(job)]


def _environment(run: Run, temporary: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "PYTHON", "VIRTUAL_"))}
    return kept | {
        "PYTHONPATH": str(REPO),
        "PYTHONUNBUFFERED": "1",
        "RAY_TMPDIR": temporary,
        "RAY_USAGE_STATS_ENABLED": "0",
        CALLS_VARIABLE: str(run.place.folder / "calls"),
    }


def _spawn(run: Run, temporary: str, attempt: str = "", **watch: Any) -> tuple[measure.Usage, dict[str, Any]]:
    log = run.place.folder / f"log{attempt}.txt"
    usage = measure.run(
        _command(run),
        env=_environment(run, temporary),
        cwd=run.place.folder,
        log=log,
        timeout=TIMEOUT_S,
        pss=run.samples_pss,
        **watch,
    )
    return usage, _reported(log)


def _reported(log: Path) -> dict[str, Any]:
    """The line that a driver prints at its end."""
    for line in reversed(log.read_text(errors="replace").splitlines()):
        if line.startswith(RESULT):
            report: dict[str, Any] = json.loads(line.removeprefix(RESULT))
            return report
    return {}


def _measured(run: Run, temporary: str) -> dict[str, Any]:
    before = _data_bytes(run)
    usage, report = _spawn(run, temporary)
    record = report | _figures(usage, report)
    if usage.returncode != 0:
        return record | {"error": _failure(usage)}
    if not report:
        record["data_bytes"] = _data_bytes(run) - before
    return record


def _data_bytes(run: Run) -> int:
    return sum(path.stat().st_size for path in (run.place.database / "t.lance" / "data").iterdir())


def _figures(usage: measure.Usage, report: dict[str, Any]) -> dict[str, Any]:
    figures: dict[str, Any] = {"wall_s": usage.wall_s, "cpu_s": usage.cpu_s, "foreign_cores": usage.foreign_cores}
    if usage.pss:
        figures["pss_mb"] = usage.pss_peak()
        figures["pss_before_mb"] = usage.pss_before(report.get("started", 0.0))
    return figures


def _failure(usage: measure.Usage) -> str:
    return f"stopped after {TIMEOUT_S:.0f} s" if usage.timed_out else f"exit code {usage.returncode}"


def _wrong(run: Run) -> str | None:
    """What is wrong with the table after the run, or None."""
    expected = tables.expected_values(run.place.expected)
    if run.workload.kind == "small":
        batch = tables.MAKERS["text"](0, tables.TINY_ROWS)
        lengths = [None if text is None else len(text) for text in batch.column("text").to_pylist()]
        return tables.check(run.place.database / "tiny.lance", pa.array(lengths, pa.int32()))
    appended = run.workload.missing(run.place.rows) if run.workload.kind == "append" else 0
    return tables.check(run.place.database / "t.lance", expected, appended)


def _resumed(run: Run, temporary: str) -> dict[str, Any]:
    """Kill the process in the middle, let its workers end, run again, and count the calls."""
    calls = Calls(run.place.folder / "calls")
    target = int(run.place.rows * KILL_SHARES[max(run.round, 0) % len(KILL_SHARES)])
    first, _ = _spawn(run, temporary, "-killed", kill_when=lambda: calls.count() >= target, settled=calls.quiet)
    if first.returncode != -9 or first.timed_out:
        return {"error": f"was not killed in the middle: {_failure(first)}"}
    at_kill = calls.count()
    second, report = _spawn(run, temporary)
    redone = calls.repeated()
    record = report | _figures(second, report)
    record |= {"killed_at": target, "calls_first": at_kill, "calls_second": calls.count() - at_kill, "redone": redone}
    record["redone_s_per_worker"] = redone * SLOW_SECONDS / _workers(run)
    return record if second.returncode == 0 else record | {"error": _failure(second)}


def _workers(run: Run) -> int:
    return 1 if run.tool == "lance" else os.cpu_count() or 1


@dataclass
class Calls:
    """The file in which the slow function notes its calls, eight bytes each."""

    path: Path
    _last: tuple[int, float] = dataclasses.field(default=(-1, 0.0))

    def count(self) -> int:
        return self.path.stat().st_size // 8 if self.path.exists() else 0

    def quiet(self) -> bool:
        """Whether no call has come for a while."""
        count = self.count()
        if count != self._last[0]:
            self._last = (count, time.monotonic())
        return time.monotonic() - self._last[1] > QUIET_S

    def repeated(self) -> int:
        """Calls beyond the first of each row."""
        if not self.path.exists():
            return 0
        counts = Counter(np.fromfile(self.path, np.int64).tolist())
        return sum(count - 1 for count in counts.values())
