"""The registry of definitions on a real S3 server."""

from __future__ import annotations

import json
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from faults_processes import cli, spawned

import runner
from infra import KubeRayClusterSpec, parse_spec
from runner.connection import Connection
from runner.definitions import Definition
from runner.errors import BadInput, StorageError
from runner.store import Store


@pytest.fixture
def database(s3: dict[str, str]) -> Connection:
    return runner.connect(f"s3://faults/{uuid.uuid4().hex}", storage_options=s3)


def spec(cpus: int) -> KubeRayClusterSpec:
    made = parse_spec({"name": "dev", "head_group": {"cpus": cpus}})
    assert isinstance(made, KubeRayClusterSpec)
    return made


def objects(database: Connection) -> list[str]:
    return sorted(path for path, _ in database.store.objects(""))


def test_definitions_change_and_go_and_their_history_stays(database: Connection) -> None:
    assert database.list_clusters() == []
    assert database.define_cluster("dev", spec(2)).revision == 1
    assert not database.define_cluster("dev", spec(2)).is_new
    assert database.define_cluster("dev", spec(4)).revision == 2
    assert database.get_cluster("dev") == spec(4)
    assert database.list_clusters() == [spec(4)]
    database.delete_cluster("dev")
    assert database.list_clusters() == []
    with pytest.raises(BadInput, match=r"cluster 'dev' of s3://.* was deleted"):
        database.get_cluster("dev")
    assert [each.spec and parse_spec(each.spec) for each in database.cluster_history("dev")] == [None, spec(4), spec(2)]
    assert objects(database) == [f"clusters/dev/00000{number}.json" for number in (1, 2, 3)]


class MeetingStore(Store):
    """Lets nobody create before all have come to their first create: all have read the same latest revision by then."""

    def __init__(self, store: Store, parties: int) -> None:
        super().__init__(store.uri, store.storage_options)
        self._barrier = threading.Barrier(parties, timeout=60)
        self._met = threading.local()

    def create(self, path: str, data: bytes) -> bool:
        if not getattr(self._met, "once", False):
            self._met.once = True
            self._barrier.wait()
        return super().create(path, data)


def test_of_those_who_define_at_once_none_is_lost(database: Connection) -> None:
    database.define_cluster("dev", spec(1))
    everybody = runner.connect(database.uri)
    everybody.store = MeetingStore(database.store, 4)

    def define(cpus: int) -> Definition:
        return everybody.define_cluster("dev", spec(cpus))

    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(define, range(2, 6)))
    history = database.cluster_history("dev")
    assert [each.revision for each in history] == [5, 4, 3, 2, 1]
    assert sorted(made, key=lambda each: -each.revision) == history[:4]
    assert sorted(each.spec["head_group"]["cpus"] for each in history if each.spec) == ["1", "2", "3", "4", "5"]


def test_the_command_line_with_storage_options(database: Connection, s3: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "dev.yaml"
    file.write_text("{name: dev, namespace: ray}")
    options = [f"--storage-option={key}={value}" for key, value in s3.items()]

    for command in (("define", database.uri, str(file)), ("list", database.uri)):
        with spawned(cli("clusters", *command, "--json", *options), tmp_path) as child:
            assert child.wait() == 0, child.text()
    (listed,) = json.loads(child.output.with_suffix(".json").read_text())
    assert (listed["name"], listed["spec"]) == ("dev", {"kind": "kuberay", "name": "dev", "namespace": "ray"})
    stored = database.store.get("clusters/dev/000001.json")
    assert stored is not None
    assert json.loads(stored) == listed
    assert s3["aws_secret_access_key"].encode() not in stored


def test_a_refused_key_is_one_message(database: Connection, s3: dict[str, str]) -> None:
    database.define_cluster("dev", spec(1))
    stranger = runner.connect(database.uri, storage_options={**s3, "aws_secret_access_key": "not this one"})
    for call in (stranger.list_clusters, lambda: stranger.define_cluster("dev", spec(2)), lambda: stranger.delete_cluster("dev")):
        with pytest.raises(StorageError, match=f"cannot list {database.uri}/_runner/(clusters|policy)"):
            call()
    assert database.list_clusters() == [spec(1)]
