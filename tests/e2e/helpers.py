"""What the end-to-end tests share: small tables, call logs, gates that hold a function, and looks at what is on disk."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lance
import pyarrow as pa

from runner import UDF, Connection, Table, udf

ROOT = Path(__file__).parents[2]
WAIT_SECONDS = 60.0


def make_table(
    db: Connection,
    rows: int = 100,
    *,
    name: str = "t",
    rows_per_fragment: int | None = None,
    data: pa.Table | None = None,
    **options: Any,
) -> Table:
    """A table with ``x`` = 0, 1, 2, ... and ``s`` = its text, or of other data, in fragments of so many rows."""
    content = numbers(0, rows) if data is None else data
    lance.write_dataset(content, f"{db.uri}/{name}.lance", max_rows_per_file=rows_per_fragment or 1 << 20, **options)
    return db.open_table(name)


def numbers(start: int, stop: int) -> pa.Table:
    return pa.table({"x": pa.array(range(start, stop), pa.int64()), "s": [f"row {i}" for i in range(start, stop)]})


def append(table: Table, data: pa.Table) -> None:
    lance.write_dataset(data, table.uri, mode="append")


def values(table: Table, column: str) -> list[Any]:
    """A column in the table's order."""
    return list(table.to_arrow([column]).column(column).to_pylist())


def by_x(table: Table, column: str) -> dict[int, Any]:
    """A column's values by their row's ``x``."""
    rows = table.to_arrow(["x", column])
    return dict(zip(rows.column("x").to_pylist(), rows.column(column).to_pylist(), strict=True))


def version(table: Table) -> int:
    return int(table.to_lance().version)


# -- functions under test


def log_call(log: str, value: Any) -> None:
    """One line for one call; appends of a few bytes are atomic, from whichever process."""
    fd = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(fd, f"{value}\n".encode())
    finally:
        os.close(fd)


def calls(log: Path) -> list[int]:
    """The logged values, sorted."""
    return sorted(int(line) for line in log.read_text().split()) if log.exists() else []


def doubling(log: Path, **options: Any) -> UDF:
    """``2 * x``, with every call in the log."""
    path = str(log)

    def double(x: int) -> int:
        log_call(path, x)
        return 2 * x

    return udf(**options)(double) if options else udf(double)


def failing_while(flag: Path, rows: Sequence[int], log: Path, **options: Any) -> UDF:
    """``2 * x``, but a ValueError on some rows for as long as the flag file is there."""
    flag_path, log_path, bad = str(flag), str(log), frozenset(rows)

    def fragile(x: int) -> int:
        log_call(log_path, x)
        if x in bad and os.path.exists(flag_path):
            raise ValueError(f"no value for {x}")
        return 2 * x

    return udf(**options)(fragile) if options else udf(fragile)


def gated(gate: Gate, at: int = 0, function: Callable[[int], int] = lambda x: 2 * x) -> UDF:
    """``2 * x``, that stops at one row until the gate opens."""
    folder = str(gate.folder)

    def waiting(x: int) -> int:
        if x == at:
            pass_gate(folder)
        return function(x)

    return udf(waiting)


def eventually(check: Callable[[], bool], seconds: float = WAIT_SECONDS) -> bool:
    """Whether something that another process is about to do is done in time."""
    end = time.monotonic() + seconds
    while not (found := check()) and time.monotonic() < end:
        time.sleep(0.05)
    return found


def pass_gate(folder: str) -> None:
    """Tell that the function is here and wait to be let through; in the function under test."""
    with open(f"{folder}/arrived", "wb", buffering=0) as arrived:
        arrived.write(b"x")
    with open(f"{folder}/opened", "rb", buffering=0) as opened:
        opened.read(1)


class Gate:
    """Holds a function under test at one row, in any process, by two FIFOs; nothing polls and nothing sleeps."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        for name in ("arrived", "opened"):
            os.mkfifo(folder / name)
        self._arrived, self._opened = (os.open(folder / name, os.O_RDWR) for name in ("arrived", "opened"))

    def wait(self) -> None:
        """Until the function stands at the gate."""
        ready, _, _ = select.select([self._arrived], [], [], WAIT_SECONDS)
        assert ready, "the function did not get to the gate"
        os.read(self._arrived, 1)

    def open(self) -> None:
        """Let everybody through, from now on."""
        os.write(self._opened, b"x" * 1000)

    def close(self) -> None:
        self.open()
        os.close(self._arrived)
        os.close(self._opened)


# -- looks at the disk


def files(folder: Path | str, *, without_records: bool = False) -> dict[str, int]:
    """Every file below a folder and when it was written."""
    root = Path(folder)
    found = {str(path.relative_to(root)): path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}
    return {name: time for name, time in found.items() if not (without_records and name.startswith("_runner/jobs/"))}


def column_files(table: Table, column: str) -> list[str]:
    """The data file that holds a column in each fragment."""
    dataset = table.to_lance()
    (field_id,) = [field.id() for field in dataset.lance_schema.fields() if field.name() == column]
    return [str(file.path) for fragment in dataset.get_fragments() for file in fragment.metadata.files if field_id in file.fields]


# -- other processes


def run(args: Sequence[str], cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A Python process with nothing of this one's Ray."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "PYTEST_"))}
    return subprocess.run(
        [sys.executable, *args], cwd=cwd, env={**inherited, **environment}, capture_output=True, text=True, timeout=120, check=False
    )


def run_script(source: str, cwd: Path, **environment: str) -> str:
    """The output of a Python script that must succeed."""
    path = cwd / "script.py"
    path.write_text(source)
    done = run([str(path)], cwd, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def cli(cwd: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """``python -m runner``, in a folder."""
    return run(["-m", "runner", *args], cwd)


def cli_json(cwd: Path, *args: str) -> Any:
    done = cli(cwd, *args, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
