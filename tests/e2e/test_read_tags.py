"""What keeps a clean-up in another process from taking away what a job reads."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from runner import Connection, udf
from runner.read_tags import ReadTags
from tests.e2e.helpers import ROOT, Gate, append, calls, files, log_call, make_table, numbers, pass_gate, run, run_script, values


def clean_up_elsewhere(uri: str, folder: Path) -> int:
    """Versions left by another process that compacts the table and takes everything old away."""
    source = f"""
import datetime as dt, lance
lance.dataset({uri!r}).optimize.compact_files()
for _ in range(2):
    lance.dataset({uri!r}).cleanup_old_versions(dt.timedelta(0), delete_unverified=True, error_if_tagged_old_versions=False)
print(len(lance.dataset({uri!r}).versions()))
"""
    return int(run_script(source, folder, PYTHONPATH=str(ROOT)))


def test_a_clean_up_elsewhere_takes_nothing_away(inline: Connection, gate: Gate, log: Path, tmp_path: Path) -> None:
    folder, path = str(gate.folder), str(log)

    @udf
    def double(x: int) -> int:
        log_call(path, x)
        if x == 35:
            pass_gate(folder)
        return 2 * x

    table = make_table(inline, 100, rows_per_fragment=30)
    table.add_columns({"double": double})
    job = table.backfill_async("double")
    gate.wait()
    try:
        assert list(table.to_lance().tags.list()) == [f"infill-{job.job_id}-0"]
        assert clean_up_elsewhere(table.uri, tmp_path) == 2
    finally:
        gate.open()
    assert job.result(60).rows_done == 100
    assert values(table, "double") == [2 * x for x in range(100)]
    assert calls(log) == list(range(100))
    assert table.to_lance().tags.list() == {}
    assert files(Path(inline.uri) / "_runner" / "staging") == {}


def test_a_job_with_nothing_to_do_tags_nothing(inline: Connection, log: Path) -> None:
    table = make_table(inline, 10)
    table.add_columns({"double": _double})
    table.backfill("double")
    before = files(table.uri)
    assert table.backfill("double").rows_done == 0
    assert files(table.uri) == before


def test_a_dead_jobs_work_is_taken_over_after_a_compaction_and_its_tag_collected(
    inline: Connection, log: Path, tmp_path: Path
) -> None:
    """The process dies, then the table is compacted. The next job finds the rows by the version that the dead one had tagged."""
    table = make_table(inline, 100, rows_per_fragment=30)
    (tmp_path / "feature.py").write_text(
        f"""
import os
from runner import udf
from tests.e2e.helpers import log_call


@udf(version="1")
def double(x: int) -> int:
    log_call({str(log)!r}, x)
    if x == 75 and os.path.exists({str(tmp_path / "deadly")!r}):
        os._exit(9)
    return 2 * x
"""
    )
    (tmp_path / "deadly").touch()
    environment = {"PYTHONPATH": f"{ROOT}:{tmp_path}"}
    first = f"""
import runner, feature
db = runner.connect({inline.uri!r})
table = db.open_table("t")
table.add_columns({{"double": feature.double}})
with db.context("inline"):
    table.backfill("double", progress=False)
"""
    assert run(["-c", first], tmp_path, **environment).returncode == 9
    (tmp_path / "deadly").unlink()
    second = f"""
import runner
db = runner.connect({inline.uri!r})
table = db.open_table("t")
tags = list(table.to_lance().tags.list())
table.to_lance().optimize.compact_files()
with db.context("inline"):
    result = table.backfill("double", progress=False)
print(len(tags), len(table.to_lance().tags.list()), result.rows_done)
"""
    assert run_script(second, tmp_path, **environment).split() == ["1", "0", "100"]
    seen = calls(log)
    assert set(seen) == set(range(100))
    assert [x for x in range(60) if seen.count(x) > 1] == []  # two fragments were whole
    assert values(table, "double") == [2 * x for x in range(100)]


def test_a_living_jobs_tag_is_left_alone(inline: Connection, gate: Gate) -> None:
    folder = str(gate.folder)

    @udf
    def slow(x: int) -> int:
        if x == 5:
            pass_gate(folder)
        return x

    table = make_table(inline, 10)
    table.add_columns({"slow": slow, "double": _double})
    job = table.backfill_async("slow")
    gate.wait()
    try:
        dead = "infill-20200101-000000-0000000-0"
        table.to_lance().tags.create(dead, 1)
        table.to_lance().tags.create("release", 1)
        append(table, numbers(10, 12))
        table.backfill("double")
        assert set(table.to_lance().tags.list()) == {"release", f"infill-{job.job_id}-0"}
    finally:
        gate.open()
    job.result(60)
    assert set(table.to_lance().tags.list()) == {"release"}


def test_a_tag_that_was_made_though_the_answer_was_lost_is_held(inline: Connection) -> None:
    table = make_table(inline, 5)
    asked, asked_again = (ReadTags(inline.store, table.to_lance(), "t", "20260101-000000-0000000") for _ in range(2))
    asked.hold(1)
    asked_again.hold(1)
    assert {name: tag["version"] for name, tag in table.to_lance().tags.list().items()} == {"infill-20260101-000000-0000000-0": 1}
    asked_again.release()
    assert table.to_lance().tags.list() == {}
    with pytest.raises(ValueError, match="77"):
        asked_again.hold(77)


def test_the_tag_goes_with_a_job_that_fails(inline: Connection) -> None:
    @udf
    def broken(x: int) -> int:
        raise ValueError("always")

    table = make_table(inline, 5)
    table.add_columns({"y": broken})
    with pytest.raises(Exception, match="always"):
        table.backfill("y")
    assert table.to_lance().tags.list() == {}
    table.to_lance().cleanup_old_versions(dt.timedelta(0))


@udf
def _double(x: int) -> int:
    return 2 * x
