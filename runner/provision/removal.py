"""Removing a provisioned cluster: from Kubernetes, from Pulumi's state, from the database; by hand, or after it."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable

from infra.errors import InfraError
from infra.kube import Access, Kubernetes, run
from infra.live import find_all, running_jobs
from runner.provision import objects
from runner.provision.leases import ClusterBusy, cluster_lock, delete_leases, described, living_leases
from runner.provision.reach import access_here, check_same
from runner.provision.record import Record, Records
from runner.provision.stack import ClusterStack
from runner.store import Store

Say = Callable[[str], None]

ENDING_SECONDS = 5.0
"""A job that has published its column may take to end."""


def down(
    store: Store,
    name: str,
    *,
    kubeconfig: str | None = None,
    context: str | None = None,
    force: bool = False,
    forget: bool = False,
    say: Say = lambda _: None,
) -> bool:
    """Remove a provisioned cluster whoever made it: its objects in Kubernetes, its Pulumi stack with state, history and lock, its
    leases.

    What is gone already, by its time to live for example, is no error.

    Args:
        kubeconfig, context: how to reach its Kubernetes from here; see `access_here` for the default.
        force: although others use it, or jobs run on it.
        forget: ask Kubernetes nothing; for one that exists no more.

    Returns:
        False where the database has no such cluster.

    Raises:
        ClusterBusy: others use it or jobs run on it, and not `force`.
        infra.InfraError: Kubernetes or Pulumi refuses; what is left is shown by `status`, and `down` goes on with it.
    """
    with cluster_lock(store, name, say):
        record = Records(store).get(name)
        if record is None:
            return False
        users = living_leases(store, name)
        if users and not force:
            raise ClusterBusy(f"cluster {name} is used by {', '.join(map(described, users))}; wait for them, or force it")
        if forget:
            _forget(store, record, Access(None))
            return True
        access = access_here(record.cluster_spec(), kubeconfig, context)
        run(_check_removable(access, record, force))
        remove(store, record, access, say)
        return True


def remove(store: Store, record: Record, access: Access, say: Say) -> None:
    """Remove all of a cluster. Call it under the cluster's lock; interrupted anywhere, a later call goes on."""
    if record.state != "removing":
        record = dataclasses.replace(record, state="removing")
        Records(store).put(record)
    ClusterStack(store, record, access).wait_for_pulumi()
    say(f"{record.name}: deleting it from namespace {record.namespace}")
    run(_delete_objects(access, record))
    _forget(store, record, access)
    say(f"{record.name}: gone")


async def _delete_objects(access: Access, record: Record) -> None:
    kube = await Kubernetes.connect(access)
    await objects.delete_marked(kube, record.namespace, record.name, record.label)


def _forget(store: Store, record: Record, access: Access) -> None:
    """What the database has of a cluster; the record last, for it is what leads to the rest."""
    ClusterStack(store, record, access).remove()
    delete_leases(store, record.name)
    Records(store).delete(record.name)


def remove_failed(store: Store, name: str, access: Access, say: Say) -> None:
    """What a provisioning that failed has made, unless others have joined it meanwhile. The failure is what is raised."""
    try:
        with cluster_lock(store, name, say):
            record = Records(store).get(name)
            if record is not None and not living_leases(store, name):
                remove(store, record, access, say)
    except InfraError as exc:
        say(f"{name}: not all of it could be removed: {exc}; `python -m runner clusters gc {store.uri}` tries again")


async def _check_removable(access: Access, record: Record, force: bool) -> None:
    kube = await Kubernetes.connect(access)
    await check_same(kube, record)
    if force:
        return
    for live in await find_all(kube, record.cluster_spec()):
        end = time.monotonic() + ENDING_SECONDS
        while (jobs := await running_jobs(kube, live)) and time.monotonic() < end:
            await asyncio.sleep(0.5)
        if jobs:
            raise ClusterBusy(f"jobs run on cluster {record.name}: {', '.join(jobs)}; wait for them, cancel them, or force it")
