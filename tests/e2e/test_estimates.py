"""What an estimate measures, on real tables: it calls the function, and leaves everything as it was."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from infra.prices import PriceTable
from infra.spec import KubeRayClusterSpec
from runner import Connection, Context, udf
from runner.cli.main import app
from runner.errors import BadInput, RunnerError, WorkerLost
from runner.estimating import SampleSize
from tests.e2e.helpers import calls, doubling, failing_while, files, log_call, make_table, values


def test_the_sample_calls_rows_of_several_fragments_and_writes_nothing(inline: Connection, log: Path) -> None:
    table = make_table(inline, 4000, rows_per_fragment=1000)
    table.add_columns({"y": doubling(log)})
    before = files(Path(inline.uri))
    found = table.estimate("y", sample=SampleSize(rows=200))
    assert (found.plan.rows, found.tasks, found.workers.count, found.sampled, found.failed) == (4000, 4, 1, 200, 0)
    assert calls(log) == sorted([0, *range(50), *range(1000, 1050), *range(2000, 2050), *range(3000, 3050)])  # row 0 warms up
    assert found.seconds is not None
    assert found.samples[0].row_bytes == 8.0
    assert files(Path(inline.uri)) == before
    assert table.backfill("y").rows_done == 4000
    assert values(table, "y") == [2 * x for x in range(4000)]


def test_bytes_are_those_of_the_inputs_of_the_rows_that_are_left(inline: Connection, log: Path) -> None:
    table = make_table(inline, 1000)
    table.add_columns({"y": doubling(log)})
    stored = {field.id: field.bytes_on_disk for field in table.to_lance().stats.data_stats().fields}
    assert table.estimate("y").stored_bytes == stored[0]  # x, and not s
    assert table.estimate("y", where="x < 250").stored_bytes == round(stored[0] / 4)
    assert table.estimate("y").seconds is None
    assert calls(log) == []


def test_errors_of_the_sample_are_counted_and_shown(inline: Connection, log: Path, tmp_path: Path) -> None:
    (tmp_path / "broken").touch()
    table = make_table(inline, 100)
    table.add_columns({"y": failing_while(tmp_path / "broken", [3, 4, 90], log)})
    found = table.estimate("y", sample=SampleSize(rows=50))
    assert (found.sampled, found.failed) == (50, 2)
    assert {failure.message for failure in found.samples[0].failures} == {"no value for 3", "no value for 4"}


def test_setup_of_a_class_is_measured_once(inline: Connection, log: Path) -> None:
    path = str(log)

    @udf
    class Slow:
        def setup(self) -> None:
            log_call(path, 1)
            time.sleep(0.05)

        def __call__(self, x: int) -> int:
            return x

    table = make_table(inline, 4000, rows_per_fragment=1000)
    table.add_columns({"y": Slow()})
    found = table.estimate("y", sample=SampleSize(rows=100))
    assert calls(log) == [1]
    assert found.setup_seconds >= 0.05


def test_a_setup_that_fails_is_told(inline: Connection) -> None:
    @udf
    class Broken:
        def setup(self) -> None:
            raise OSError("no model here")

        def __call__(self, x: int) -> int:
            return x

    table = make_table(inline, 10)
    table.add_columns({"y": Broken()})
    with pytest.raises(RunnerError, match=r"Broken\.setup failed on a worker: OSError: no model here"):
        table.estimate("y", sample=SampleSize(rows=5))


def test_a_function_that_returns_something_else_is_told(inline: Connection) -> None:
    @udf(data_type=pa.int64())
    def short(x: pa.Array) -> pa.Array:
        return x.slice(1)

    table = make_table(inline, 10)
    table.add_columns({"y": short})
    with pytest.raises(RunnerError, match=r"y: the function .*"):
        table.estimate("y", sample=SampleSize(rows=5))


def test_coroutines_are_sampled_many_at_once_under_their_rate_limit(inline: Connection) -> None:
    @udf(concurrency=8)
    async def waits(x: int) -> int:
        await asyncio.sleep(0.02)
        return x

    @udf(rate_limit=1000)
    async def limited(x: int) -> int:
        return x

    table = make_table(inline, 100_000)
    table.add_columns({"y": waits, "z": limited})
    found = table.estimate("y", sample=SampleSize(rows=80))
    assert found.samples[0].row_seconds >= 0.02 / 16  # 16 are in flight: no faster than the waiting allows
    assert found.sampled == 80
    limits = table.estimate("z", sample=SampleSize(rows=20), cluster="inline")
    assert limits.compute_seconds >= 100.0  # 100,000 rows at 1,000 a second


def test_on_the_workers_of_a_local_ray(db: Connection, ray_session: Context, log: Path) -> None:
    table = make_table(db, 4000, rows_per_fragment=1000)
    table.add_columns({"y": doubling(log)})
    found = table.estimate("y", sample=SampleSize(rows=100))
    assert len(found.samples) == found.workers.count
    assert found.workers.start_seconds == 0.0  # they are up
    assert found.sampled >= 100
    assert len(set(calls(log))) >= 100


def test_a_function_that_kills_its_worker(db: Connection, ray_session: Context, log: Path) -> None:
    """The dead worker is replaced: the backfill after it loses none."""

    @udf
    def kills(x: int) -> int:
        os._exit(7)

    table = make_table(db, 40)
    table.add_columns({"y": kills, "z": doubling(log)})
    with pytest.raises(WorkerLost, match="a worker died in the sample: "):
        table.estimate("y", sample=SampleSize(rows=4))
    assert table.backfill("z").rows_done == 40
    assert calls(log) == list(range(40))


def test_a_cluster_that_is_defined_is_sampled_here_and_priced(inline: Connection, log: Path) -> None:
    group = {"cpus": 2, "memory": "8Gi", "max_replicas": 2}
    spec = KubeRayClusterSpec.parse({"name": "small", "head_group": {"cpus": 1, "memory": "2Gi"}, "worker_groups": [group]})
    inline.define_cluster("small", spec)
    table = make_table(inline, 4000, rows_per_fragment=1000)
    table.add_columns({"y": doubling(log)})
    prices = PriceTable(source="a test", currency="EUR", per_cpu=1.0, per_gib=0.0)
    found = table.estimate("y", sample=SampleSize(rows=20), cluster="small", prices=prices)
    assert (found.workers.count, found.workers.pods) == (4, {"head": 1, "cpu": 2})
    assert found.workers.is_start_assumed
    assert found.seconds is not None
    assert found.cost == pytest.approx((1.5 + 2 * 2) * found.seconds / 3600)  # a head with its autoscaler, and two workers
    assert found.currency == "EUR"


def test_columns_that_feed_each_other_are_not_sampled(inline: Connection, log: Path) -> None:
    @udf
    def more(y: int) -> int:
        return y + 1

    table = make_table(inline, 10)
    table.add_columns({"y": doubling(log), "z": more})
    assert table.estimate(["y", "z"]).tasks == 2
    with pytest.raises(BadInput, match=r"y, z feed each other.*estimate y first"):
        table.estimate(["y", "z"], sample=SampleSize(rows=5))


def test_the_command(inline: Connection, log: Path, tmp_path: Path) -> None:
    (tmp_path / "broken").touch()
    table = make_table(inline, 100)
    table.add_columns({"y": failing_while(tmp_path / "broken", [7], log)})
    command = ["plan", inline.uri, "t", "y", "--cluster", "inline"]
    without = CliRunner().invoke(app, command)
    assert "--sample 2s runs the function on some rows" in without.stdout
    with_sample = CliRunner().invoke(app, [*command, "--sample", "20"])
    assert "  failed            1 rows of the sample\n                    ValueError: no value for 7\n" in with_sample.stdout
    assert "  time              about " in with_sample.stdout
    found = json.loads(CliRunner().invoke(app, [*command, "--sample", "20", "--json"]).stdout)
    assert (found["rows"], found["estimate"]["tasks"], found["estimate"]["sample"]["rows"]) == (100, 1, 20)
    assert found["estimate"]["seconds"] == pytest.approx(sum(found["estimate"]["phases"].values()))
    wrong = CliRunner().invoke(app, [*command, "--prices", "prices.yaml"])
    assert (wrong.exit_code, "name one by --cluster" in wrong.stderr) == (2, True)
