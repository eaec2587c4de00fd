"""Classes with ``setup`` and ``preprocess`` on real workers."""

from __future__ import annotations

import os
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from runner import UDF, Connection, Context, udf
from runner.errors import BackfillFailed
from tests.e2e.helpers import by_x, calls, log_call, make_table

ROWS = 2000


def model(folder: Path, **options: Any) -> UDF:
    """``3 * x + 1``, in two steps."""
    setups, prepared, called = (str(folder / name) for name in ("setups", "prepared", "called"))

    @udf(data_type=pa.int64(), batch_size=50, **options)
    class Model:
        def __init__(self) -> None:
            self.ready = False

        def setup(self) -> None:
            log_call(setups, os.getpid())
            self.ready = True

        def preprocess(self, x: pa.Array) -> tuple[bool, pa.Array]:
            assert self.ready
            for value in x.to_pylist():
                log_call(prepared, value)
            return threading.current_thread() is threading.main_thread(), pc.multiply(x, 3)

        def __call__(self, made: tuple[bool, pa.Array]) -> pa.Array:
            was_main, tripled = made
            assert not was_main
            assert threading.current_thread() is threading.main_thread()
            for value in tripled.to_pylist():
                log_call(called, value // 3)
            return pc.add(tripled, 1)

    return Model


def test_each_worker_is_set_up_once_and_each_row_prepared_and_called_once(
    db: Connection, ray_session: Context, tmp_path: Path
) -> None:
    table = make_table(db, ROWS, rows_per_fragment=ROWS // 8)
    table.add_columns({"y": model(tmp_path)})
    result = table.backfill("y", progress=False)
    assert result.rows_done == ROWS
    assert by_x(table, "y") == {x: 3 * x + 1 for x in range(ROWS)}
    assert Counter(calls(tmp_path / "prepared")) == Counter(calls(tmp_path / "called")) == Counter(range(ROWS))
    setups = calls(tmp_path / "setups")
    assert len(setups) == len(set(setups)) <= result.workers


def test_the_next_job_sets_up_again_and_nothing_runs_on_after_an_inline_one(inline: Connection, tmp_path: Path) -> None:
    before = {thread.name for thread in threading.enumerate()}
    table = make_table(inline, 200, rows_per_fragment=50)
    table.add_columns({"y": model(tmp_path, num_cpus=3)})
    for _ in range(2):
        table.backfill("y", force=True, progress=False)
    assert len(calls(tmp_path / "setups")) == 2
    for thread in threading.enumerate():
        if thread.name == "runner-preprocess":
            thread.join(30)
    assert {thread.name for thread in threading.enumerate()} <= before


def test_a_setup_that_fails_ends_the_job_by_name(db: Connection, ray_session: Context, log: Path) -> None:
    path = str(log)

    @udf(on_error="skip")
    class Broken:
        def setup(self) -> None:
            raise ConnectionError("weights.example.com does not answer")

        def __call__(self, x: int) -> int:
            log_call(path, x)
            return x

    table = make_table(db, 10)
    table.add_columns({"y": Broken})
    with pytest.raises(
        BackfillFailed, match=r"Broken.setup failed on a worker: ConnectionError: weights.example.com does not answer"
    ):
        table.backfill("y", progress=False)
    assert calls(log) == []
    assert table.to_lance().version == 2


def test_a_setup_is_part_of_the_version(inline: Connection) -> None:
    def made(factor: int) -> UDF:
        @udf
        class Scaled:
            def setup(self) -> None:
                self.factor = factor

            def __call__(self, x: int) -> int:
                return x * self.factor

        return Scaled

    assert made(2).version != made(3).version
    assert made(2).version == made(2).version
