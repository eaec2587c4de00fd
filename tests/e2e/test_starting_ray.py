"""Backfills that start, or join, a Ray of their own; each in a process of its own, as a user would run it."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

import runner
from runner import Connection
from tests.e2e.helpers import cli, make_table, run_script, values

# "Local Ray" of https://docs.lancedb.com/geneva/jobs/contexts, as it is there.
SEED_BLOCK = """
from geneva import udf
from geneva.db import Connection

@udf
def filename_len(filename: str) -> int:
    return len(filename)

tbl.add_columns({"filename_len": filename_len})

with Connection.local_ray_context():
    tbl.backfill("filename_len")
"""
IMPORTS = {"from geneva import udf": "from runner import udf", "from geneva.db import Connection": "from runner import Connection"}

BEFORE = """
import ray, runner
tbl = runner.connect("db").open_table("t")
"""
AFTER = """
print(tbl.to_arrow(["filename_len"])["filename_len"].to_pylist(), ray.is_initialized())
"""

JOINING = """
import os, subprocess, sys
import ray, runner

ray.init(address="local", num_cpus=2, include_dashboard=False, logging_level="ERROR")
address = ray.get_runtime_context().gcs_address
child = [sys.executable, "-m", "runner", "backfill", "db", "t", "y", "--udf", "features:double"]
done = subprocess.run(child, env={**os.environ, "RAY_ADDRESS": address}, capture_output=True, text=True, timeout=90)
print(done.returncode, "DONE" in done.stdout)
print(done.stderr, file=sys.stderr)
ray.get(ray.remote(lambda: 1).remote())
print("alive", len(ray.nodes()))

from features import double
table = runner.connect("db").open_table("t")
table.add_columns({"z": double})
print(table.backfill("z").rows_done, ray.is_initialized())
ray.shutdown()
"""


def local_block() -> str:
    block = SEED_BLOCK
    for theirs, ours in IMPORTS.items():
        assert theirs in block
        block = block.replace(theirs, ours)
    assert "geneva" not in block
    return block


def test_block_of_the_seed_page_as_a_script(db: Connection, tmp_path: Path) -> None:
    names = ["a.jpg", "photo.png", "é"]
    make_table(db, data=pa.table({"filename": names}))
    assert run_script(BEFORE + local_block() + AFTER, tmp_path) == "[5, 9, 1] False\n"


@pytest.mark.usefixtures("ray_session")
def test_block_of_the_seed_page_with_ray_running(db: Connection) -> None:
    table = make_table(db, data=pa.table({"filename": ["a.jpg", "photo.png"]}))
    exec(local_block(), {"tbl": table, "__name__": "__main__"})
    assert values(table, "filename_len") == [5, 9]
    assert table.to_lance().version == 3


def test_no_context_starts_ray_says_so_and_stops_it(db: Connection, tmp_path: Path) -> None:
    """By the command line, which finds the function in a module of the working directory; twice, and only once with Ray."""
    (tmp_path / "features.py").write_text("def double(x: int) -> int:\n    return 2 * x\n")
    table = make_table(db, 1000, rows_per_fragment=300)
    done = cli(tmp_path, "backfill", "db", "t", "y", "--udf", "features:double")
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[0] == "runner: no context is open: using Ray on this machine for this backfill"
    assert "rows done     1,000" in done.stdout
    assert values(table, "y") == [2 * i for i in range(1000)]
    (record,) = runner.connect(db.uri).jobs()
    assert record.executor == "local"
    again = cli(tmp_path, "backfill", "db", "t", "y")
    assert (again.returncode, "nothing to do" in again.stdout, again.stderr) == (0, True, "")


def test_ray_of_somebody_else_is_joined_and_not_stopped(db: Connection, tmp_path: Path) -> None:
    (tmp_path / "features.py").write_text("def double(x: int) -> int:\n    return 2 * x\n")
    table = make_table(db, 100, rows_per_fragment=30)
    lines = run_script(JOINING, tmp_path).splitlines()
    assert lines == ["0 True", "alive 1", "100 True"]
    assert values(table, "y") == values(table, "z") == [2 * i for i in range(100)]
