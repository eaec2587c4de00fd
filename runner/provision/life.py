"""The life of an on-demand cluster: made or joined, kept alive, let go of, removed."""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from infra.body import env_secret_data, ray_cluster_body
from infra.errors import InfraError
from infra.gate import inspect
from infra.kube import Access, Kubernetes, access_of, run, server_of
from infra.live import LiveCluster, find_all
from infra.live import differences as live_differences
from infra.spec import KubeRayClusterSpec
from infra.wait import wait_ready
from runner.errors import BadInput
from runner.policies import check_on_demand
from runner.provision import objects
from runner.provision.deadline import ClusterEnded, deadline_name
from runner.provision.leases import ClusterLease, cluster_lock, living_leases
from runner.provision.reach import check_same
from runner.provision.record import Record, Records, as_provisioned, project_of, spec_differences, stack_of
from runner.provision.removal import Say, remove, remove_failed
from runner.provision.stack import ClusterStack, pulumi_command
from runner.records import now, user
from runner.store import Store

Reuse = Literal["match", "always", "never"]

TIME_TO_LIVE = 1800.0
"""Seconds that a cluster outlives its last client and job by, unless it is told otherwise."""
LEAST_TIME_TO_LIVE = 30.0
RENEWALS = 4
"""Renewals of the time to live within it."""


class ClusterDiffers(BadInput):
    """A cluster of that name runs, of another spec, or where none is to be reused. It was not changed."""


@dataclass
class Provisioned:
    """A cluster that serves, and this process's lease on it. `release` ends the lease.

    Attributes:
        spec: as it runs; Ray and Python version are said in it.
        access: how this process reaches its Kubernetes.
        joined: others had made it.
        time_to_live: seconds that each renewal gives; None for ever.
        owner: uid of the Job in Kubernetes that owns all of it; a cluster that is made anew has another.
    """

    store: Store
    name: str
    namespace: str
    spec: KubeRayClusterSpec
    access: Access
    joined: bool
    time_to_live: float | None
    owner: str
    lease: ClusterLease


def up(
    store: Store,
    spec: KubeRayClusterSpec,
    *,
    reuse: Reuse = "match",
    time_to_live: float | None = TIME_TO_LIVE,
    keep: bool = False,
    keep_failed: bool = False,
    secrets: Mapping[str, str] | None = None,
    workers: bool = True,
    say: Say = lambda _: None,
) -> Provisioned:
    """Provision a cluster, or join the one that runs, and wait until its head serves.

    Args:
        store: of the database that knows it.
        spec: what is to run.
        reuse: what to do where a cluster of that name runs already. ``"match"`` joins it if its spec is the same and refuses
            another, ``"always"`` joins it as it is, ``"never"`` refuses any. It is never changed.
        time_to_live: seconds after which Kubernetes deletes a cluster that nobody renews; None for never. At least 30. While the
            result is not released this process renews it. Of a cluster that is joined, the time it was made with counts.
        keep: the end of the last lease does not delete it. Of a cluster that is joined, what it was made with counts.
        keep_failed: leave a cluster that does not start for others to look at. Default: it is removed.
        secrets: storage options that nobody is to see, for the drivers on its head: they are in a Secret of Kubernetes and, as
            JSON, in the head's variable `record.SECRET_OPTIONS`. A cluster that is joined has those that it was made with.
        workers: wait for the workers that there are at least, too, and not for the head alone.
        say: called with progress, in a person's words.

    Raises:
        ClusterDiffers: another one runs; with the fields that differ.
        BadInput: a wrong argument, or a spec that cannot be provisioned on demand.
        infra.policy.PolicyRefused: the database's policy forbids it; with rule, field and value.
        infra.InfraError: no Pulumi CLI (how to install it), no rights (which), Kubernetes refuses, or it does not start in time.
    """
    _check_arguments(spec, reuse, time_to_live)
    check_on_demand(store, spec, time_to_live)
    pulumi_command()
    wanted, access = as_provisioned(spec, has_options=bool(secrets)), access_of(spec)
    lease = _Keeper(store, spec.name, access)
    made = False
    try:
        with cluster_lock(store, spec.name, say):
            record = _usable(store, wanted, access, reuse, say)
            made = record is None
            if record is None:
                record = _make(store, wanted, access, time_to_live, keep, secrets or {}, say)
        running = record.cluster_spec()
        running = running.model_copy(
            update={name: getattr(spec, name) for name in ("ready_timeout_seconds", "unschedulable_seconds")}
        )
        lease.keep(record)
        run(_wait(access, running, say, workers))
    except BaseException:
        lease.end()
        if made and not keep_failed:
            remove_failed(store, spec.name, access, say)
        raise
    return Provisioned(store, record.name, record.namespace, running, access, not made, record.time_to_live, record.owner, lease)


