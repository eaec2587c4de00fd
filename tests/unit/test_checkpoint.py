from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest

from runner.backfill.checkpoint import StagedColumn, StagedFragment, Staging, staging_folder, staging_key
from runner.backfill.offsets import Offsets
from runner.backfill.policy import ErrorPolicy
from runner.errors import RowError
from runner.store import Store

FRAGMENT = StagedFragment(
    7,
    90,
    (StagedColumn("label", "staging/t/label/x.lance", 100, 1234, "skip", "v1"),),
    (RowError((7 << 32) | 5, "ValueError", "größe", "Traceback ..."),),
)


@pytest.fixture
def staging(store: Store) -> Staging:
    return Staging(store, "staging/t/label/7-abc")


def rows(*offsets: int) -> Offsets:
    return np.array(offsets, np.uint32)


def test_a_part_comes_back_as_it_was_saved(staging: Staging) -> None:
    labels, vectors = pa.array(["a", None, "c"]), pa.array([[1.0, 2.0], None, [3.0, 4.0]], pa.list_(pa.float32(), 2))
    staging.save_part(rows(3, 5, 1 << 31), [labels, vectors], ["label", "vector"])
    (path,) = staging.part_paths()
    offsets, columns = staging.load_part(path)
    assert (offsets.tolist(), offsets.dtype) == ([3, 5, 1 << 31], np.uint32)
    assert list(columns) == ["label", "vector"]
    assert columns["label"].equals(labels)
    assert columns["vector"].equals(vectors)


def test_only_offsets_are_loaded_where_only_they_are_asked_for(staging: Staging) -> None:
    staging.save_part(rows(3), [pa.array(["a"])], ["label"])
    offsets, columns = staging.load_part(staging.part_paths()[0], offsets_only=True)
    assert (offsets.tolist(), columns) == ([3], {})


def test_parts_of_a_slice_hold_the_slice(staging: Staging) -> None:
    staging.save_part(rows(0, 1, 2, 3)[1:3], [pa.array([10, 11, 12, 13])[1:3]], ["label"])
    offsets, columns = staging.load_part(staging.part_paths()[0])
    assert (offsets.tolist(), columns["label"].to_pylist()) == ([1, 2], [11, 12])


def test_parts_are_in_order_of_their_rows_and_cover_all_of_them(staging: Staging) -> None:
    for offsets in (rows(100_000, 100_002), rows(9, 10), rows(20), rows(10, 11)):
        staging.save_part(offsets, [pa.array(offsets)], ["label"])
    firsts = [int(staging.load_part(path)[0][0]) for path in staging.part_paths()]
    assert firsts == [9, 10, 20, 100_000]
    assert staging.covered().tolist() == [9, 10, 11, 20, 100_000, 100_002]


def test_a_fragments_folder_holds_its_own_parts_only(store: Store, staging: Staging) -> None:
    Staging(store, staging.folder + "d").save_part(rows(1), [pa.array([1])], ["label"])
    store.put(staging.new_column_path(), b"column file")
    assert staging.part_paths() == []
    assert staging.covered().tolist() == []


def test_a_part_that_is_gone_covers_nothing(staging: Staging) -> None:
    offsets, columns = staging.load_part(f"{staging.folder}/0000000001-x.part")
    assert (offsets.tolist(), columns) == ([], {})


def test_what_is_finished_is_found_by_another_process(store: Store, staging: Staging) -> None:
    assert staging.finished(ErrorPolicy("skip")) is None
    staging.finish(FRAGMENT)
    assert Staging(Store(store.uri), staging.folder).finished(ErrorPolicy("skip")) == FRAGMENT


def test_skipped_rows_are_not_taken_over_under_the_policy_fail(staging: Staging) -> None:
    staging.finish(FRAGMENT)
    assert staging.finished(ErrorPolicy("fail", 3)) is None
    whole = StagedFragment(7, 100, FRAGMENT.columns)
    staging.finish(whole)
    assert staging.finished(ErrorPolicy("fail")) == whole


def test_a_record_is_plain_json(staging: Staging) -> None:
    raw = json.loads(FRAGMENT.to_json())
    assert (raw["fragment_id"], raw["columns"][0]["rows"], raw["errors"][0]["message"]) == (7, 100, "größe")
    assert StagedFragment.from_json(FRAGMENT.to_json().encode()) == FRAGMENT


def test_a_key_depends_on_every_value_and_not_on_their_order() -> None:
    key = staging_key(fragment=1, inputs=["a", "b"], where=None)
    assert key == staging_key(where=None, inputs=["a", "b"], fragment=1)
    others = [
        staging_key(fragment=2, inputs=["a", "b"], where=None),
        staging_key(fragment=1, inputs=["b", "a"], where=None),
        staging_key(fragment=1, inputs=["a", "b"], where="None"),
    ]
    assert len({key, *others}) == 4
    assert len(key) == 32


def test_a_folder_is_the_same_for_the_same_columns_in_any_order() -> None:
    assert staging_folder("t", ["b", "a"]) == staging_folder("t", ["a", "b"]) == "staging/t/a+b"
    names = {staging_folder("t", columns) for columns in (["a+b"], ["a", "b"], ["a/b"], ["a b"], ["A+b"])}
    assert len(names) == 5
    assert all(name.count("/") == 2 for name in names)


def test_many_columns_make_a_name_that_file_systems_take() -> None:
    many = [f"column_{n}" for n in range(200)]
    assert len(staging_folder("t", many)) < 100
    assert staging_folder("t", many) == staging_folder("t", many[::-1]) != staging_folder("t", many[1:])
