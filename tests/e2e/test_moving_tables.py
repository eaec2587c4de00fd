"""Another writer moves rows while a backfill computes. The job goes on by itself, and computes again only what it must."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lance
import pyarrow as pa
import pytest

from runner import UDF, BackfillResult, Connection, Table, udf
from runner.errors import CommitConflict
from tests.e2e.helpers import Gate, append, by_x, calls, files, log_call, make_table, numbers, pass_gate, values

ROWS = 100
STOP = 70  # the row at which the function stands while the others write; fragments of 30 rows


def logged(gate: Gate, log: Path, stop: int = STOP) -> UDF:
    """``2 * x``, with every call in the log, and a stop at one row."""
    folder, path = str(gate.folder), str(log)

    @udf
    def double(x: int) -> int:
        log_call(path, x)
        if x == stop:
            pass_gate(folder)
        return 2 * x

    return double


def new_table(db: Connection, gate: Gate, log: Path, stable: bool = False) -> Table:
    table = make_table(db, ROWS, rows_per_fragment=30, enable_stable_row_ids=stable)
    table.add_columns({"double": logged(gate, log)})
    return table


def meanwhile(table: Table, gate: Gate, other: Callable[[], Any], column: str = "double", **options: Any) -> BackfillResult:
    """A backfill, with another writer at work while the function stands at its gate."""
    job = table.backfill_async(column, **options)
    gate.wait()
    try:
        other()
    finally:
        gate.open()
    return job.result(60)


def called_again(log: Path) -> list[int]:
    """Rows that the function was called for more than once, and those beyond the first rows of the table."""
    seen = calls(log)
    return sorted({x for x in seen if seen.count(x) > 1} | {x for x in seen if x >= ROWS})


# -- what others did to the table; what is in it after that; the calls made again or for new rows


def compact(table: Table) -> None:
    table.to_lance().optimize.compact_files()


def delete_and_compact(table: Table) -> None:
    table.to_lance().delete("x % 10 = 3")
    compact(table)


def compact_twice(table: Table) -> None:
    table.to_lance().optimize.compact_files(target_rows_per_fragment=50)
    append(table, numbers(ROWS, ROWS + 5))
    table.to_lance().delete("x < 7")
    compact(table)


def update_inputs(table: Table) -> None:
    table.to_lance().update({"x": "x + 1000"}, where="x = 5 or x = 99")


def update_another_column(table: Table) -> None:
    table.to_lance().update({"s": "'other'"}, where="x = 5 or x = 50 or x = 99")


def merge(table: Table) -> None:
    """New values of ``s`` for two rows and two new rows."""
    data = pa.table({"x": pa.array([5, 99, 1000, 1001], pa.int64()), "s": ["a", "b", "c", "d"]})
    table.to_lance().merge_insert("x").when_matched_update_all().when_not_matched_insert_all().execute(data)


def update_and_compact(table: Table) -> None:
    update_another_column(table)
    update_inputs(table)
    compact(table)


def compact_and_clean_up(table: Table) -> None:
    compact(table)
    table.to_lance().delete("x = 0")
    table.to_lance().cleanup_old_versions(dt.timedelta(0), delete_unverified=True, error_if_tagged_old_versions=False)


def index_and_compact(table: Table) -> None:
    """pylance 14 cannot describe a compaction that rewrote an index."""
    table.to_lance().create_scalar_index("x", "BTREE")
    compact(table)


def delete_a_fragment(table: Table) -> None:
    table.to_lance().delete("x >= 30 and x < 60")


def add_a_column(table: Table) -> None:
    table.to_lance().add_columns({"next": "x + 1"})
    compact(table)


def index_the_column(table: Table) -> None:
    table.to_lance().create_scalar_index("double", "BTREE")


@pytest.mark.parametrize("stable", [False, True])
@pytest.mark.parametrize(
    ("other", "gone", "again", "replans"),
    [
        (compact, [], [], 1),
        (delete_and_compact, range(3, 100, 10), [], 1),
        (compact_twice, range(7), range(100, 105), 1),
        (update_inputs, [5, 99], [1005, 1099], 1),
        (update_another_column, [], [], 1),
        (merge, [], [1000, 1001], 1),
        (update_and_compact, [5, 99], [1005, 1099], 1),
        (compact_and_clean_up, [0], [], 1),
        (index_and_compact, [], [], 1),
        (delete_a_fragment, range(30, 60), [], 1),
        (add_a_column, [], [], 1),
        (index_the_column, [], [], 0),
    ],
)
def test_the_job_goes_on(
    inline: Connection,
    gate: Gate,
    log: Path,
    stable: bool,
    other: Callable[[Table], None],
    gone: Any,
    again: Any,
    replans: int,
) -> None:
    table = new_table(inline, gate, log, stable)
    result = meanwhile(table, gate, lambda: other(table))
    rows = {*range(ROWS), *again} - set(gone)
    assert by_x(table, "double") == {x: 2 * x for x in rows}
    assert called_again(log) == list(again)
    assert (len(result.replans), result.status) == (replans, "DONE")
    assert table.backfill("double").rows_done == 0
    dataset = table.to_lance()
    dataset.validate()
    assert dataset.tags.list() == {}
    assert files(Path(inline.uri) / "_runner" / "staging") == {}
    assert inline.jobs("t")[0].status == "DONE"


def test_rows_that_a_policy_skipped_are_called_again_and_stay_skipped(inline: Connection, gate: Gate, log: Path) -> None:
    folder, path = str(gate.folder), str(log)

    @udf(on_error="skip")
    def fragile(x: int) -> int:
        log_call(path, x)
        if x == STOP:
            pass_gate(folder)
        if x % 20 == 3:
            raise ValueError(f"no value for {x}")
        return 2 * x

    table = make_table(inline, ROWS, rows_per_fragment=30)
    table.add_columns({"double": fragile})
    result = meanwhile(table, gate, lambda: compact(table))
    failed = list(range(3, ROWS, 20))
    assert by_x(table, "double") == {x: None if x in failed else 2 * x for x in range(ROWS)}
    assert called_again(log) == failed
    assert (result.rows_done, result.rows_skipped) == (ROWS - len(failed), len(failed))
    assert [(error.fragment_id, error.offset) for error in table.errors("double")] == [(4, x) for x in failed]


@pytest.mark.parametrize("stable", [False, True])
def test_a_where_and_force_are_still_meant_after_a_compaction(inline: Connection, gate: Gate, log: Path, stable: bool) -> None:
    table = new_table(inline, gate, log, stable)
    gate.open()
    table.backfill("double")
    log.unlink()
    second = Gate(gate.folder.parent / "second")
    again = logged(second, log)
    try:
        result = meanwhile(table, second, lambda: compact(table), udf=again, where="x % 2 = 0", force=True)
    finally:
        second.close()
    assert result.rows_done == 50
    assert calls(log) == list(range(0, ROWS, 2))
    assert values(table, "double") == [2 * x for x in range(ROWS)]


def test_inputs_replaced_in_place(inline: Connection, gate: Gate, log: Path) -> None:
    """Values of inputs that are no more must not be published; those of rows whose inputs are the same may."""
    table = make_table(inline, 20)

    @udf(version="1")
    def plus(x: int) -> int:
        return x + 1

    @udf(version="2")
    def minus(x: int) -> int:
        return x - 1 if x < 5 else x + 1

    table.add_columns({"y": plus})
    table.backfill("y")
    table.add_columns({"double": (logged(gate, log, stop=20), ["y"])})
    result = meanwhile(table, gate, lambda: table.backfill("y", udf=minus, stale=True))
    assert result.replans == ["the inputs of fragment 0 changed"]
    assert values(table, "double") == [2 * (x - 1) if x < 5 else 2 * (x + 1) for x in range(20)]
    assert sorted(set(calls(log)) - set(range(1, 21))) == [-1, 0]
    assert len(calls(log)) == 22  # each of the 20, and -1 and 0: 1, 2 and 3 were inputs of other rows before


def test_two_columns_and_a_compaction(inline: Connection, gate: Gate, log: Path) -> None:
    table = new_table(inline, gate, log)

    @udf
    def negative(x: int) -> int:
        return -x

    table.add_columns({"negative": negative})
    result = meanwhile(table, gate, lambda: compact(table), column=["double", "negative"])  # type: ignore[arg-type]
    assert (result.rows_done, calls(log)) == (2 * ROWS, list(range(ROWS)))
    assert by_x(table, "double") == {x: 2 * x for x in range(ROWS)}
    assert by_x(table, "negative") == {x: -x for x in range(ROWS)}


def test_columns_of_other_inputs(inline: Connection, gate: Gate, log: Path, tmp_path: Path) -> None:
    """Where a column's rows are computed by themselves, only its own inputs count."""
    path = str(tmp_path / "texts.log")

    @udf
    def shout(s: str, x: int) -> str:
        log_call(path, x)
        return s.upper()

    table = new_table(inline, gate, log)
    table.add_columns({"loud": shout})
    table.backfill("loud", where="x < 2")  # so that the columns need other rows, and are works of their own
    result = meanwhile(table, gate, lambda: update_another_column(table), column=["double", "loud"])  # type: ignore[arg-type]
    assert len(result.replans) == 1
    assert by_x(table, "double") == {x: 2 * x for x in range(ROWS)}
    assert by_x(table, "loud") == {x: "OTHER" if x in (5, 50, 99) else f"ROW {x}" for x in range(ROWS)}
    texts = calls(Path(path))
    assert (texts.count(5), texts.count(6)) == (2, 1)


