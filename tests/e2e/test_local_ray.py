"""Backfills on real Ray on this machine, started once for the session."""

from __future__ import annotations

import importlib
import os
from pathlib import Path

import pyarrow as pa
import pytest
import ray

from runner import Connection, Context, udf
from runner.errors import BackfillFailed, BadInput, JobCancelled
from tests.e2e.helpers import (
    Gate,
    append,
    by_x,
    calls,
    doubling,
    failing_while,
    files,
    gated,
    log_call,
    make_table,
    numbers,
    pass_gate,
    values,
    version,
)

pytestmark = pytest.mark.usefixtures("ray_session")


def importable(x: int) -> int:
    return x * x


def test_context_on_class_and_on_connection(db: Connection) -> None:
    table = make_table(db, 100, rows_per_fragment=30)
    table.add_columns({"a": importable, "b": importable})
    with Connection.local_ray_context():
        first = table.backfill("a")
    with db.local_ray_context():
        second = table.backfill("b")
    assert (first.executor, second.executor) == ("local", "local")
    assert values(table, "a") == values(table, "b") == [i * i for i in range(100)]


def test_ray_that_is_initialised_is_not_stopped(db: Connection) -> None:
    node = ray.get_runtime_context().get_node_id()
    with db.context(cluster="local"):
        pass
    assert ray.is_initialized()
    assert ray.get_runtime_context().get_node_id() == node


def test_one_huge_fragment_is_split_and_equals_inline(db: Connection, log: Path) -> None:
    path = str(log)

    def work(x: int) -> float:
        if x % 1000 == 0:
            log_call(path, os.getpid())
        return sum(x % divisor for divisor in range(1, 40)) / 3

    table = make_table(db, 100_000)
    table.add_columns({"on_ray": work, "inline": work})
    on_ray = table.backfill("on_ray", concurrency=2)
    workers = set(calls(log))
    with db.context(cluster="inline"):
        table.backfill("inline")
    assert len(table.to_lance().get_fragments()) == 1
    assert on_ray.workers == len(workers) == min(2, int(ray.cluster_resources()["CPU"]))
    assert os.getpid() not in workers
    assert on_ray.version_after == on_ray.version_before + 1
    rows = table.to_arrow(["on_ray", "inline"])
    assert rows.column("on_ray").equals(rows.column("inline"))
    assert rows.column("on_ray").null_count == 0
    assert files(Path(db.uri) / "_runner" / "staging") == {}


def test_split_fragment_with_deletions_failures_and_old_values(db: Connection, log: Path, tmp_path: Path) -> None:
    flag = tmp_path / "broken"
    flag.touch()
    bad = [3, 5000, 11_111, 19_999]
    table = make_table(db, 20_000)
    table.add_columns({"y": failing_while(flag, bad, log, on_error="skip")})
    table.to_lance().delete("x % 7 = 6")
    table.backfill("y", where="x >= 4000 and x < 4500")
    result = table.backfill("y")
    alive = [i for i in range(20_000) if i % 7 != 6]
    failed = [i for i in bad if i % 7 != 6]
    assert calls(log) == alive
    assert result.rows_skipped == len(failed)
    assert [error.offset for error in table.errors("y")] == failed
    assert by_x(table, "y") == {i: None if i in failed else 2 * i for i in alive}


def test_every_row_is_called_once(db: Connection, log: Path) -> None:
    table = make_table(db, 5000, rows_per_fragment=7)
    table.add_columns({"double": doubling(log)})
    result = table.backfill("double")
    assert (result.rows_done, result.rows_resumed) == (5000, 0)
    assert calls(log) == list(range(5000))
    assert values(table, "double") == [2 * i for i in range(5000)]
    append(table, numbers(5000, 5003))
    assert table.backfill("double").rows_done == 3
    assert calls(log) == list(range(5003))


def test_workers_serve_one_backfill_after_another(db: Connection, log: Path) -> None:
    path = str(log)

    def process(x: int) -> int:
        log_call(path, os.getpid())
        return os.getpid()

    table = make_table(db, 100, rows_per_fragment=25)
    table.add_columns({"first": process, "second": process})
    table.backfill("first")
    before = set(calls(log))
    table.backfill("second")
    assert len(set(calls(log)) | before) <= 2
    assert set(values(table, "first")) | set(values(table, "second")) == set(calls(log))


def test_concurrency_of_one(db: Connection) -> None:
    def process(x: int) -> int:
        return os.getpid()

    table = make_table(db, 20_000)
    table.add_columns({"pid": process})
    assert table.backfill("pid", concurrency=1).workers == 1
    assert len(set(values(table, "pid"))) == 1


def test_class_is_constructed_once_a_worker(db: Connection, log: Path) -> None:
    @udf
    class Model:
        def __init__(self, path: str) -> None:
            log_call(path, os.getpid())

        def __call__(self, x: int) -> int:
            return -x

    table = make_table(db, 200, rows_per_fragment=10)
    table.add_columns({"y": Model(str(log))})
    table.backfill("y")
    assert len(calls(log)) == len(set(calls(log))) <= 2
    assert values(table, "y") == [-i for i in range(200)]


def test_vectors_and_structs_of_a_split_fragment(db: Connection) -> None:
    @udf(data_type=pa.struct([pa.field("vector", pa.list_(pa.float32(), 2)), pa.field("words", pa.list_(pa.string()))]))
    def features(s: str) -> dict[str, object]:
        return {"vector": [len(s), 0.5], "words": s.split()}

    table = make_table(db, 20_000)
    table.add_columns(features)
    table.backfill(["vector", "words"])
    assert values(table, "vector") == [[float(len(f"row {i}")), 0.5] for i in range(20_000)]
    assert values(table, "words") == [["row", str(i)] for i in range(20_000)]


