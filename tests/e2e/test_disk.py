"""A disk that takes no writes, and one that is full: one message, and the table as it was."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner import Connection
from tests.e2e.helpers import files, make_table, run, values

FUNCTIONS = """
import runner

@runner.udf
def text(x: int) -> str:
    return f"{x:01000d}"
"""

# Root may write anywhere unless it gives that right up, for itself and for what it executes.
WITHOUT_ROOTS_RIGHTS = """
import ctypes, os, sys
if os.geteuid() == 0:
    ctypes.CDLL(None, use_errno=True).prctl(24, 1, 0, 0, 0)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""

WITH_FULL_DISK = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""

BACKFILL = ("-m", "runner", "backfill", "db", "t", "text", "--cluster", "inline")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "features.py").write_text(FUNCTIONS)
    return tmp_path


@pytest.fixture
def read_only(db: Connection) -> Iterator[Path]:
    table = make_table(db, 1000)
    folders = [Path(db.uri), *(path for path in Path(db.uri).rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    yield Path(table.uri)
    for folder in folders:
        folder.chmod(0o755)


def test_read_only_database(project: Path, read_only: Path) -> None:
    before = files(project / "db")
    done = run(["-c", WITHOUT_ROOTS_RIGHTS, *BACKFILL, "--udf", "features:text"], project)
    assert done.returncode == 1, done.stderr
    assert "ermission denied" in done.stderr
    assert str(project / "db") in done.stderr
    assert "Traceback" not in done.stderr
    assert files(project / "db") == before


def test_column_of_a_read_only_database(project: Path, db: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    table = make_table(db, 1000)
    monkeypatch.syspath_prepend(project)
    monkeypatch.delitem(sys.modules, "features", raising=False)
    table.add_columns({"text": importlib.import_module("features").text})
    folders = [Path(db.uri), *(path for path in Path(db.uri).rglob("*") if path.is_dir())]
    before = files(db.uri)
    for folder in folders:
        folder.chmod(0o555)
    try:
        done = run(["-c", WITHOUT_ROOTS_RIGHTS, *BACKFILL], project)
    finally:
        for folder in folders:
            folder.chmod(0o755)
    assert done.returncode == 1, done.stderr
    assert "runner: cannot write" in done.stderr
    assert "ermission denied" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert files(db.uri) == before


def test_full_disk(project: Path, db: Connection) -> None:
    """A file may take 100 KB here, the column takes 1 MB; a full disk refuses in the same place."""
    table = make_table(db, 1000)
    done = run(["-c", WITH_FULL_DISK, *BACKFILL, "--udf", "features:text"], project)
    assert done.returncode == 1, done.stderr
    assert "File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert values(table, "text") == [None] * 1000
    again = run(BACKFILL, project)
    assert again.returncode == 0, again.stderr
    assert values(table, "text") == [f"{i:01000d}" for i in range(1000)]
    assert {name.split("/")[0] for name in files(Path(db.uri) / "_runner")} == {"jobs"}
