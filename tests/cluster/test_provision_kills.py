"""On-demand clusters of clients that are killed: what is left, what is said of it, who removes it."""

from __future__ import annotations

import pytest

from runner.connection import connect
from runner.provision import collect, life
from runner.store import Store
from tests.cluster.conftest import Api, eventually
from tests.cluster.live import Live
from tests.cluster.on_demand import GONE_SECONDS, kept, killed, objects_in, spec_of, states

NAMESPACE = "od-tests"
LIVES_SECONDS = 40.0


def test_kubernetes_ends_the_cluster_of_a_killed_client(store: Store, api: Api, namespace: str) -> None:
    killed(store, namespace, "serving", seconds=LIVES_SECONDS)
    assert Live(api, namespace).clusters() == {"gpu"}
    (standing,) = collect.status(store)
    assert (standing.state, standing.users) == ("ready", ())
    assert 0 < (standing.seconds_left or 0) <= LIVES_SECONDS
    assert collect.gc(store) == []  # a job may still run on it
    assert eventually(lambda: objects_in(api, namespace) == {}, GONE_SECONDS)
    assert states(store) == ["ended"]
    assert collect.gc(store) == [collect.Collected("gpu", namespace, "ended")]
    assert kept(store) == []


@pytest.mark.parametrize(
    ("point", "state"),
    [
        ("recorded", "half-made"),
        ("owner made", "half-made"),
        ("program begun", "half-made"),
        ("raycluster seen", "half-made"),
        ("declared", "half-made"),
        ("removal begun", "half-removed"),
        ("objects gone", "half-removed"),
    ],
)
def test_what_a_killed_client_leaves_is_listed_and_collected(
    store: Store, api: Api, namespace: str, point: str, state: str
) -> None:
    killed(store, namespace, point, suspend=True)
    left = objects_in(api, namespace)
    assert states(store) == [state]
    assert collect.gc(store, dry_run=True) == [collect.Collected("gpu", namespace, state)]
    assert objects_in(api, namespace) == left
    assert collect.gc(store) == [collect.Collected("gpu", namespace, state)]
    assert objects_in(api, namespace) == {}
    assert kept(store) == []


@pytest.mark.parametrize("point", ["program begun", "raycluster seen", "removal begun"])
def test_the_next_client_makes_a_whole_cluster_of_what_a_killed_one_left(
    store: Store, api: Api, namespace: str, point: str
) -> None:
    killed(store, namespace, point, suspend=True)
    said: list[str] = []
    made = life.up(store, spec_of(namespace, suspend=True), say=said.append)
    assert said[0].startswith("gpu: removing what is left of the cluster of ")
    assert not made.joined
    assert states(store) == ["suspended"]
    assert life.release(made) is True
    assert objects_in(api, namespace) == {}
    assert kept(store) == []


def test_a_cluster_that_the_database_has_forgotten_is_found_by_its_labels(store: Store, api: Api, namespace: str) -> None:
    connect(store.uri).define_cluster("gpu", spec_of(namespace, suspend=True))
    life.release(life.up(store, spec_of(namespace, suspend=True)), keep=True)
    store.delete_folder("provisioned")
    assert states(store) == ["orphan"]
    assert collect.gc(store) == [collect.Collected("gpu", namespace, "orphan")]
    assert objects_in(api, namespace) == {}