def test_a_table_that_changes_again_and_again(inline: Connection, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each time the job is about to publish, another writer has rewritten the table. It gives up with its work kept."""
    from runner.backfill import commit

    table = make_table(inline, 40, rows_per_fragment=20)
    path = str(log)

    @udf
    def double(x: int) -> int:
        log_call(path, x)
        return 2 * x

    table.add_columns({"double": double})
    publish = commit.Publisher.publish

    def rewrite(self: Any, *args: Any) -> Any:
        lance.write_dataset(table.to_lance().to_table(), table.uri, mode="overwrite")
        return publish(self, *args)

    monkeypatch.setattr(commit.Publisher, "publish", rewrite)
    with pytest.raises(
        CommitConflict, match=r"changed 6 times while the job ran, at last: fragment \d+ was .*run the backfill again"
    ):
        table.backfill("double")
    assert values(table, "double") == [None] * 40
    (tag,) = table.to_lance().tags.list()  # by which the next job finds what is still valid
    assert tag.startswith(f"infill-{inline.jobs('t')[0].job_id}-")
    monkeypatch.undo()
    assert table.backfill("double").rows_done == 40
    assert calls(log) == list(range(40))
    assert values(table, "double") == [2 * x for x in range(40)]
    assert table.to_lance().tags.list() == {}


def test_updates_without_end_do_not_end_the_job(inline: Connection, log: Path) -> None:
    """A row is updated whenever it is computed. After some plans the job leaves it to the next one."""
    table = make_table(inline, 40, rows_per_fragment=20)
    path, uri = str(log), table.uri

    @udf
    def double(x: int) -> int:
        log_call(path, x)
        if x % 1000 == 5 and x < 9000:
            lance.dataset(uri).update({"x": "x + 1000"}, where=f"x IN ({x}, {20 + x // 1000})")
        return 2 * x

    table.add_columns({"double": double})
    result = table.backfill("double")
    assert (result.status, len(result.replans)) == ("DONE", 5)
    left = {x: 2 * x for x in range(40) if x != 5 and not 20 <= x < 26}
    moved = range(1020, 1025)
    assert by_x(table, "double") == {**left, **{x: 2 * x for x in moved}, 1025: None, 6005: None}
    assert calls(log) == sorted([*range(40), *range(1005, 6000, 1000), *moved])
    table.to_lance().update({"x": "9005"}, where="x = 6005")
    assert table.backfill("double").rows_done == 2
    assert by_x(table, "double") == {**left, **{x: 2 * x for x in moved}, 1025: 2050, 9005: 18010}


def test_a_where_over_row_addresses_is_not_planned_anew(inline: Connection, gate: Gate, log: Path) -> None:
    """The addresses are other rows' now."""
    table = new_table(inline, gate, log)
    with pytest.raises(CommitConflict, match="where names row addresses"):
        meanwhile(table, gate, lambda: compact(table), where=f"_rowaddr IN ({(2 << 32) | 10}, 3)")
    assert values(table, "double") == [None] * ROWS
    assert calls(log) == [3, STOP]
