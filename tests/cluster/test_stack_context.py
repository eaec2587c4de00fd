"""A backfill on the standing cluster of a stack, by the command line's --stack."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

import runner
from tests.cluster.conftest import Api
from tests.cluster.live import Live
from tests.cluster.pulumi_project import SMALL, Project, cluster, worker
from tests.e2e.helpers import run

ROOT = str(Path(__file__).parents[2])
FEATURES = "def double(x: int) -> int:\n    return 2 * x\n"


def test_backfill_on_a_stack_s_cluster_which_stays(
    pulumi: Callable[..., Project], api: Api, namespace: str, s3: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STORE_KEY", s3["aws_access_key_id"])
    monkeypatch.setenv("STORE_SECRET", s3["aws_secret_access_key"])
    own = {"env": {"AWS_ACCESS_KEY_ID": "${env:STORE_KEY}", "AWS_SECRET_ACCESS_KEY": "${env:STORE_SECRET}"}}
    groups = {"head_group": {**SMALL, **own}, "worker_groups": [worker("cpu", **own)]}
    project, live = pulumi("standing"), Live(api, namespace)
    project.write(cluster("images", namespace, **groups))
    project.up().ok()
    (project.folder / "features.py").write_text(FEATURES)
    db = runner.connect(f"s3://faults/{namespace}", storage_options=s3)
    table = db.create_table("t", pa.table({"x": list(range(100))}))

    options = [f"--storage-option={key}={value}" for key, value in s3.items()]
    command = [
        "-m",
        "runner",
        "backfill",
        db.uri,
        "t",
        "y",
        "--udf",
        "features:double",
        "--stack",
        project.stack,
        "--json",
        *options,
    ]
    done = run(command, project.folder, **project.variables())

    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["rows_done"], result["executor"]) == (100, "local")
    assert table.to_arrow(["y"])["y"].to_pylist() == [2 * x for x in range(100)]
    assert "aws_access_key_id, aws_secret_access_key stay here" in done.stderr
    assert (db.jobs()[0].cluster, db.jobs()[0].status) == ("images", "DONE")
    assert live.clusters() == {"images"}
    wrong = run(
        [*command[:6], "--udf", "features:double", "--stack", f"{project.stack}/image", *options],
        project.folder,
        **project.variables(),
    )
    assert (wrong.returncode, "has no cluster 'image'; it has images" in wrong.stderr) == (2, True), wrong.stderr
    project.destroy().ok()
