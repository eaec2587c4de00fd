"""Computed columns: adding them, planning, and what a backfill tells of itself."""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict

import pyarrow as pa
import pytest

from runner import Connection, udf
from tests.e2e.helpers import append, calls, column_files, doubling, files, make_table, numbers, values, version


@udf
def triple(x: int) -> int:
    return 3 * x


class Parts(TypedDict):
    half: float
    text: str


@udf
def parts(x: int) -> Parts:
    return {"half": x / 2, "text": str(x)}


def test_add_columns_by_name(db: Connection) -> None:
    table = make_table(db, 10)
    before = files(Path(table.uri) / "data")
    table.add_columns({"triple": triple})
    assert version(table) == 2
    assert files(Path(table.uri) / "data") == before
    assert table.schema.field("triple").type == pa.int64()
    assert values(table, "triple") == [None] * 10
    assert table.computed_columns()["triple"].inputs == ("x",)
    assert table.computed_columns()["triple"].path == "tests.e2e.test_columns:triple"


def test_add_columns_with_other_inputs(inline: Connection) -> None:
    table = make_table(inline, data=pa.table({"a": [1, 2, 3], "b": [10, 20, 30]}))
    table.add_columns({"of_b": (triple, ["b"]), "of_a": (triple, ["a"])})
    assert version(table) == 2
    table.backfill(["of_a", "of_b"])
    assert values(table, "of_a") == [3, 6, 9]
    assert values(table, "of_b") == [30, 60, 90]


def test_add_columns_from_plain_function(inline: Connection) -> None:
    def negative(x: int) -> int:
        return -x

    table = make_table(inline, 5)
    table.add_columns({"negative": negative})
    table.backfill("negative")
    assert values(table, "negative") == [0, -1, -2, -3, -4]


def test_add_columns_from_sql_is_computed_at_once(db: Connection) -> None:
    table = make_table(db, 4)
    table.add_columns({"next": "x + 1"})
    assert values(table, "next") == [1, 2, 3, 4]
    assert table.computed_columns() == {}


def test_add_columns_of_both_kinds(inline: Connection) -> None:
    table = make_table(inline, 4)
    table.add_columns({"next": "x + 1", "triple": triple})
    table.backfill("triple")
    assert values(table, "next") == [1, 2, 3, 4]
    assert values(table, "triple") == [0, 3, 6, 9]


def test_add_columns_of_several_outputs(inline: Connection) -> None:
    table = make_table(inline, 4)
    table.add_columns(parts)
    assert version(table) == 2
    assert values(table, "half") == [None] * 4
    result = table.backfill(["half", "text"])
    assert result.rows_done == 8
    assert result.version_after == version(table) == 4  # one version a column: Lance replaces files of the same fields only
    assert values(table, "half") == [0.0, 0.5, 1.0, 1.5]
    assert values(table, "text") == ["0", "1", "2", "3"]


def test_one_of_several_outputs_alone(inline: Connection) -> None:
    table = make_table(inline, 4)
    table.add_columns(parts)
    assert table.backfill("text").rows_done == 4
    assert values(table, "text") == ["0", "1", "2", "3"]
    assert values(table, "half") == [None] * 4


def test_field_metadata_and_type_are_the_columns(inline: Connection) -> None:
    table = make_table(inline, 4)

    @udf(data_type=pa.int16(), field_metadata={"unit": "metre"})
    def small(x: int) -> int:
        return x

    table.add_columns({"small": small})
    table.backfill("small")
    field = table.schema.field("small")
    assert (field.type, field.metadata[b"unit"]) == (pa.int16(), b"metre")
    assert values(table, "small") == [0, 1, 2, 3]


def test_plan_tells_the_work_and_changes_nothing(db: Connection) -> None:
    table = make_table(db, 100, rows_per_fragment=30)
    table.add_columns({"triple": triple})
    before = files(db.uri)
    plan = table.plan("triple")
    assert (plan.rows, plan.total_rows, plan.valid_rows, plan.fragments, plan.total_fragments) == (100, 100, 0, 4, 4)
    assert plan.read_version == 2
    assert not plan.is_empty
    assert table.plan("triple", where="x < 40").rows == 40
    assert table.plan("triple", where="x < 40").fragments == 2
    assert "rows to compute" in plan.describe()
    assert files(db.uri) == before


def test_plan_after_the_backfill_is_empty(inline: Connection) -> None:
    table = make_table(inline, 100, rows_per_fragment=30)
    table.add_columns({"triple": triple})
    table.backfill("triple")
    plan = table.plan("triple")
    assert (plan.rows, plan.valid_rows, plan.fragments) == (0, 100, 0)
    assert plan.is_empty


