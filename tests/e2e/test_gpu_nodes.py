"""Nodes with GPUs, which Ray believes without asking for one: who runs on them, and how many at a time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

# In a process of its own: it starts a Ray of several nodes, and must not meet the one of the other tests.
PROGRAM = """
import json, os, sys
import pyarrow as pa
import ray
from ray.cluster_utils import Cluster

ports = {"dashboard_agent_listen_port": 0, "metrics_export_port": 0}
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **ports})
plain = cluster.add_node(num_cpus=2, **ports).node_id
with_gpu = cluster.add_node(num_cpus=4, num_gpus=1, **ports).node_id
cluster.wait_for_nodes()
os.environ["RAY_ADDRESS"] = cluster.address
names = {plain: "plain", with_gpu: "gpu"}
try:
    import runner

    def where(x: int) -> str:
        import os, time
        import ray
        time.sleep(0.01)
        return f"{ray.get_runtime_context().get_node_id()} {os.getpid()} {os.environ.get('CUDA_VISIBLE_DEVICES')}"

    db = runner.connect(sys.argv[1])
    table = db.create_table("t", pa.table({"x": pa.array(range(800), pa.int64())}))
    told = {}
    with db.local_ray_context():
        asked = {"cpu": {"num_cpus": 1}, "quarter": {"num_cpus": 1, "num_gpus": 0.25}}
        for name, options in asked.items():
            table.add_columns({name: runner.udf(**options)(where)})
            workers = table.backfill(name, progress=False).workers
            found = {tuple(value.split()) for value in table.to_arrow([name])[name].to_pylist()}
            told[name] = {"workers": workers, "nodes": sorted({names[node] for node, _, _ in found}),
                          "devices": sorted({device for _, _, device in found})}
    print(json.dumps(told))
finally:
    cluster.shutdown()
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="rc-", dir="/tmp") as temporary:  # short, for Ray's sockets
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(tmp_path_factory.mktemp("gpu") / "db")],
            capture_output=True,
            text=True,
            timeout=150,
            env={**os.environ, "RAY_TMPDIR": temporary},
            cwd=Path(__file__).parents[2],
        )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def test_workers_without_gpus_stay_off_nodes_with_some(told: dict[str, Any]) -> None:
    assert told["cpu"]["nodes"] == ["plain"]
    assert 1 <= told["cpu"]["workers"] <= 2


def test_workers_share_a_gpu(told: dict[str, Any]) -> None:
    assert told["quarter"]["nodes"] == ["gpu"]
    assert told["quarter"]["devices"] == ["0"]
    assert 2 <= told["quarter"]["workers"] <= 4
