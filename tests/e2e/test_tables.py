"""What a backfill leaves as it is in a table, and tables of unusual shape."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from runner import Connection, udf
from tests.e2e.helpers import append, by_x, calls, column_files, doubling, files, make_table, numbers, values


def test_deleted_rows_stay_deleted(inline: Connection, log: Path) -> None:
    table = make_table(inline, 100, rows_per_fragment=40)
    table.add_columns({"double": doubling(log)})
    table.to_lance().delete("x % 10 = 3 or x >= 95")
    result = table.backfill("double")
    alive = [i for i in range(95) if i % 10 != 3]
    assert (result.rows_done, calls(log)) == (len(alive), alive)
    assert values(table, "x") == alive
    assert values(table, "double") == [2 * i for i in alive]
    assert all(fragment.metadata.physical_rows in (40, 20) for fragment in table.to_lance().get_fragments())
    table.to_lance().validate()


def test_rows_deleted_between_two_backfills(inline: Connection, log: Path) -> None:
    table = make_table(inline, 60, rows_per_fragment=25)
    table.add_columns({"double": doubling(log)})
    table.backfill("double", where="x < 30")
    table.to_lance().delete("x in (0, 10, 29, 31, 59)")
    assert table.backfill("double").rows_done == 28
    assert by_x(table, "double") == {i: 2 * i for i in range(60) if i not in (0, 10, 29, 31, 59)}
    assert len(calls(log)) == 58


def test_deletions_and_partial_fill_with_where(inline: Connection, log: Path) -> None:
    table = make_table(inline, 50)
    table.to_lance().delete("x % 2 = 1")
    table.add_columns({"double": doubling(log)})
    table.backfill("double", where="x >= 10 and x < 21")
    assert calls(log) == [10, 12, 14, 16, 18, 20]
    assert by_x(table, "double") == {i: 2 * i if 10 <= i < 21 else None for i in range(0, 50, 2)}


def test_row_order_and_other_files_are_untouched(inline: Connection, log: Path) -> None:
    data = pa.table({"x": [(i * 37) % 101 for i in range(101)]})
    table = make_table(inline, data=data, rows_per_fragment=20)
    table.add_columns({"double": doubling(log)})
    before = files(Path(table.uri) / "data")
    table.backfill("double")
    after = files(Path(table.uri) / "data")
    assert {name: after[name] for name in before} == before
    assert values(table, "x") == [(i * 37) % 101 for i in range(101)]
    assert values(table, "double") == [2 * ((i * 37) % 101) for i in range(101)]


def test_stable_row_ids_survive(inline: Connection, log: Path) -> None:
    table = make_table(inline, 90, rows_per_fragment=30, enable_stable_row_ids=True)
    table.to_lance().delete("x = 5")
    table.to_lance().optimize.compact_files()
    ids = table.to_lance().to_table(columns=["x"], with_row_id=True)
    table.add_columns({"double": doubling(log)})
    table.backfill("double", where="x < 40")
    table.backfill("double")
    after = table.to_lance().to_table(columns=["x", "double"], with_row_id=True)
    assert after.select(["x", "_rowid"]).equals(ids)
    picked = ids.filter(pc.equal(ids["x"], 77))["_rowid"].to_pylist()
    assert table.to_lance()._take_rows(picked, columns=["double"]).column("double").to_pylist() == [154]


def test_indexes_on_other_columns_survive(inline: Connection, log: Path) -> None:
    table = make_table(inline, 2000, rows_per_fragment=500)
    table.to_lance().create_scalar_index("x", "BTREE")
    indexes = table.to_lance().describe_indices()
    table.add_columns({"double": doubling(log)})
    table.backfill("double")
    assert [index.name for index in table.to_lance().describe_indices()] == [index.name for index in indexes]
    scanner = table.to_lance().scanner(columns=["double"], filter="x = 1234")
    assert "ScalarIndexQuery" in scanner.explain_plan(verbose=True)
    assert scanner.to_table().column("double").to_pylist() == [2468]
    assert table.to_lance().stats.index_stats(indexes[0].name)["num_unindexed_rows"] == 0


def test_append_that_brings_the_column(inline: Connection, log: Path) -> None:
    """The appended fragment holds the column in one file with the others, which Lance then replaces for this column only."""
    table = make_table(inline, 20)
    table.add_columns({"double": doubling(log)})
    table.backfill("double")
    given = numbers(20, 40).append_column("double", pa.array([None if i % 4 == 0 else -i for i in range(20, 40)], pa.int64()))
    append(table, given)
    result = table.backfill("double")
    assert result.rows_done == 5
    assert by_x(table, "double") == {i: 2 * i if i < 20 or i % 4 == 0 else -i for i in range(40)}
    assert values(table, "s") == [f"row {i}" for i in range(40)]
    table.backfill("double", force=True)
    assert values(table, "double") == [2 * i for i in range(40)]
    assert values(table, "s") == [f"row {i}" for i in range(40)]
    table.to_lance().validate()


def test_after_a_compaction(inline: Connection, log: Path) -> None:
    table = make_table(inline, 60, rows_per_fragment=20)
    table.add_columns({"double": doubling(log)})
    table.backfill("double")
    table.to_lance().optimize.compact_files()
    assert len(table.to_lance().get_fragments()) == 1
    assert table.backfill("double").rows_done == 0
    assert table.backfill("double", where="x < 10", force=True).rows_done == 10
    append(table, numbers(60, 70))
    assert table.backfill("double").rows_done == 10
    assert values(table, "double") == [2 * i for i in range(70)]
    assert values(table, "s") == [f"row {i}" for i in range(70)]
    assert calls(log) == sorted([*range(70), *range(10)])


def test_rows_of_two_versions_after_a_compaction(inline: Connection) -> None:
    @udf(version="1")
    def label(x: int) -> str:
        return f"one {x}"

    @udf(version="2")
    def label2(x: int) -> str:
        return f"two {x}"

    table = make_table(inline, 60, rows_per_fragment=20)
    table.add_columns({"label": label})
    table.backfill("label")
    table.backfill("label", udf=label2, where="x < 30")
    table.to_lance().optimize.compact_files()
    assert table.backfill("label").rows_done == 0
    table.backfill("label", stale=True)
    assert values(table, "label") == [f"two {i}" for i in range(60)]


def test_thousand_small_fragments(inline: Connection, log: Path) -> None:
    table = make_table(inline, 3000, rows_per_fragment=3)
    assert len(table.to_lance().get_fragments()) == 1000
    table.add_columns({"double": doubling(log)})
    result = table.backfill("double")
    assert (result.rows_done, result.version_after) == (3000, 3)
    assert calls(log) == list(range(3000))
    assert values(table, "double") == [2 * i for i in range(3000)]
    assert len(set(column_files(table, "double"))) == 1000
    append(table, numbers(3000, 3001))
    assert table.backfill("double").rows_done == 1
    assert table.backfill("double", where="x % 100 = 0", force=True).rows_done == 31


def test_wide_values_in_many_chunks(inline: Connection) -> None:
    """40 MB of input: several reads of one fragment, several parts of one column."""

    @udf
    def first(blob: bytes) -> bytes:
        return blob[:2] * 2000

    blobs = pa.array([bytes([i % 251, i // 251]) * 5000 for i in range(4000)], pa.binary())
    table = make_table(inline, data=pa.table({"x": range(4000), "blob": blobs}))
    table.add_columns({"first": first})
    result = table.backfill("first")
    assert result.bytes_read >= 40_000_000
    assert values(table, "first") == [bytes([i % 251, i // 251]) * 2000 for i in range(4000)]


def test_lancedb_opens_and_updates_the_table_afterwards(inline: Connection, log: Path) -> None:
    table = make_table(inline, 50, rows_per_fragment=20)
    table.add_columns({"double": doubling(log)})
    table.backfill("double", where="x >= 5")
    other = table.to_lancedb()
    assert other.count_rows("double IS NOT NULL") == 45
    other.update(where="x = 7", values={"s": "changed"})
    other.delete("x = 8")
    table.to_lance().optimize.compact_files()
    assert table.backfill("double").rows_done == 5
    assert by_x(table, "double") == {i: 2 * i for i in range(50) if i != 8}
    assert by_x(table, "s")[7] == "changed"
