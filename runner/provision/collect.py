"""What the provisioned clusters of a database are doing, and the removal of those that nobody will ever remove."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass

from infra.errors import InfraError
from infra.kube import Access, Kubernetes, run
from infra.labels import label_of_stack
from infra.live import find_all
from infra.spec import KubeRayClusterSpec, parse_spec
from runner.definitions import CLUSTERS, Definitions
from runner.errors import RunnerError
from runner.provision import objects
from runner.provision.deadline import seconds_left, server_time
from runner.provision.leases import ClusterBusy, cluster_lock, described, living_leases, sweep_leases
from runner.provision.reach import access_here, check_same
from runner.provision.record import Record, Records, project_of, stack_of
from runner.provision.removal import Say, remove
from runner.store import Store


@dataclass(frozen=True)
class Standing:
    """A cluster that was provisioned.

    Attributes:
        state: ``ready``, ``starting``, ``suspended`` or ``failed``, KubeRay's words; ``making`` or ``removing`` while a client does
            it; ``half-made`` and ``half-removed`` where that client is gone; ``ended`` where its time to live was over; ``orphan``
            where the database knows nothing of it; ``unknown`` where Kubernetes does not answer.
        users: who uses it, as ``user on host (process N)``.
        keep: it stays when the last of them leaves.
        seconds_left: until Kubernetes deletes it, unless it is renewed; None for ever, or where that is not known.
        made: when and by whom; empty for an orphan.
        problem: why the state is not known.
    """

    name: str
    namespace: str
    state: str
    users: tuple[str, ...] = ()
    keep: bool = False
    seconds_left: float | None = None
    made: str = ""
    problem: str = ""

    @property
    def is_garbage(self) -> bool:
        """Whether `gc` removes it: nobody can use it any more."""
        return self.state in ("half-made", "half-removed", "ended", "orphan")


@dataclass(frozen=True)
class Collected:
    """What `gc` did, or would do, with one cluster.

    Attributes:
        why: the state that makes it garbage.
        problem: why it could not be removed; empty where it was.
    """

    name: str
    namespace: str
    why: str
    problem: str = ""


def status(store: Store, name: str | None = None, *, kubeconfig: str | None = None, context: str | None = None) -> list[Standing]:
    """The provisioned clusters of a database, and those that Kubernetes has of it and it knows nothing of, by name.

    Args:
        name: only the one of that name.
        kubeconfig, context: how to reach Kubernetes from here. Default: as each cluster's spec says.
    """
    records = [record for record in Records(store).all() if name in (None, record.name)]
    found = [_standing(store, record, kubeconfig, context) for record in records]
    known = {record.name for record in records}
    orphans = [standing for standing, _ in _orphans(store, kubeconfig, context) if name in (None, standing.name)]
    return sorted([*found, *(orphan for orphan in orphans if orphan.name not in known)], key=lambda standing: standing.name)


def gc(
    store: Store,
    *,
    dry_run: bool = False,
    kubeconfig: str | None = None,
    context: str | None = None,
    say: Say = lambda _: None,
) -> list[Collected]:
    """Remove clusters that are half made or half removed, have ended, or are unknown to the database. Others are left alone: those
    in use, those that are kept, and those that go by themselves when their time to live is over.

    Args:
        dry_run: only say which.
        kubeconfig, context: how to reach Kubernetes from here. Default: as each cluster's spec says.
    """
    found = []
    for record in Records(store).all():
        standing = _standing(store, record, kubeconfig, context)
        if standing.is_garbage:
            problem = "" if dry_run else _collect(store, record, kubeconfig, context, say)
            found.append(Collected(standing.name, standing.namespace, standing.state, problem))
    for orphan, access in _orphans(store, kubeconfig, context):
        problem = "" if dry_run else _collect_orphan(store, orphan, access, say)
        found.append(Collected(orphan.name, orphan.namespace, orphan.state, problem))
    if not dry_run:
        sweep_leases(store)
    return found


def _standing(store: Store, record: Record, kubeconfig: str | None, context: str | None) -> Standing:
    state, left, problem = record.state.replace("made", "ready"), None, ""
    if record.state != "made":
        state = (
            record.state if _is_worked_on(store, record.name) else {"making": "half-made", "removing": "half-removed"}[record.state]
        )
    try:
        seen, left = run(_seen(access_here(record.cluster_spec(), kubeconfig, context), record))
        state = seen if record.state == "made" else state
    except InfraError as exc:
        problem = str(exc)
        state = "unknown" if record.state == "made" else state
    users = tuple(described(holder) for holder in living_leases(store, record.name))
    return Standing(record.name, record.namespace, state, users, record.keep, left, record.made, problem)


async def _seen(access: Access, record: Record) -> tuple[str, float | None]:
    """What Kubernetes says of a record's cluster, and the seconds that it has left."""
    kube = await Kubernetes.connect(access)
    await check_same(kube, record)
    owner, found = await asyncio.gather(objects.owner_of(kube, record), find_all(kube, record.cluster_spec()))
    if owner is None or not found:
        return "ended", 0.0
    return found[0].state, seconds_left(owner, server_time(None))


