"""Contexts on a real Kubernetes, as on LanceDB's page: a cluster that comes, does the work, and goes or stays as asked.

https://docs.lancedb.com/geneva/jobs/contexts
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import runner
from runner import Connection, ExitMode, ManifestFactory, Table
from runner.errors import BackfillFailed, JobLost
from runner.provision.removal import down
from runner.records import JobRecords
from tests.cluster.conftest import Api, eventually
from tests.cluster.live import Live
from tests.cluster.on_demand import objects_in, spec_of
from tests.e2e.helpers import run

NAMESPACE = "infill-contexts"
ROOT = str(Path(__file__).parents[2])
SEED_EXIT_MODE = """
from geneva.runners.ray.raycluster import ExitMode

with db.context(cluster=cluster_name, manifest=manifest_name, on_exit=ExitMode.DELETE):
    fut1 = tbl.backfill_async("embedding_a")
    fut2 = tbl.backfill_async("embedding_b")
    # No need to call .result() — the context waits for both jobs
# Both jobs completed; cluster deleted
"""
SEED_NOTEBOOK = """
ctx = db.context(cluster=cluster_name, manifest=manifest_name)
ctx.__enter__()

# ... do stuff

ctx.__exit__(None,None,None)
"""

FEATURES = """
import os
import time

def place(x: int) -> str:
    return f"{x} {__file__} {os.environ['LEVEL']} {os.environ['API_TOKEN'][-4:]}"

def failing(x: int) -> int:
    raise ValueError("no embedding for it")

def slow(x: int) -> int:
    time.sleep(0.2)
    return x
