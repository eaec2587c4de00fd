from __future__ import annotations

from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
import pytest

from runner.backfill.column_file import OTHER_INPUTS, FileTag, RowMap
from runner.backfill.freshness import Freshness, FreshnessRecords
from runner.backfill.reader import FragmentRows
from runner.backfill.selection import ColumnState
from runner.store import Store

OURS = ColumnState("a.lance", FileTag("full", "0" * 12, "here"))
MERGED = ColumnState("b.lance", None)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> FragmentRows:
    """Rows last updated at versions 1, 2 and 3, and one that is deleted, in one fragment."""
    path = tmp_path_factory.mktemp("freshness") / "t.lance"
    lance.write_dataset(pa.table({"n": range(6)}), path, enable_stable_row_ids=True)
    lance.dataset(path).update({"n": "n + 10"}, where="n = 4")
    lance.dataset(path).update({"n": "n + 20"}, where="n = 1")
    lance.dataset(path).optimize.compact_files()
    lance.dataset(path).delete("n = 0")
    (fragment,) = lance.dataset(path).get_fragments()
    return FragmentRows(fragment)


def changed(
    freshness: Freshness,
    rows: FragmentRows,
    state: ColumnState,
    inputs: str = "here",
    stable: bool = True,
    row_map: RowMap | None = None,
) -> list[int] | None:
    found = freshness.changed(rows, state, row_map, inputs, has_row_versions=stable)
    return None if found is None else found.tolist()


def test_files_of_ours_tell_by_their_name(rows: FragmentRows) -> None:
    assert changed(Freshness(), rows, OURS) == []
    assert changed(Freshness(), rows, OURS, "elsewhere") == [1, 2, 3, 4, 5]
    assert changed(Freshness(), rows, ColumnState("a.lance", FileTag("full", "0" * 12))) is None
    assert changed(Freshness(), rows, ColumnState(None, None)) == []
    left = RowMap(6, {OTHER_INPUTS: np.array([0, 3], np.uint32), "v1": np.array([4], np.uint32)})
    assert changed(Freshness(), rows, OURS, row_map=left) == [3]


def test_files_of_lances_own_tell_by_the_versions_of_their_rows(rows: FragmentRows) -> None:
    assert rows.last_updated().tolist() == [1, 1, 1, 2, 3]
    assert changed(Freshness(1), rows, MERGED) == [4, 5]
    assert changed(Freshness(1, frozenset({3})), rows, MERGED) == [4]
    assert changed(Freshness(3), rows, MERGED) == []
    assert changed(Freshness(), rows, MERGED) is None
    assert changed(Freshness(1), rows, MERGED, stable=False) is None


def test_records(tmp_path: Path) -> None:
    records = FreshnessRecords(Store(str(tmp_path)), "a table")
    assert records.read("x", {7, 8}, 99) == Freshness()
    records.add_own("x", {7, 8}, 4)
    assert records.read("x", {7, 8}, 99) == Freshness()
    records.advance("x", {7, 8}, 3, 99)
    records.add_own("x", {7, 8}, 9)
    assert records.read("x", {8, 7}, 99) == Freshness(3, frozenset({4, 9}))
    assert records.read("x", {9}, 99) == records.read("y", {7}, 99) == Freshness()
    records.advance("x", {7, 8}, 8, 99)
    assert records.read("x", {7, 8}, 99) == Freshness(8, frozenset({9}))
    assert len(list((tmp_path / "_runner").rglob("*-*"))) == 3  # the folder and two facts
    assert records.read("x", {7, 8}, 8) == Freshness()  # a younger table of the same name
    records.advance("x", {7, 8}, 2, 5)
    assert records.read("x", {7, 8}, 5) == Freshness(2)
