"""Which rows a backfill computes, and which it leaves alone."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from runner import UDF, Connection, Table, udf
from tests.e2e.helpers import append, by_x, calls, doubling, failing_while, log_call, make_table, numbers, values


def labelled(version: str, log: Path | None = None) -> UDF:
    path = str(log) if log else ""

    @udf(version=version)
    def label(x: int) -> str:
        if path:
            log_call(path, x)
        return f"{version}:{x}"

    return label


def days(db: Connection, rows: int = 200, rows_per_fragment: int = 60) -> Table:
    """Days 0 to 19, so that a range of days is scattered over all fragments."""
    data = numbers(0, rows).append_column("day", pa.array([i % 20 for i in range(rows)], pa.int32()))
    return make_table(db, data=data, rows_per_fragment=rows_per_fragment)


def test_where_computes_exactly_those_rows(inline: Connection, log: Path) -> None:
    table = make_table(inline, 100, rows_per_fragment=30)
    table.add_columns({"double": doubling(log)})
    result = table.backfill("double", where="x >= 20 and x < 40")
    assert (result.rows_done, result.rows_valid) == (20, 0)
    assert calls(log) == list(range(20, 40))
    assert by_x(table, "double") == {i: 2 * i if 20 <= i < 40 else None for i in range(100)}
    assert table.backfill("double").rows_done == 80
    assert calls(log) == list(range(100))
    assert values(table, "double") == [2 * i for i in range(100)]


def test_where_that_matches_nothing(inline: Connection) -> None:
    table = make_table(inline, 10)
    table.add_columns({"label": labelled("v1")})
    result = table.backfill("label", where="x > 1000")
    assert (result.rows_done, result.version_after) == (0, 2)


def test_another_function_for_a_range_of_rows(inline: Connection, log: Path) -> None:
    table = days(inline)
    table.add_columns({"label": labelled("v1")})
    table.backfill("label")
    label_v2 = labelled("v2", log)
    result = table.backfill("label", udf=label_v2, where="day >= 7 and day < 14")
    touched = {i for i in range(200) if 7 <= i % 20 < 14}
    assert result.rows_done == len(touched) == 70
    assert calls(log) == sorted(touched)
    assert by_x(table, "label") == {i: f"v2:{i}" if i in touched else f"v1:{i}" for i in range(200)}


def test_where_again_computes_nothing(inline: Connection, log: Path) -> None:
    table = days(inline)
    table.add_columns({"label": labelled("v1")})
    table.backfill("label")
    table.backfill("label", udf=labelled("v2", log), where="day < 5")
    again = table.backfill("label", udf=labelled("v2", log), where="day < 5")
    assert (again.rows_done, again.rows_valid) == (0, 50)
    assert len(calls(log)) == 50


def test_rows_of_the_older_version_are_told_of(inline: Connection) -> None:
    table = days(inline)
    table.add_columns({"label": labelled("v1")})
    table.backfill("label")
    table.backfill("label", udf=labelled("v2"), where="day >= 7 and day < 14")
    result = table.backfill("label")
    assert (result.rows_done, result.rows_stale, result.rows_valid) == (0, 130, 200)
    assert "stale" in repr(result)
    assert table.plan("label").stale_rows == 130
    assert table.plan("label", stale=True).rows == 130


def test_stale_computes_only_the_older_rows(inline: Connection, log: Path) -> None:
    table = days(inline)
    table.add_columns({"label": labelled("v1")})
    table.backfill("label")
    table.backfill("label", udf=labelled("v2", log), where="day >= 7 and day < 14")
    log.unlink()
    result = table.backfill("label", stale=True)
    assert result.rows_done == 130
    assert calls(log) == [i for i in range(200) if not 7 <= i % 20 < 14]
    assert values(table, "label") == [f"v2:{i}" for i in range(200)]
    again = table.backfill("label", stale=True)
    assert (again.rows_done, again.rows_stale) == (0, 0)


def test_stale_of_a_whole_column(inline: Connection) -> None:
    table = days(inline)
    table.add_columns({"label": labelled("v1")})
    table.backfill("label")
    assert table.backfill("label", udf=labelled("v2")).rows_stale == 200
    assert values(table, "label") == [f"v1:{i}" for i in range(200)]
    assert table.backfill("label", udf=labelled("v2"), stale=True).rows_done == 200
    assert values(table, "label") == [f"v2:{i}" for i in range(200)]
    assert table.backfill("label", stale=True).rows_done == 0


def test_appended_rows_get_the_newest_function(inline: Connection) -> None:
    table = days(inline)
    table.add_columns({"label": labelled("v1")})
    table.backfill("label")
    table.backfill("label", udf=labelled("v2"), where="x < 3")
    append(table, numbers(200, 205).append_column("day", pa.array([0] * 5, pa.int32())))
    table.backfill("label")
    assert by_x(table, "label") == {i: f"v1:{i}" if 3 <= i < 200 else f"v2:{i}" for i in range(205)}


def test_force_computes_what_is_there_already(inline: Connection, log: Path) -> None:
    table = make_table(inline, 30, rows_per_fragment=10)
    table.add_columns({"double": doubling(log)})
    table.backfill("double")
    log.unlink()
    assert table.backfill("double", where="x < 5").rows_done == 0
    assert table.backfill("double", where="x < 5", force=True).rows_done == 5
    assert calls(log) == list(range(5))
    assert table.backfill("double", force=True).rows_done == 30
    assert values(table, "double") == [2 * i for i in range(30)]


def test_scattered_nulls(inline: Connection, log: Path) -> None:
    table = make_table(inline, 100, rows_per_fragment=30)
    table.add_columns({"double": doubling(log)})
    table.backfill("double", where="x % 7 <> 3")
    log.unlink()
    result = table.backfill("double")
    assert (result.rows_done, result.rows_valid) == (14, 86)
    assert calls(log) == [i for i in range(100) if i % 7 == 3]
    assert values(table, "double") == [2 * i for i in range(100)]


def test_scattered_nulls_of_somebody_else(inline: Connection, log: Path) -> None:
    data = pa.table({"x": list(range(40)), "double": [None if i % 5 == 0 else -i for i in range(40)]})
    table = make_table(inline, data=data, rows_per_fragment=15)
    result = table.backfill("double", udf=doubling(log))
    assert result.rows_done == 8
    assert calls(log) == list(range(0, 40, 5))
    assert values(table, "double") == [2 * i if i % 5 == 0 else -i for i in range(40)]


def test_null_results_are_not_computed_again(inline: Connection, log: Path) -> None:
    path = str(log)

    @udf
    def odd_only(x: int) -> int | None:
        log_call(path, x)
        return x if x % 2 else None

    table = make_table(inline, 20, rows_per_fragment=8)
    table.add_columns({"odd": odd_only})
    assert table.backfill("odd").rows_done == 20
    assert values(table, "odd") == [i if i % 2 else None for i in range(20)]
    append(table, numbers(20, 22))
    assert table.backfill("odd").rows_done == 2
    assert calls(log) == list(range(22))


def test_null_results_of_some_rows_are_not_computed_again(inline: Connection, log: Path) -> None:
    path = str(log)

    @udf
    def nothing(x: int) -> int | None:
        log_call(path, x)
        return None

    table = make_table(inline, 20)
    table.add_columns({"none": nothing})
    assert table.backfill("none", where="x < 5").rows_done == 5
    assert table.backfill("none").rows_done == 15
    assert table.backfill("none").rows_done == 0
    assert calls(log) == list(range(20))


def test_null_input_gives_null_without_a_call(inline: Connection, log: Path) -> None:
    data = pa.table({"x": pa.array([1, None, 3, None], pa.int64())})
    table = make_table(inline, data=data)
    table.add_columns({"double": doubling(log)})
    result = table.backfill("double")
    assert (result.rows_done, result.rows_skipped) == (4, 0)
    assert values(table, "double") == [2, None, 6, None]
    assert calls(log) == [1, 3]
    assert table.backfill("double").rows_done == 0


def test_optional_input_is_called_with_none(inline: Connection) -> None:
    @udf
    def known(x: int | None, s: str) -> str:
        return f"{s}={x}"

    data = pa.table({"x": pa.array([1, None, 3], pa.int64()), "s": ["a", "b", None]})
    table = make_table(inline, data=data)
    table.add_columns({"known": known})
    table.backfill("known")
    assert values(table, "known") == ["a=1", "b=None", None]


def test_skipped_rows(inline: Connection, log: Path, tmp_path: Path) -> None:
    flag = tmp_path / "broken"
    flag.touch()
    table = make_table(inline, 100, rows_per_fragment=40)
    table.add_columns({"y": failing_while(flag, [3, 41, 99], log, on_error="skip")})
    result = table.backfill("y")
    assert (result.rows_done, result.rows_skipped, result.status) == (97, 3, "DONE")
    addresses = [3, (1 << 32) | 1, (2 << 32) | 19]
    assert [error.row_address for error in result.errors] == addresses
    assert by_x(table, "y") == {i: None if i in (3, 41, 99) else 2 * i for i in range(100)}

    found = table.errors("y")
    assert [(error.row_address, error.error, error.message) for error in found] == [
        (address, "ValueError", f"no value for {x}") for address, x in zip(addresses, (3, 41, 99), strict=True)
    ]
    assert "raise ValueError" in found[0].traceback
    assert (found[1].fragment_id, found[1].offset) == (1, 1)

    log.unlink()
    flag.unlink()
    assert table.backfill("y").rows_done == 0
    assert calls(log) == []

    listed = ", ".join(str(error.row_address) for error in found)
    again = table.backfill("y", where=f"_rowaddr IN ({listed})")
    assert (again.rows_done, again.rows_skipped) == (3, 0)
    assert calls(log) == [3, 41, 99]
    assert values(table, "y") == [2 * i for i in range(100)]
    assert table.errors("y") == []


def test_rows_that_fail_again_stay_skipped(inline: Connection, log: Path, tmp_path: Path) -> None:
    flag = tmp_path / "broken"
    flag.touch()
    table = make_table(inline, 10)
    table.add_columns({"y": failing_while(flag, [3, 5], log, on_error="skip")})
    table.backfill("y")
    again = table.backfill("y", where="_rowaddr IN (3, 5)")
    assert (again.rows_done, again.rows_skipped) == (0, 2)
    assert [error.offset for error in table.errors("y")] == [3, 5]
    assert by_x(table, "y")[4] == 8


def test_skipped_by_an_option_of_the_call(inline: Connection, log: Path, tmp_path: Path) -> None:
    flag = tmp_path / "broken"
    flag.touch()
    table = make_table(inline, 10)
    table.add_columns({"y": failing_while(flag, [0], log)})
    assert table.backfill("y", on_error="retry:1,skip").rows_skipped == 1
    assert calls(log).count(0) == 2
    assert values(table, "y") == [None, *range(2, 20, 2)]


def test_skipped_rows_of_a_batch_function(inline: Connection) -> None:
    @udf(data_type=pa.int64(), on_error="skip", batch_size=16)
    def fragile(x: pa.Array) -> pa.Array:
        if 5 in x.to_pylist() or 17 in x.to_pylist():
            raise ValueError("five or seventeen")
        return x

    table = make_table(inline, 40)
    table.add_columns({"y": fragile})
    result = table.backfill("y")
    assert (result.rows_done, result.rows_skipped) == (38, 2)
    assert [error.offset for error in table.errors("y")] == [5, 17]
    assert values(table, "y") == [None if i in (5, 17) else i for i in range(40)]
