"""A head that comes back with all that it knew, which a Redis in a pod has kept, in the middle of a backfill."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

import runner
from infra.spec import parse_spec
from runner.errors import JobLost
from tests.cluster.conftest import Api, eventually
from tests.cluster.live import Live
from tests.cluster.on_demand import objects_in, plain_of
from tests.cluster.pulumi_project import LIMIT_SECONDS, worker

NAMESPACE = "infill-gcs"
FEATURES = """
import time

def slow(x: int) -> int:
    time.sleep(0.2)
    return x
"""


@pytest.fixture
def redis(api: Api, namespace: str) -> str:
    """Address of a Redis in a pod."""
    container = {
        "name": "redis",
        "image": "redis:7",
        "command": ["redis-server", "--save", "", "--protected-mode", "no"],
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}},
    }
    pods = f"/api/v1/namespaces/{namespace}/pods"
    body = {"metadata": {"name": "redis", "labels": {"app": "redis"}}, "spec": {"containers": [container]}}
    api.request("POST", pods, json=body).raise_for_status()
    ports = {"selector": {"app": "redis"}, "ports": [{"port": 6379}]}
    api.request("POST", f"/api/v1/namespaces/{namespace}/services", json={"metadata": {"name": "redis"}, "spec": ports})
    status = {}

    def is_settled() -> bool:
        status.update((api.get(f"{pods}/redis") or {})["status"])
        waiting = status.get("containerStatuses", [{}])[0].get("state", {}).get("waiting", {})
        return status["phase"] == "Running" or waiting.get("reason") in ("ErrImagePull", "ImagePullBackOff", "RunContainerError")

    assert eventually(is_settled, LIMIT_SECONDS), status
    if status["phase"] != "Running":
        pytest.skip(f"no pod of redis:7 runs here: {status['containerStatuses'][0]['state']}")
    return "redis:6379"


@pytest.mark.usefixtures("operator", "pulumi_home")
def test_the_head_s_pod_is_deleted_and_its_workers_stay(
    s3: dict[str, str], api: Api, namespace: str, redis: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "features.py").write_text(FEATURES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    import features  # type: ignore[import-not-found]

    live = Live(api, namespace)
    groups = [worker("cpu", min_replicas=1, max_replicas=1)]
    spec = parse_spec(plain_of(namespace, worker_groups=groups, gcs_fault_tolerance={"redis_address": redis}))
    db = runner.connect(f"s3://faults/{namespace}", storage_options=s3)
    table = db.create_table("t", pa.table({"x": list(range(200))}))
    table.add_columns({"slow": features.slow})

    with db.context(cluster=spec):
        job = table.backfill_async("slow", concurrency=1)
        assert eventually(lambda: job.progress().rows_done > 40, LIMIT_SECONDS)
        workers = live.uids("cpu")
        (head,) = live.pods("headgroup")
        api.request("DELETE", f"/api/v1/namespaces/{namespace}/pods/{head}", params={"gracePeriodSeconds": "0"})
        with pytest.raises(JobLost, match=r"its driver has ended without a word, \d+ s ago"):  # Ray says for minutes that it runs
            job.result(LIMIT_SECONDS)
        result = table.backfill("slow", progress=False)
        assert live.uids("cpu") == workers
    assert result.rows_resumed >= 40
    assert table.to_arrow(["slow"])["slow"].to_pylist() == list(range(200))
    assert eventually(lambda: set(objects_in(api, namespace)) <= {"Pod"}, LIMIT_SECONDS)
    assert set(live.pods()) == {"redis"}