def preview(store: Store, spec: KubeRayClusterSpec, time_to_live: float | None = TIME_TO_LIVE) -> str:
    """What `up` would do now, for people. Nothing is made.

    Raises:
        BadInput: a spec that cannot be provisioned on demand.
        infra.policy.PolicyRefused: the database's policy forbids it; with rule, field and value.
        infra.InfraError: no Pulumi CLI, or Kubernetes cannot be asked.
    """
    _check_arguments(spec, "match", time_to_live)
    check_on_demand(store, spec, time_to_live)
    wanted, access = as_provisioned(spec), access_of(spec)
    record = Records(store).get(wanted.name)
    if record is not None and record.state == "made" and run(_live(access, record)) is not None:
        differs = spec_differences(record.spec, wanted.plain())
        if differs:
            return f"{record.name} runs already and differs, so it would be refused: {'; '.join(differs)}"
        return f"{record.name} runs already, of the same spec: it would be joined"
    made = _new_record(store, wanted, access, time_to_live=time_to_live, keep=False)
    made = dataclasses.replace(made, stack=f"{made.stack}-preview")
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": deadline_name(wanted.name), "uid": "made-with-the-cluster"}
    return ClusterStack(store, made, access).preview(wanted, owner)


def renew(provisioned: Provisioned, time_to_live: float | None = None) -> bool:
    """Let a cluster live for so many more seconds, by default as many as it was made with. `up` does so until `release`.

    Returns:
        Whether it was renewed; False where it has no end, or a later one.

    Raises:
        ClusterEnded: its time is over, and Kubernetes deletes it.
        infra.InfraError: Kubernetes cannot be asked.
    """
    seconds = time_to_live if time_to_live is not None else provisioned.time_to_live
    return seconds is not None and run(_renew(provisioned.access, provisioned.namespace, provisioned.name, seconds))


def release(provisioned: Provisioned, *, keep: bool = False, for_ever: bool = False, say: Say = lambda _: None) -> bool:
    """End this process's use of a cluster, and delete it where nobody else uses it and it is not to be kept.

    Args:
        keep: from now on the end of the last lease does not delete it; its time to live still does, where it has one.
        for_ever: keep it, and take its time to live away as well.

    Returns:
        Whether it was deleted.

    Raises:
        infra.InfraError: it could not be deleted; `down` and `gc` try again. Or its time to live was over before it was taken away.
    """
    store, name = provisioned.store, provisioned.name
    with cluster_lock(store, name, say):
        provisioned.lease.end()
        record = Records(store).get(name)
        if record is None or record.owner != provisioned.owner:  # others have removed it, and may have made another
            return False
        if for_ever and record.time_to_live is not None:
            run(_live_for_ever(provisioned.access, record))
            record = dataclasses.replace(record, time_to_live=None)
        if keep or for_ever:
            record = dataclasses.replace(record, keep=True)
            Records(store).put(record)
        if record.keep or living_leases(store, name):
            return False
        remove(store, record, provisioned.access, say)
        return True


class _Keeper(ClusterLease):
    """A lease that renews the cluster's time to live as well."""

    def __init__(self, store: Store, cluster: str, access: Access) -> None:
        self._access = access
        self._record: Record | None = None
        self._next = 0.0
        self._renewing = threading.Lock()
        super().__init__(store, cluster, self._renew_in_time)

    def keep(self, record: Record) -> None:
        """Begin to renew the time to live."""
        self._record = record

    def _renew_in_time(self) -> None:
        """In a thread of its own: a Kubernetes that does not answer is no reason to let the lease expire."""
        due = self._record is not None and self._record.time_to_live is not None and time.monotonic() >= self._next
        if due and self._renewing.acquire(blocking=False):
            threading.Thread(target=self._renew, name="runner-time-to-live", daemon=True).start()

    def _renew(self) -> None:
        record = self._record
        assert record is not None
        assert record.time_to_live is not None
        try:
            # One that fails is tried again with the next renewal of the lease; whoever uses an ended cluster notices.
            with contextlib.suppress(InfraError, ClusterEnded):
                run(_renew(self._access, record.namespace, record.name, record.time_to_live))
                self._next = time.monotonic() + record.time_to_live / RENEWALS
        finally:
            self._renewing.release()


async def _live_for_ever(access: Access, record: Record) -> None:
    await objects.live_for_ever(await Kubernetes.connect(access), record.namespace, record.name)