def test_result_figures_of_a_whole_column(inline: Connection) -> None:
    table = make_table(inline, 1000, rows_per_fragment=400)
    table.add_columns({"triple": triple})
    result = table.backfill("triple")
    assert (result.status, result.executor, result.columns, result.table) == ("DONE", "inline", ("triple",), "t")
    assert (result.rows_done, result.rows_valid, result.rows_skipped, result.rows_stale) == (1000, 0, 0, 0)
    assert (result.rows_failed, result.rows_resumed, result.errors) == (0, 0, ())
    assert (result.version_before, result.version_after) == (2, 3)
    assert version(table) == 3
    published = [Path(table.uri) / "data" / name for name in column_files(table, "triple")]
    assert len(published) == 3
    assert result.bytes_written == sum(path.stat().st_size for path in published)
    assert result.bytes_read == 8 * 1000
    assert {"plan", "start", "compute", "commit", "total"} <= result.seconds.keys()
    assert values(table, "triple") == [3 * i for i in range(1000)]


def test_result_is_readable(inline: Connection) -> None:
    table = make_table(inline, 1000)
    table.add_columns({"triple": triple})
    result = table.backfill("triple")
    assert "backfill of triple in t: DONE" in repr(result)
    assert "1,000" in repr(result)
    assert "2 -> 3" in repr(result)
    assert "<table>" in result._repr_html_()
    assert result.to_dict()["rows_done"] == 1000


def test_second_backfill_does_nothing(inline: Connection, log: Path) -> None:
    table = make_table(inline, 50)
    table.add_columns({"double": doubling(log)})
    table.backfill("double")
    before = files(table.uri)
    again = table.backfill("double")
    assert (again.rows_done, again.rows_valid, again.bytes_read, again.bytes_written) == (0, 50, 0, 0)
    assert again.version_before == again.version_after == 3
    assert "nothing to do" in again.title
    assert files(table.uri) == before
    assert calls(log) == list(range(50))


def test_nothing_is_left_staged(inline: Connection) -> None:
    table = make_table(inline, 50, rows_per_fragment=20)
    table.add_columns({"triple": triple})
    table.backfill("triple")
    kept = {name.split("/")[0] for name in files(Path(inline.uri) / "_runner")}
    assert kept == {"jobs"}


def test_empty_table(inline: Connection) -> None:
    table = make_table(inline, data=numbers(0, 0))
    table.add_columns({"triple": triple})
    result = table.backfill("triple")
    assert (result.rows_done, result.version_before, result.version_after) == (0, 2, 2)


def test_job_record_tells_what_ran(inline: Connection) -> None:
    table = make_table(inline, 50)
    table.add_columns({"triple": triple})
    result = table.backfill("triple", where="x < 10")
    (record,) = inline.jobs("t")
    assert record == inline.job(result.job_id[:-2])
    assert (record.job_id, record.status, record.columns, record.executor) == (result.job_id, "DONE", ["triple"], "inline")
    assert (record.rows_done, record.rows_total, record.read_version) == (10, 10, 2)
    assert record.options == {"where": "x < 10"}
    assert record.versions == [triple.version]
    assert record.functions == ["tests.e2e.test_columns:triple"]
    assert record.result["rows_done"] == 10
    assert record.ended_at is not None
    assert inline.jobs("another") == []


def test_appended_rows_only(inline: Connection, log: Path) -> None:
    table = make_table(inline, 50)
    table.add_columns({"double": doubling(log)})
    table.backfill("double")
    first = column_files(table, "double")
    log.unlink()
    append(table, numbers(50, 60))
    result = table.backfill("double")
    assert (result.rows_done, result.rows_valid) == (10, 50)
    assert calls(log) == list(range(50, 60))
    assert values(table, "double") == [2 * i for i in range(60)]
    assert column_files(table, "double")[0] == first[0]


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_batch_size_of_an_arrow_function(inline: Connection, log: Path, batch_size: int) -> None:
    path = str(log)

    @udf(data_type=pa.int64(), batch_size=batch_size)
    def lengths(x: pa.Array) -> pa.Array:
        with open(path, "a") as sink:
            sink.write(f"{len(x)}\n")
        return x

    table = make_table(inline, 50)
    table.add_columns({"copy": lengths})
    table.backfill("copy")
    assert values(table, "copy") == list(range(50))
    assert sum(calls(log)) == 50
    assert max(calls(log)) == min(batch_size, 50)
    assert len(calls(log)) == -(-50 // batch_size)


def test_names_that_paths_do_not_take(inline: Connection) -> None:
    table = make_table(inline, 10, name="größe 1+1")
    table.add_columns({"a b =%20ü": triple})
    assert table.backfill("a b =%20ü").rows_done == 10
    assert values(table, "a b =%20ü") == [3 * x for x in range(10)]
