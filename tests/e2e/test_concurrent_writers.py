"""Another writer at work while a backfill computes. A gate holds the function until the other writer is done."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from runner import Connection, Table, udf
from runner.errors import ColumnBusy, CommitConflict
from tests.e2e.helpers import Gate, append, by_x, files, gated, make_table, numbers, values, version


def meanwhile(table: Table, gate: Gate, other: Callable[[], Any], **options: Any) -> Any:
    """A backfill of ``double``, with another writer at work between its reading and its commit."""
    job = table.backfill_async("double", **options)
    gate.wait()
    try:
        other()
    finally:
        gate.open()
    return job.result(60)


def new_table(db: Connection, gate: Gate) -> Table:
    table = make_table(db, 100, rows_per_fragment=30)
    table.add_columns({"double": gated(gate)})
    return table


def test_append(inline: Connection, gate: Gate) -> None:
    table = new_table(inline, gate)
    result = meanwhile(table, gate, lambda: append(table, numbers(100, 110)))
    assert (result.rows_done, result.version_before, result.version_after) == (100, 2, 4)
    assert by_x(table, "double") == {i: 2 * i if i < 100 else None for i in range(110)}
    assert table.backfill("double").rows_done == 10
    assert values(table, "double") == [2 * i for i in range(110)]


def test_delete_of_some_rows(inline: Connection, gate: Gate) -> None:
    table = new_table(inline, gate)
    result = meanwhile(table, gate, lambda: table.to_lance().delete("x % 10 = 3"))
    assert result.version_after == 4
    assert by_x(table, "double") == {i: 2 * i for i in range(100) if i % 10 != 3}
    assert table.backfill("double").rows_done == 0
    table.to_lance().validate()


def test_another_column_added(inline: Connection, gate: Gate) -> None:
    table = new_table(inline, gate)
    meanwhile(table, gate, lambda: table.to_lance().add_columns({"next": "x + 1"}))
    assert values(table, "double") == [2 * i for i in range(100)]
    assert values(table, "next") == [i + 1 for i in range(100)]


def test_another_computed_column_filled(inline: Connection, gate: Gate) -> None:
    @udf
    def negative(x: int) -> int:
        return -x

    table = new_table(inline, gate)
    table.add_columns({"negative": negative})
    meanwhile(table, gate, lambda: table.backfill("negative"))
    assert values(table, "double") == [2 * i for i in range(100)]
    assert values(table, "negative") == [-i for i in range(100)]


def test_several_writers_at_once(inline: Connection, gate: Gate) -> None:
    table = new_table(inline, gate)

    def others() -> None:
        append(table, numbers(100, 105))
        table.to_lance().delete("x < 10")
        table.to_lance().add_columns({"next": "x + 1"})
        append(table, numbers(105, 110).append_column("next", pa.array(range(106, 111), pa.int64())))

    meanwhile(table, gate, others)
    assert by_x(table, "double") == {i: 2 * i if i < 100 else None for i in range(10, 110)}
    assert by_x(table, "next") == {i: i + 1 for i in range(10, 110)}
    table.backfill("double")
    assert by_x(table, "double") == {i: 2 * i for i in range(10, 110)}


def test_column_dropped(inline: Connection, gate: Gate) -> None:
    table = new_table(inline, gate)
    with pytest.raises(CommitConflict):
        meanwhile(table, gate, lambda: table.to_lance().drop_columns(["double"]))
    assert version(table) == 3
    assert table.schema.names == ["x", "s"]


def test_partial_fill_and_append(inline: Connection, gate: Gate) -> None:
    table = new_table(inline, gate)
    meanwhile(table, gate, lambda: append(table, numbers(100, 110)), where="x % 2 = 0")
    assert by_x(table, "double") == {i: 2 * i if i < 100 and i % 2 == 0 else None for i in range(110)}


def test_second_backfill_of_a_column_is_told_of_the_first(inline: Connection, gate: Gate) -> None:
    table = new_table(inline, gate)
    job = table.backfill_async("double")
    gate.wait()
    before = version(table)
    with pytest.raises(ColumnBusy, match=rf"column 'double' of table 't' is being filled by job {job.job_id} \(process \d+ on "):
        table.backfill("double")
    assert version(table) == before
    gate.open()
    assert job.result(60).rows_done == 100
    assert values(table, "double") == [2 * i for i in range(100)]


def test_column_is_free_after_a_failure(inline: Connection, tmp_path: Path) -> None:
    @udf
    def broken(x: int) -> int:
        raise ValueError("always")

    table = make_table(inline, 5)
    table.add_columns({"y": broken})
    for _ in range(2):
        with pytest.raises(Exception, match="always"):
            table.backfill("y")
    assert files(Path(inline.uri) / "_runner" / "leases") == {}
