"""A database that cannot be written, and one whose disk runs full."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import fault_functions
import lance
import pyarrow as pa
import pytest
from faults_processes import cli, run_cli, spawned
from faults_tables import Subject, assert_untouched, make, unreferenced

import runner

NOBODY = 65534
MB = 1 << 20


PROGRESS = re.compile(
    r"runner: (no context is open|out: (planning|starting workers|waiting for the first worker|publishing|[0-9,]+ of ))"
)


def one_line(text: str) -> str:
    """The only message beside lines of progress."""
    lines = [line for line in text.splitlines() if not PROGRESS.match(line)]
    assert len(lines) == 1, text
    assert lines[0].startswith("runner: ")
    return lines[0]


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users can enter; pytest's own they cannot."""
    with tempfile.TemporaryDirectory(prefix="faults-") as name:
        os.chmod(name, 0o755)
        yield Path(name)


@pytest.mark.parametrize("cluster", ["inline", "local"])
def test_a_read_only_database_is_one_message(open_folder: Path, tmp_path: Path, cluster: str) -> None:
    if os.getuid() != 0 or not shutil.which("setpriv"):
        pytest.skip("only root, with setpriv, can run a process as a user who may not write")
    subject = make(open_folder, 1000, 2)
    before = sorted(path for path in open_folder.rglob("*"))
    user = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    command = [*user, *cli("backfill", str(subject.database), "t", "out", "--cluster", cluster)]
    with spawned(command, tmp_path, {"HOME": "/nonexistent"}) as child:
        assert child.wait() == 1, child.text()
    message = one_line(child.text())
    assert message.startswith(f"runner: cannot write {subject.database}/_runner/")
    assert "Permission denied" in message
    assert_untouched(subject)
    assert sorted(path for path in open_folder.rglob("*")) == before


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"no small disk can be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        lazily = 2
        ctypes.CDLL(None, use_errno=True).umount2(os.fsencode(folder), lazily)


@contextlib.contextmanager
def filled(folder: Path, leave: int) -> Iterator[None]:
    """Leave so many bytes free."""
    ballast = folder / "ballast"
    free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, free - leave)
    yield
    ballast.unlink()


@pytest.mark.parametrize(("cluster", "leave"), [("inline", 0), ("inline", 3 * MB), ("inline", 15 * MB), ("local", 8 * MB)])
def test_a_full_disk_is_one_message_and_the_next_run_completes(small_disk: Path, tmp_path: Path, cluster: str, leave: int) -> None:
    rows = 20_000  # of 1 KiB each: 20 MB of parts and 20 MB of column files
    subject = Subject(small_disk / "db", tmp_path / "calls.log", rows)
    lance.write_dataset(pa.table({"row": pa.array(range(rows), pa.int64())}), subject.uri, max_rows_per_file=5000)
    runner.connect(subject.database).open_table("t").add_columns({"out": fault_functions.kilobyte})
    command = ["backfill", str(subject.database), "t", "out", "--cluster", cluster]
    with filled(small_disk, leave):
        with spawned(cli(*command), tmp_path) as child:
            assert child.wait() == 1, child.text()
        message = one_line(child.text())
        assert "No space left on device" in message
        assert str(subject.database) in message or "out" in message
        assert_untouched(subject)
        assert unreferenced(subject) == set()
    result = run_cli(tmp_path, *command)
    assert (result["rows_done"], result["version_after"]) == (rows, 3)
    values = subject.dataset().to_table(columns=["out"])["out"].to_pylist()
    assert values == [fault_functions.kilobyte(row) for row in range(rows)]
    assert list((subject.database / "_runner").rglob("*.lance*")) == []
    assert unreferenced(subject) == set()