def test_failing_row_then_fixed(db: Connection, log: Path, tmp_path: Path) -> None:
    flag = tmp_path / "broken"
    flag.touch()
    table = make_table(db, 3000, rows_per_fragment=500)
    table.add_columns({"y": failing_while(flag, [2700], log)})
    with pytest.raises(BackfillFailed, match=r"ValueError at row 200 of fragment 5 .*no value for 2700"):
        table.backfill("y", concurrency=1)
    assert version(table) == 2
    flag.unlink()
    result = table.backfill("y")
    assert calls(log) == sorted([*range(3000), 2700])
    assert result.rows_resumed > 0
    assert values(table, "y") == [2 * i for i in range(3000)]


def test_cancel_and_go_on(db: Connection, gate: Gate) -> None:
    folder = str(gate.folder)

    def slow(x: int) -> int:
        if x == 15:
            pass_gate(folder)
        return 2 * x

    table = make_table(db, 100, rows_per_fragment=10)
    table.add_columns({"y": slow})
    job = table.backfill_async("y")
    gate.wait()
    job.cancel()
    with pytest.raises(JobCancelled):
        job.result(60)
    assert version(table) == 2
    gate.open()
    assert table.backfill("y").rows_done == 100
    assert values(table, "y") == [2 * i for i in range(100)]


def test_append_and_compaction_meanwhile(db: Connection, gate: Gate) -> None:
    table = make_table(db, 100, rows_per_fragment=30)
    table.add_columns({"double": gated(gate)})
    job = table.backfill_async("double")
    gate.wait()
    append(table, numbers(100, 110))
    gate.open()
    assert job.result(60).rows_done == 100
    assert by_x(table, "double") == {i: 2 * i if i < 100 else None for i in range(110)}


def test_compaction_meanwhile(db: Connection, gate: Gate, log: Path) -> None:
    folder, path = str(gate.folder), str(log)

    @udf
    def double(x: int) -> int:
        log_call(path, x)
        if x == 0:
            pass_gate(folder)
        return 2 * x

    table = make_table(db, 100, rows_per_fragment=30)
    table.add_columns({"double": double})
    job = table.backfill_async("double")
    gate.wait()
    table.to_lance().delete("x % 10 = 3")
    table.to_lance().optimize.compact_files()
    gate.open()
    result = job.result(60)
    assert (len(result.replans), result.rows_done) == (1, 90)
    assert by_x(table, "double") == {i: 2 * i for i in range(100) if i % 10 != 3}
    assert calls(log) == list(range(100))


def test_function_that_workers_cannot_import(db: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "only_here.py").write_text("def f(x: int) -> int:\n    return x\n")
    monkeypatch.syspath_prepend(tmp_path)
    table = make_table(db, 10)
    table.add_columns({"y": importlib.import_module("only_here").f})
    before = files(table.uri)
    with pytest.raises(
        BackfillFailed, match=r"only_here:f cannot be loaded on a worker: .*Make the module part of what workers have"
    ):
        table.backfill("y")
    assert files(table.uri) == before


def test_worker_that_no_node_can_hold(db: Connection) -> None:
    @udf(num_cpus=10_000)
    def greedy(x: int) -> int:
        return x

    table = make_table(db, 10)
    table.add_columns({"y": greedy})
    with pytest.raises(BadInput, match="no worker can be placed: one asks for 10000 CPU"):
        table.backfill("y")
    assert version(table) == 2


def test_context_is_entered_once(ray_session: Context) -> None:
    with pytest.raises(BadInput, match="this context is open already"), ray_session:
        pass
    assert ray_session.is_open


def test_workers_of_another_shape(db: Connection) -> None:
    @udf(num_cpus=ray.cluster_resources()["CPU"])
    def wide(x: int) -> int:
        return x + 1

    table = make_table(db, 100, rows_per_fragment=10)
    table.add_columns({"y": wide, "z": importable})
    table.backfill("z")
    assert table.backfill("y").workers == 1
    assert values(table, "y") == [i + 1 for i in range(100)]
    table.backfill("z", force=True)
    assert values(table, "z") == [i * i for i in range(100)]


def test_two_jobs_at_once(db: Connection) -> None:
    table = make_table(db, 2000, rows_per_fragment=100)
    table.add_columns({"a": importable, "b": importable})
    jobs = [table.backfill_async(name) for name in ("a", "b")]
    assert [job.result(60).rows_done for job in jobs] == [2000, 2000]
    assert values(table, "a") == values(table, "b") == [i * i for i in range(2000)]


def test_two_jobs_of_different_shapes_at_once(db: Connection, gate: Gate) -> None:
    """The second needs the CPUs that the first holds, and gets them when the first is done."""

    @udf(num_cpus=ray.cluster_resources()["CPU"])
    def wide(x: int) -> int:
        return x + 1

    table = make_table(db, 100, rows_per_fragment=10)
    table.add_columns({"narrow": gated(gate), "wide": wide})
    first = table.backfill_async("narrow")
    gate.wait()
    second = table.backfill_async("wide")
    gate.open()
    assert (first.result(60).rows_done, second.result(60).rows_done) == (100, 100)
    assert values(table, "wide") == [i + 1 for i in range(100)]


def test_context_inside_a_context(db: Connection) -> None:
    """The workers of the outer one, which are idle, make room."""
    table = make_table(db, 100, rows_per_fragment=10)
    table.add_columns({"outer": importable, "inner": importable, "again": importable})
    table.backfill("outer")
    with db.context(cluster="local"):
        table.backfill("inner")
    table.backfill("again")
    assert values(table, "inner") == values(table, "again") == [i * i for i in range(100)]