def _is_worked_on(store: Store, name: str) -> bool:
    """Whether somebody has the lock of a cluster."""
    try:
        with cluster_lock(store, name, lambda _: None, wait=False):
            return False
    except ClusterBusy:
        return True


def _collect(store: Store, record: Record, kubeconfig: str | None, context: str | None, say: Say) -> str:
    """Remove a cluster that was garbage a moment ago; the problem, where there is one."""
    try:
        with cluster_lock(store, record.name, say, wait=False):
            now = Records(store).get(record.name)
            if now is None or now.made_at != record.made_at or (now.state == "made" and record.state != "made"):
                return "somebody has taken it up meanwhile"
            access = access_here(record.cluster_spec(), kubeconfig, context)
            run(_check(access, record))
            remove(store, record, access, say)
    except (InfraError, RunnerError) as exc:
        return str(exc)
    return ""


async def _check(access: Access, record: Record) -> None:
    await check_same(await Kubernetes.connect(access), record)


def _orphans(store: Store, kubeconfig: str | None, context: str | None) -> Iterator[tuple[Standing, Access]]:
    """Clusters that bear the mark of this database in the namespaces that it has ever used, and of which it has no record."""
    known = {record.name for record in Records(store).all()}
    prefix = f"{project_of(store)}."
    for access, namespace in _places(store, kubeconfig, context):
        try:
            for name in run(_marked(access, namespace, prefix)):
                if name not in known:
                    yield Standing(name, namespace, "orphan"), access
        except (
            InfraError
        ):  # a place that cannot be asked is not one to clean up; `status` says so of the clusters known to be there
            continue


async def _marked(access: Access, namespace: str, prefix: str) -> list[str]:
    return await objects.marked(await Kubernetes.connect(access), namespace, prefix)


def _places(store: Store, kubeconfig: str | None, context: str | None) -> list[tuple[Access, str]]:
    """Kubernetes and namespace of every cluster that is or was defined or is provisioned."""
    definitions = Definitions(store, CLUSTERS)
    specs = [found.spec for found in definitions.current() if found.spec] + [record.spec for record in Records(store).all()]
    places = []
    for plain in specs:
        try:
            spec = parse_spec(plain)
            if isinstance(spec, KubeRayClusterSpec):
                places.append((access_here(spec, kubeconfig, context), spec.namespace))
        except InfraError:
            continue
    return list(dict.fromkeys(places))


def _collect_orphan(store: Store, orphan: Standing, access: Access, say: Say) -> str:
    label = label_of_stack(project_of(store), stack_of(orphan.namespace, orphan.name))
    try:
        with cluster_lock(store, orphan.name, say, wait=False):
            if Records(store).get(orphan.name) is not None:
                return "somebody has taken it up meanwhile"
            say(f"{orphan.name}: deleting it from namespace {orphan.namespace}")
            run(_delete(access, orphan, label))
    except (InfraError, RunnerError) as exc:
        return str(exc)
    return ""


async def _delete(access: Access, orphan: Standing, label: str) -> None:
    await objects.delete_marked(await Kubernetes.connect(access), orphan.namespace, orphan.name, label)