"""

pytestmark = pytest.mark.usefixtures("operator", "pulumi_home")


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "workspace"
    folder.mkdir()
    (folder / "pyproject.toml").touch()
    (folder / "features.py").write_text(FEATURES)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("API_TOKEN", "tok-3f9a1c2b7d5e")
    return folder


@pytest.fixture
def db(s3: dict[str, str], namespace: str, workspace: Path) -> Connection:
    """A database on the S3 server that knows a cluster ``gpu`` and a manifest ``dev``, and a table ``t``."""
    made = runner.connect(f"s3://faults/{namespace}", storage_options=s3)
    made.define_cluster("gpu", spec_of(namespace))
    manifest = ManifestFactory.create_pip("dev").env_vars({"LEVEL": "shown", "API_TOKEN": "${env:API_TOKEN}"}).build()
    made.define_manifest("dev", manifest)
    made.create_table("t", pa.table({"x": list(range(200))}))
    return made


@pytest.fixture
def table(db: Connection) -> Table:
    import features  # type: ignore[import-not-found]

    opened = db.open_table("t")
    columns = {"embedding_a": features.place, "embedding_b": features.place, "failing": features.failing, "slow": features.slow}
    opened.add_columns(columns)
    return opened


def run_block(block: str, **names: Any) -> dict[str, Any]:
    """A block of the page with only its import line changed."""
    scope = {"cluster_name": "gpu", "manifest_name": "dev", **names}
    exec(block.replace("from geneva.runners.ray.raycluster import", "from runner import"), scope)
    return scope


def test_the_page_s_exit_mode_block(db: Connection, table: Table, api: Api, namespace: str) -> None:
    scope = run_block(SEED_EXIT_MODE, db=db, tbl=table)
    assert [scope[name].result().rows_done for name in ("fut1", "fut2")] == [200, 200]
    for column in ("embedding_a", "embedding_b"):
        rows = [text.split() for text in table.to_arrow([column])[column].to_pylist()]
        assert [int(row[0]) for row in rows] == list(range(200))
        assert {row[1].split("/packages/")[0] for row in rows} == {"/tmp/infill-1000"}  # the workspace, unpacked by Ray's user
        assert {(row[2], row[3]) for row in rows} == {("shown", "7d5e")}
    assert eventually(lambda: objects_in(api, namespace) == {}, 30)
    for record in db.jobs():
        assert (record.status, record.cluster, record.manifest) == ("DONE", "gpu", "dev")
    assert [path for path, _ in db.store.objects("") if b"3f9a1c2b7d5e" in (db.store.get(path) or b"")] == []


def test_retain_on_failure_keeps_the_cluster_says_so_and_a_joiner_never_deletes_it(
    db: Connection, table: Table, api: Api, namespace: str, capsys: pytest.CaptureFixture[str], workspace: Path
) -> None:
    live = Live(api, namespace)
    caught = pytest.raises(BackfillFailed, match="no embedding for it")
    with db.context(cluster="gpu", manifest="dev", on_exit=ExitMode.RETAIN_ON_FAILURE), caught:
        table.backfill("failing", progress=False)
    assert live.clusters() == {"gpu"}
    said = capsys.readouterr().err
    assert f"cluster gpu is kept (job {db.jobs()[0].job_id} failed)" in said
    command = f"python -m runner clusters down {db.uri} gpu"
    assert f"`{command}` removes it" in said

    pods = live.uids("headgroup")
    run_block(SEED_NOTEBOOK, db=db)
    assert live.uids("headgroup") == pods

    options = [f"--storage-option={key}={value}" for key, value in db.store.storage_options.items()]
    done = run([*command.split()[1:], *options], workspace, PYTHONPATH=ROOT)
    assert done.returncode == 0, done.stderr
    assert eventually(lambda: objects_in(api, namespace) == {}, 60)


def test_a_body_that_raises_waits_for_its_jobs_and_a_timeout_cancels_them(
    db: Connection, table: Table, api: Api, namespace: str
) -> None:
    jobs = []

    def body() -> None:
        with db.context(cluster="gpu", manifest="dev"):
            jobs.append(table.backfill_async("embedding_a"))
            raise RuntimeError("of the body")

    with pytest.raises(RuntimeError, match="of the body"):
        body()
    assert jobs[0].result().rows_done == 200
    assert eventually(lambda: objects_in(api, namespace) == {}, 30)

    with db.context(cluster="gpu", manifest="dev", wait_timeout=0):
        job = table.backfill_async("slow")
        assert eventually(lambda: job.progress().rows_done > 0, 60)
    assert db.job(job.job_id).status == "CANCELLED"
    assert eventually(lambda: objects_in(api, namespace) == {}, 30)
    with db.context(cluster="inline"):
        pass
    assert any(path.endswith(".part") for path, _ in db.store.objects("staging"))


def test_retain_leaves_the_job_running_and_another_process_follows_it(
    db: Connection, table: Table, api: Api, namespace: str
) -> None:
    with db.context(cluster="gpu", manifest="dev", on_exit=ExitMode.RETAIN):
        job = table.backfill_async("slow")
    assert not job.done()
    options = [f"--storage-option={key}={value}" for key, value in db.store.storage_options.items()]
    done = run(["-m", "runner", "jobs", "attach", db.uri, job.job_id, "--json", *options], Path.cwd(), PYTHONPATH=ROOT)
    assert done.returncode == 0, done.stderr
    assert table.to_arrow(["slow"])["slow"].to_pylist() == list(range(200))
    assert "200" in JobRecords(db.store).log(job.job_id)
    assert Live(api, namespace).clusters() == {"gpu"}
    assert down(db.store, "gpu")
    assert eventually(lambda: objects_in(api, namespace) == {}, 60)


def test_pods_that_are_deleted_cost_no_row(db: Connection, table: Table, api: Api, namespace: str) -> None:
    live = Live(api, namespace)

    def delete(group: str) -> None:
        for name in live.pods(group):
            api.request("DELETE", f"/api/v1/namespaces/{namespace}/pods/{name}", params={"gracePeriodSeconds": "0"})

    with db.context(cluster="gpu", manifest="dev"):
        job = table.backfill_async("slow", concurrency=1)
        assert eventually(lambda: job.progress().rows_done > 20, 60)
        delete("cpu")
        assert eventually(lambda: job.progress().rows_done > 60, 120)
        delete("headgroup")
        with pytest.raises(JobLost, match="cluster gpu knows of it no more"):
            job.result(120)
        result = table.backfill("slow", progress=False)
    assert result.rows_resumed > 40
    assert table.to_arrow(["slow"])["slow"].to_pylist() == list(range(200))
