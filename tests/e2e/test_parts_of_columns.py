"""A first try on a few rows, a long job published in parts, and the rows that failed."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pytest

from runner import BackfillResult, Connection, Table, udf
from runner.errors import BadInput
from tests.e2e.helpers import Gate, by_x, calls, cli_json, doubling, failing_while, log_call, make_table, pass_gate, values, version


def new_table(db: Connection, log: Path, **options: Any) -> Table:
    table = make_table(db, 100, rows_per_fragment=30)
    table.add_columns({"double": doubling(log, **options)})
    return table


def counts(result: BackfillResult) -> tuple[int, int, int]:
    return result.rows_done, result.rows_left, result.rows_valid


def test_limit_takes_the_first_rows_that_need_work(inline: Connection, log: Path) -> None:
    table = new_table(inline, log)
    assert table.plan("double", limit=40).rows == 40
    assert counts(table.backfill("double", limit=40)) == (40, 60, 0)
    assert by_x(table, "double") == {x: 2 * x if x < 40 else None for x in range(100)}
    assert counts(table.backfill("double", limit=25)) == (25, 35, 40)
    assert calls(log) == list(range(65))
    result = table.backfill("double", limit=1000)
    assert counts(result) == (35, 0, 65)
    assert calls(log) == list(range(100))
    assert values(table, "double") == [2 * x for x in range(100)]
    assert "left" in str(table.backfill("double", force=True, limit=1))


def test_limit_with_where_and_several_columns(inline: Connection, log: Path) -> None:
    @udf
    def negative(x: int) -> int:
        return -x

    table = new_table(inline, log)
    table.add_columns({"negative": negative})
    result = table.backfill(["double", "negative"], where="x % 2 = 1", limit=20)
    assert counts(result) == (40, 60, 0)
    done = list(range(1, 40, 2))
    assert by_x(table, "double") == {x: 2 * x if x in done else None for x in range(100)}
    assert by_x(table, "negative") == {x: -x if x in done else None for x in range(100)}
    assert calls(log) == done
    assert table.backfill(["double", "negative"]).rows_done == 160


def test_a_limited_job_that_failed_is_not_taken_for_a_whole_one(inline: Connection, log: Path, tmp_path: Path) -> None:
    flag = tmp_path / "broken"
    flag.touch()
    table = make_table(inline, 60, rows_per_fragment=30)
    table.add_columns({"y": failing_while(flag, [35], log)})
    with pytest.raises(Exception, match="no value for 35"):
        table.backfill("y", limit=40)
    flag.unlink()
    assert table.backfill("y").rows_done == 60
    assert values(table, "y") == [2 * x for x in range(60)]
    assert calls(log).count(3) == 1


def test_num_fragments(inline: Connection, log: Path) -> None:
    table = new_table(inline, log)
    assert counts(table.backfill("double", num_fragments=2)) == (60, 40, 0)
    assert by_x(table, "double") == {x: 2 * x if x < 60 else None for x in range(100)}
    assert counts(table.backfill("double", num_fragments=1, limit=10)) == (10, 30, 60)
    assert table.backfill("double").rows_done == 30
    assert calls(log) == list(range(100))


def test_commit_every_publishes_whole_versions(inline: Connection, gate: Gate, log: Path) -> None:
    folder, path = str(gate.folder), str(log)

    @udf
    def double(x: int) -> int:
        log_call(path, x)
        if x == 75:
            pass_gate(folder)
        return 2 * x

    table = make_table(inline, 100, rows_per_fragment=20)
    table.add_columns({"double": double})
    before = version(table)
    job = table.backfill_async("double", commit_every=40)
    gate.wait()
    try:
        assert version(table) == before + 1
        assert by_x(table, "double") == {x: 2 * x if x < 40 else None for x in range(100)}
    finally:
        gate.open()
    result = job.result(60)
    assert (result.rows_done, result.version_after) == (100, before + 3)
    assert [by_x_at(table, before + n) for n in (1, 2, 3)] == [40, 80, 100]
    assert calls(log) == list(range(100))


def by_x_at(table: Table, at: int) -> int:
    """Rows with a value at a version."""
    return int(table.to_lance(at).count_rows("double IS NOT NULL"))


def test_commit_every_and_a_compaction(inline: Connection, gate: Gate, log: Path) -> None:
    folder, path = str(gate.folder), str(log)

    @udf
    def double(x: int) -> int:
        log_call(path, x)
        if x == 75:
            pass_gate(folder)
        return 2 * x

    table = make_table(inline, 100, rows_per_fragment=20)
    table.add_columns({"double": double})
    job = table.backfill_async("double", commit_every=20)
    gate.wait()
    table.to_lance().optimize.compact_files()
    gate.open()
    result = job.result(60)
    assert (result.rows_done, len(result.replans)) == (100, 1)
    assert calls(log) == list(range(100))
    assert by_x(table, "double") == {x: 2 * x for x in range(100)}


def test_what_was_published_in_parts_outlives_a_failure(inline: Connection, log: Path, tmp_path: Path) -> None:
    flag = tmp_path / "broken"
    flag.touch()
    table = make_table(inline, 100, rows_per_fragment=20)
    table.add_columns({"y": failing_while(flag, [90], log)})
    with pytest.raises(Exception, match="no value for 90"):
        table.backfill("y", commit_every=30)
    assert by_x(table, "y") == {x: 2 * x if x < 80 else None for x in range(100)}
    flag.unlink()
    assert table.backfill("y").rows_done == 20
    assert calls(log) == sorted([*range(100), 90])


def test_only_failed(inline: Connection, log: Path, tmp_path: Path) -> None:
    flag = tmp_path / "broken"
    flag.touch()
    table = make_table(inline, 100, rows_per_fragment=40)
    table.add_columns({"y": failing_while(flag, [3, 41, 99], log, on_error="skip")})
    table.backfill("y", where="x < 90")
    table.backfill("y", where="x = 99")
    log.unlink()
    assert table.plan("y", only_failed=True).rows == 3
    result = table.backfill("y", only_failed=True, where="x > 3")
    assert (result.rows_done, result.rows_skipped, calls(log)) == (0, 2, [41, 99])
    flag.unlink()
    log.unlink()
    assert table.backfill("y", only_failed=True).rows_done == 3
    assert calls(log) == [3, 41, 99]
    assert table.backfill("y", only_failed=True).rows_done == 0
    assert by_x(table, "y") == {x: None if 90 <= x < 99 else 2 * x for x in range(100)}
    assert table.errors("y") == []


@pytest.mark.parametrize("stable", [False, True])
def test_only_failed_after_a_compaction(inline: Connection, log: Path, tmp_path: Path, stable: bool) -> None:
    flag = tmp_path / "broken"
    flag.touch()
    table = make_table(inline, 100, rows_per_fragment=40, enable_stable_row_ids=stable)
    table.add_columns({"y": failing_while(flag, [3, 41, 99], log, on_error="skip")})
    table.backfill("y")
    table.to_lance().delete("x % 10 = 0")
    table.to_lance().optimize.compact_files()
    messages = [(error.fragment_id, error.offset, error.message) for error in table.errors("y")]
    (fragment,) = table.to_lance().get_fragments()
    at = [2, 36, 89]  # where they are after the deletions
    assert messages == [(fragment.fragment_id, row, f"no value for {x}") for row, x in zip(at, (3, 41, 99), strict=True)]
    table.to_lance().cleanup_old_versions(dt.timedelta(0), delete_unverified=True)
    assert {(error.error, error.offset) for error in table.errors("y")} == {("unknown", row) for row in at}
    flag.unlink()
    log.unlink()
    assert table.backfill("y").rows_done == 0
    assert table.backfill("y", only_failed=True).rows_done == 3
    assert calls(log) == [3, 41, 99]
    assert by_x(table, "y") == {x: 2 * x for x in range(100) if x % 10}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"limit": 0}, r"limit=0 must be a whole number above 0"),
        ({"limit": 2.5}, r"limit=2\.5 must be a whole number"),
        ({"limit": True}, r"limit=True must be a whole number"),
        ({"num_fragments": -1}, r"num_fragments=-1 must be"),
        ({"commit_every": 0}, r"commit_every=0 must be a whole number above 0; leave it out"),
        ({"commit_every": 10, "force": True}, "leave out commit_every"),
        ({"only_failed": True, "stale": True}, "leave out stale and force"),
        ({"only_failed": True, "force": True}, "leave out stale and force"),
    ],
)
def test_bad_options(inline: Connection, log: Path, options: dict[str, Any], message: str) -> None:
    table = new_table(inline, log)
    with pytest.raises(BadInput, match=message):
        table.backfill("double", **options)
    assert (version(table), calls(log), inline.jobs()) == (2, [], [])


def test_from_the_command_line(inline: Connection, tmp_path: Path, log: Path) -> None:
    table = make_table(inline, 20, rows_per_fragment=5)
    (tmp_path / "features.py").write_text(
        "from runner import udf\n\n\n@udf(on_error='skip')\ndef double(x: int) -> int:\n"
        "    if x == 1:\n        raise ValueError('one')\n    return 2 * x\n"
    )
    where = [inline.uri, table.name, "double", "--udf", "features:double", "--cluster", "inline"]
    assert cli_json(tmp_path, "backfill", *where, "--limit", "3")["rows_left"] == 17
    assert cli_json(tmp_path, "plan", *where[:5], "--num-fragments", "2")["rows"] == 7
    assert cli_json(tmp_path, "backfill", *where, "--commit-every", "5")["version_after"] == version(table)
    assert cli_json(tmp_path, "backfill", *where, "--only-failed")["rows_skipped"] == 1
    assert by_x(table, "double") == {x: None if x == 1 else 2 * x for x in range(20)}
