"""Ten million rows in a hundred fragments under a memory limit, while another process writes. Run with ``-m slow``."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pytest
from faults_cgroup import Group, limited
from faults_processes import HERE, cli, spawned, wait_until

ROWS, FRAGMENTS = 10_000_000, 100
LIMIT = 1 << 30


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="faults-") as name:
        yield Path(name)


@pytest.fixture
def group() -> Iterator[Group]:
    with contextlib.ExitStack() as stack:
        try:
            made = stack.enter_context(limited(LIMIT))
        except OSError as exc:
            pytest.skip(f"no memory cgroup can be made here: {exc}")
        yield made


def batches() -> Iterator[Any]:
    size = ROWS // FRAGMENTS
    for start in range(0, ROWS, size):
        yield pa.record_batch({"row": pa.array(np.arange(start, start + size))})


def wrong(uri: str, rows: int) -> int:
    """Rows, of the first so many, without their value."""
    table = lance.dataset(uri).to_table(columns=["row", "out"], limit=rows)
    row, out = table["row"].to_numpy(), table["out"]
    assert np.array_equal(row, np.arange(rows))
    return int(out.null_count or (out.to_numpy() != 3 * row + 1).sum())


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ten_million_rows_under_a_limit_with_appends_meanwhile(folder: Path, group: Group) -> None:
    uri = f"{folder}/db/t.lance"
    lance.write_dataset(batches(), uri, schema=pa.schema({"row": pa.int64()}), max_rows_per_file=ROWS // FRAGMENTS)
    assert len(lance.dataset(uri).get_fragments()) == FRAGMENTS
    backfill = cli("backfill", f"{folder}/db", "t", "out", "--udf", "fault_functions:tripled", "--json")
    with spawned([sys.executable, str(HERE / "faults_appender.py"), uri, str(ROWS), str(folder)], folder) as appender:
        with spawned(group.command(backfill), folder) as child:
            wait_until((folder / "appended").exists, "rows are appended", child=appender)
            result = child.result(400)
            progress = child.text()
        (folder / "stop").touch()
        appended = appender.result()["rows"]
    between = result["version_after"] - result["version_before"] - 1
    print(progress)
    print({key: result[key] for key in ("rows_done", "workers", "bytes_written", "seconds", "version_before", "version_after")})
    print(f"{appended} rows appended, {between} commits of them between the read and the commit")
    print(f"limit {group.limit >> 20} MB; processes {group.peak >> 20} MB, with page cache {group.charged() >> 20} MB at most")
    assert group.kills() == 0
    assert between >= 1
    covered = result["rows_done"]
    assert ROWS <= covered < ROWS + appended
    assert wrong(uri, covered) == 0
    assert lance.dataset(uri).count_rows() == ROWS + appended
    assert lance.dataset(uri).count_rows("out IS NULL") == ROWS + appended - covered
    with spawned(group.command(cli("backfill", f"{folder}/db", "t", "out", "--json")), folder) as child:
        second = child.result()
    print({key: second[key] for key in ("rows_done", "rows_valid", "seconds")})
    assert (second["rows_done"], second["rows_valid"]) == (ROWS + appended - covered, covered)
    assert wrong(uri, ROWS + appended) == 0
    assert group.kills() == 0


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ten_million_rows_under_a_limit_with_every_kind_of_writer_meanwhile(folder: Path, group: Group) -> None:
    uri = f"{folder}/db/t.lance"
    lance.write_dataset(batches(), uri, schema=pa.schema({"row": pa.int64()}), max_rows_per_file=ROWS // FRAGMENTS)
    backfill = cli("backfill", f"{folder}/db", "t", "out", "--udf", "fault_functions:tripled", "--json")
    with spawned([sys.executable, str(HERE / "faults_writer.py"), uri, str(ROWS), str(folder)], folder) as writer:
        with spawned(group.command(backfill), folder) as child:
            wait_until(lambda: any(Path(f"{folder}/db/_runner").rglob("done.json")), "a fragment is finished", child=child)
            (folder / "begin").touch()
            result = child.result(500)
        wait_until((folder / "written").exists, "everything was written once", child=writer)
        (folder / "stop").touch()
        done = writer.result()
    print(done)
    print({key: result[key] for key in ("rows_done", "rows_resumed", "replans", "seconds", "version_before", "version_after")})
    print(f"limit {group.limit >> 20} MB; processes {group.peak >> 20} MB, with page cache {group.charged() >> 20} MB at most")
    assert group.kills() == 0
    assert len(result["replans"]) >= 1
    assert done["compact"] >= 1
    table = lance.dataset(uri).to_table(columns=["row", "out"], filter="out IS NOT NULL")
    assert len(table) > 0.99 * ROWS
    assert np.array_equal(table["out"].to_numpy(), 3 * table["row"].to_numpy() + 1)
    with spawned(group.command(cli("backfill", f"{folder}/db", "t", "out", "--json")), folder) as child:
        second = child.result()
    print({key: second[key] for key in ("rows_done", "rows_valid", "seconds")})
    assert lance.dataset(uri).count_rows("out IS NULL OR out <> 3 * row + 1") == 0
    assert second["rows_done"] < 0.02 * ROWS
    assert group.kills() == 0
