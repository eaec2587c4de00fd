"""A cluster that starts with no workers: the pool must show its demand, and use the nodes that come, but wait for none it does
not need. The test plays the autoscaler: it adds a node once it sees demand, as KubeRay's would.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

# In a process of its own: it starts a Ray of several nodes, and must not meet the one of the other tests.
PROGRAM = """
import json, os, sys, time
import pyarrow as pa
import ray
from ray.autoscaler.v2.sdk import get_cluster_status
from ray.cluster_utils import Cluster

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
os.environ["RAY_ADDRESS"] = cluster.address
try:
    import runner

    db = runner.connect(sys.argv[1])
    table = db.create_table("t", pa.table({"x": pa.array(range(4000), pa.int64())}))

    @runner.udf
    def slow_double(x: int) -> int:
        import time
        time.sleep(0.002)
        return 2 * x

    table.add_columns({"doubled": slow_double})
    with db.local_ray_context():
        job = table.backfill_async("doubled")
        demand = 0
        while not demand:
            assert not job.done(), job.result()
            demand = len(get_cluster_status(cluster.address).resource_demands.ray_task_actor_demand)
        cluster.add_node(num_cpus=1)
        result = job.result(timeout=60)
    values = table.to_arrow(["doubled"])["doubled"].to_pylist()
    connected = ray.is_initialized()
    ray.init(os.environ["RAY_ADDRESS"], logging_level="ERROR")
    nodes = sum(node["Alive"] for node in ray.nodes())
    print(json.dumps({"right": values == [2 * x for x in range(4000)], "demand": demand, "workers": result.workers,
                      "connected": connected, "nodes": nodes}))
    ray.shutdown()
finally:
    cluster.shutdown()
"""


def test_a_cluster_without_workers_sees_the_demand_and_is_used_when_it_grows(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(tmp_path / "db")], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.strip().splitlines()[-1])
    assert told["right"]
    assert told["demand"] >= 1
    assert told["workers"] == 1
    assert not told["connected"], "a joined Ray is left when the context closes"
    assert told["nodes"] == 2, "a joined Ray is never stopped"