def _check_arguments(spec: KubeRayClusterSpec, reuse: str, time_to_live: float | None) -> None:
    if not isinstance(spec, KubeRayClusterSpec):
        kind = getattr(spec, "kind", type(spec).__name__)
        raise BadInput(f"only a cluster of kind kuberay is provisioned on demand, not {kind}")
    if reuse not in get_args(Reuse):
        raise BadInput(f"reuse={reuse!r} is none of {', '.join(get_args(Reuse))}")
    if time_to_live is not None and not time_to_live >= LEAST_TIME_TO_LIVE:
        raise BadInput(f"time_to_live={time_to_live!r} is less than {LEAST_TIME_TO_LIVE:g} seconds; None is for ever")
    if spec.protect:
        raise BadInput(
            f"cluster {spec.name!r}: protect: an on-demand cluster is deleted after use; drop it, or `pulumi up` a stack"
        )
    spec.check_provisionable()


def _usable(store: Store, wanted: KubeRayClusterSpec, access: Access, reuse: Reuse, say: Say) -> Record | None:
    """The record of the cluster that runs and may be joined; None where none runs, and nothing is left of one."""
    record = Records(store).get(wanted.name)
    if record is None:
        return None
    live = run(_live(access, record))
    if record.state != "made" or live is None:
        what = "its time to live was over" if record.state == "made" else f"whoever was {record.state} it has gone"
        say(f"{record.name}: removing what is left of the cluster of {record.made_at}: {what}")
        remove(store, record, access, say)
        return None
    whose = f"cluster {record.name} runs already in namespace {record.namespace}, made {record.made}"
    remedy = f"`python -m runner clusters down {store.uri} {record.name}` removes it"
    if reuse == "never":
        raise ClusterDiffers(f"{whose}, and none is to be reused (reuse='never'); {remedy}")
    differs = spec_differences(record.spec, wanted.plain()) or [
        str(change) for change in live_differences(record.cluster_spec(), live)
    ]
    if differs and reuse == "match":
        raise ClusterDiffers(f"{whose}, and differs: {'; '.join(differs)}. {remedy}; reuse='always' takes it as it is")
    say(f"{record.name}: joined the cluster made {record.made}")
    return record


def _make(
    store: Store,
    spec: KubeRayClusterSpec,
    access: Access,
    time_to_live: float | None,
    keep: bool,
    secrets: Mapping[str, str],
    say: Say,
) -> Record:
    record = _new_record(store, spec, access, time_to_live=time_to_live, keep=keep)
    run(_prepare(access, spec, record, say))
    records = Records(store)
    records.put(record)
    owner = run(_make_owner(access, spec, record, secrets))
    record = dataclasses.replace(record, owner=owner["uid"])
    say(f"{spec.name}: declaring it in namespace {spec.namespace}")
    ClusterStack(store, record, access).make(spec, owner)
    record = dataclasses.replace(record, state="made")
    records.put(record)
    return record


def _new_record(store: Store, spec: KubeRayClusterSpec, access: Access, *, time_to_live: float | None, keep: bool) -> Record:
    return Record(
        name=spec.name,
        namespace=spec.namespace,
        kubernetes=server_of(access) or "",
        project=project_of(store),
        stack=stack_of(spec.namespace, spec.name),
        spec=spec.plain(),
        keep=keep,
        time_to_live=time_to_live,
        made_at=now(),
        user=user(),
        host=socket.gethostname(),
    )


async def _prepare(access: Access, spec: KubeRayClusterSpec, record: Record, say: Say) -> None:
    """All that can be refused before anything is made; and what a database that has lost its record left behind, removed."""
    env_secret_data(spec)
    kube = await Kubernetes.connect(access)
    await objects.check_rights(kube, spec)
    if record.name in await objects.marked(kube, record.namespace, record.label):
        say(f"{record.name}: removing a cluster that this database made and knows no more")
        await objects.delete_marked(kube, record.namespace, record.name, record.label)
    await inspect(access, spec, None, stack=record.label, adopt=False, may_end_jobs=False, say=say, warn=say)


async def _make_owner(access: Access, spec: KubeRayClusterSpec, record: Record, secrets: Mapping[str, str]) -> dict[str, Any]:
    kube = await Kubernetes.connect(access)
    owner = await objects.make_owner(kube, record)
    await objects.make_secrets(kube, spec, record, owner, secrets)
    return owner


async def _live(access: Access, record: Record) -> LiveCluster | None:
    """The record's cluster as it runs; None where Kubernetes has ended it."""
    kube = await Kubernetes.connect(access)
    await check_same(kube, record)
    if await objects.owner_of(kube, record) is None or await objects.time_left(kube, record.namespace, record.name) == 0:
        return None
    return next(iter(await find_all(kube, record.cluster_spec())), None)


async def _wait(access: Access, spec: KubeRayClusterSpec, say: Say, workers: bool) -> None:
    await wait_ready(await Kubernetes.connect(access), spec, ray_cluster_body(spec), say=say, workers=workers)


async def _renew(access: Access, namespace: str, cluster: str, seconds: float) -> bool:
    return await objects.renew(await Kubernetes.connect(access), namespace, cluster, seconds)
