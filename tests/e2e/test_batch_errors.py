"""Batch functions that raise: only the rows that do are skipped or named, and they stay known."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from runner import UDF, Connection, udf
from runner.errors import BackfillFailed
from tests.e2e.helpers import by_x, calls, log_call, make_table

ROWS = 300
BAD = [0, 41, 99, 100, 257]


def refusing(log: Path, kind: str, **options: object) -> UDF:
    path = str(log)

    def column(x: pa.Array) -> pa.Array:
        log_call(path, len(x))
        found = sorted(set(BAD).intersection(x.to_pylist()))
        if found:
            raise ValueError(f"no {found}")
        return pc.multiply(x, 2)

    def arrow(x: pa.Array) -> pa.Array:
        return column(x)

    def batch(rows: pa.RecordBatch) -> pa.Array:
        return column(rows["x"])

    made = udf(data_type=pa.int64(), **options)  # type: ignore[call-overload]
    return made(arrow if kind == "arrow" else batch)  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", ["arrow", "record batch"])
def test_skip_leaves_out_the_rows_that_raise_and_no_others(inline: Connection, log: Path, kind: str) -> None:
    table = make_table(inline, ROWS, rows_per_fragment=100)
    table.add_columns({"y": refusing(log, kind, on_error="skip", batch_size=50)})
    result = table.backfill("y", progress=False)
    assert (result.rows_done, result.rows_skipped) == (ROWS - len(BAD), len(BAD))
    assert by_x(table, "y") == {x: None if x in BAD else 2 * x for x in range(ROWS)}
    found = table.errors("y")
    assert [(error.fragment_id * 100 + error.offset, error.message) for error in found] == [(x, f"no [{x}]") for x in BAD]
    made = calls(log)
    assert len(made) <= 6 + 2 * 6 * len(BAD)
    assert table.backfill("y", progress=False).rows_done == 0
    assert table.backfill("y", stale=True, progress=False).rows_done == 0
    assert calls(log) == made


def test_fail_names_the_row_and_keeps_those_before(inline: Connection, log: Path) -> None:
    table = make_table(inline, ROWS, rows_per_fragment=100)
    table.add_columns({"y": refusing(log, "arrow", batch_size=50)})
    with pytest.raises(BackfillFailed) as caught:
        table.backfill("y", where="x >= 200", progress=False)
    assert str(caught.value) == "y: ValueError at row 57 of fragment 2 (_rowaddr = 8589934649): no [257]"
    assert [error.row_address for error in caught.value.errors] == [(2 << 32) | 57]
    result = table.backfill("y", where="x >= 200", on_error="skip", progress=False)
    assert (result.rows_done, result.rows_resumed, result.rows_skipped) == (99, 57, 1)
    assert by_x(table, "y") == {x: 2 * x if x >= 200 and x != 257 else None for x in range(ROWS)}
