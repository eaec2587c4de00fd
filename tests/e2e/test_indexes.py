"""Indexes on columns that are recomputed."""

from __future__ import annotations

from typing import Any

from runner import Connection, Table, udf
from tests.e2e.helpers import make_table, values


@udf(version="1")
def double(x: int) -> int:
    return 2 * x


@udf(version="2")
def triple(x: int) -> int:
    return 3 * x


def indexed(db: Connection) -> Table:
    """A filled column with an index, and one on another column."""
    table = make_table(db, 100, rows_per_fragment=30)
    table.add_columns({"y": double})
    assert table.backfill("y").unindexed == []
    table.to_lance().create_scalar_index("y", "BTREE")
    table.to_lance().create_scalar_index("x", "BTREE")
    return table


def covered(table: Table) -> dict[str, Any]:
    """Fragments of each index."""
    return {
        index.name: sorted(fragment for segment in index.segments for fragment in segment.fragment_ids)
        for index in table.to_lance().describe_indices()
    }


def test_the_result_says_what_an_index_leaves_out(inline: Connection) -> None:
    table = indexed(inline)
    result = table.backfill("y", udf=triple, where="x < 40")
    assert result.unindexed == ["y_idx on y leaves out 2 of 4 fragments"]
    assert "y_idx on y leaves out 2 of 4 fragments (optimize_indices=True covers them)" in str(result)
    assert covered(table) == {"y_idx": [2, 3], "x_idx": [0, 1, 2, 3]}
    assert table.to_lance().to_table(filter="y = 9").column("x").to_pylist() == [3]
    assert table.backfill("y").unindexed == []  # nothing was recomputed


def test_optimize_indices_covers_the_table_again(inline: Connection) -> None:
    table = indexed(inline)
    result = table.backfill("y", udf=triple, stale=True, optimize_indices=True)
    assert (result.unindexed, result.version_after) == ([], table.to_lance().version)
    assert covered(table) == {"y_idx": [0, 1, 2, 3], "x_idx": [0, 1, 2, 3]}
    assert values(table, "y") == [3 * x for x in range(100)]
    assert table.to_lance().to_table(filter="y = 270").column("x").to_pylist() == [90]
    assert "index" in result.seconds
