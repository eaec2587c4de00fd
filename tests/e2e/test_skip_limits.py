"""At most so many rows may be skipped; beyond, the job ends and finished work is kept."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from runner import Connection, Context
from runner.errors import BackfillFailed, BadInput
from tests.e2e.helpers import by_x, calls, failing_while, make_table, values

ROWS = 200


@pytest.mark.parametrize("limit", ["skip:3", "skip:1.5%", "retry:0,skip:3"])
def test_so_many_rows_may_fail(inline: Connection, log: Path, tmp_path: Path, limit: str) -> None:
    (tmp_path / "flag").touch()
    table = make_table(inline, ROWS, rows_per_fragment=50)
    table.add_columns({"y": failing_while(tmp_path / "flag", [7, 60, 190], log, on_error=limit)})
    result = table.backfill("y", progress=False)
    assert (result.rows_done, result.rows_skipped) == (ROWS - 3, 3)
    assert by_x(table, "y") == {x: None if x in (7, 60, 190) else 2 * x for x in range(ROWS)}


@pytest.mark.parametrize(("limit", "allowed"), [("skip:2", 2), ("skip:1%", 2), ("skip:1.4%", 2)])
def test_one_more_ends_the_job_and_the_next_goes_on(
    inline: Connection, log: Path, tmp_path: Path, limit: str, allowed: int
) -> None:
    flag = tmp_path / "flag"
    flag.touch()
    table = make_table(inline, ROWS, rows_per_fragment=50)
    table.add_columns({"y": failing_while(flag, [7, 60, 110, 190], log, on_error=limit)})
    with pytest.raises(BackfillFailed) as caught:
        table.backfill("y", progress=False)
    assert str(caught.value) == (
        f"3 of 200 rows failed, on_error={limit!r} allows {allowed}; one of them: ValueError: no value for 7. Finished work is kept"
    )
    assert [error.row_address for error in caught.value.errors] == [7, (1 << 32) | 10, (2 << 32) | 10]
    assert set(values(table, "y")) == {None}
    assert Counter(calls(log)) == Counter(range(150))
    (record,) = inline.jobs()
    assert (record.status, record.result) == ("FAILED", {})
    flag.unlink()
    log.unlink()
    result = table.backfill("y", progress=False, on_error="skip:50")
    assert (result.rows_done, result.rows_skipped, result.rows_resumed) == (ROWS - 2, 2, 98)
    assert set(calls(log)) == set(range(100, 200))


def test_what_an_earlier_run_skipped_counts(inline: Connection, log: Path, tmp_path: Path) -> None:
    (tmp_path / "flag").touch()
    table = make_table(inline, ROWS, rows_per_fragment=50)
    table.add_columns({"y": failing_while(tmp_path / "flag", [7, 8, 60, 61, 110], log, on_error="skip:4")})
    with pytest.raises(BackfillFailed, match="5 of 200 rows failed"):
        table.backfill("y", progress=False)
    log.unlink()
    with pytest.raises(BackfillFailed, match="4 of 200 rows failed, on_error='skip:3' allows 3"):
        table.backfill("y", progress=False, on_error="skip:3")
    assert calls(log) == []
    assert table.backfill("y", progress=False, on_error="skip:5").rows_skipped == 5


def test_a_limit_holds_over_all_workers(db: Connection, ray_session: Context, log: Path, tmp_path: Path) -> None:
    (tmp_path / "flag").touch()
    bad = range(0, ROWS, 4)
    table = make_table(db, ROWS, rows_per_fragment=10)
    table.add_columns({"y": failing_while(tmp_path / "flag", bad, log, on_error="skip:49")})
    with pytest.raises(BackfillFailed, match="50 of 200 rows failed, on_error='skip:49' allows 49"):
        table.backfill("y", progress=False)
    assert set(values(table, "y")) == {None}
    assert table.backfill("y", progress=False, on_error="skip:50").rows_skipped == 50


def test_a_limit_of_nothing_is_refused(inline: Connection, log: Path, tmp_path: Path) -> None:
    table = make_table(inline, 10)
    table.add_columns({"y": failing_while(tmp_path / "flag", [], log)})
    with pytest.raises(BadInput, match="on_error='skip:0': a limit is a whole number of rows above 0"):
        table.backfill("y", progress=False, on_error="skip:0")
