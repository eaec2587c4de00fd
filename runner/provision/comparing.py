"""What a database defines against what Kubernetes has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from infra.body import ray_cluster_body
from infra.drift import Declared, Drift, compare
from infra.errors import InfraError
from infra.kube import access_of
from infra.spec import KubeRayClusterSpec
from runner.provision.record import Record, Records, as_provisioned
from runner.remote.remote_driver import SECRET_OPTIONS

if TYPE_CHECKING:
    from runner.connection import Connection


def drift_of_definitions(connection: Connection) -> list[Drift]:
    """Each cluster that a database defines, where it runs, and those that it has provisioned and defines no more.

    A cluster that does not run is no difference: it comes when it is needed.
    """
    records = {record.name: record for record in Records(connection.store).all()}
    declared: list[Declared] = []
    lost: list[Drift] = []
    for spec in connection.list_clusters():
        if not isinstance(spec, KubeRayClusterSpec):
            continue
        record = records.get(spec.name)
        wanted = _as_made(spec, record) if record else spec
        try:
            declared.append(Declared(ray_cluster_body(wanted), access_of(spec), wanted, optional=True))
        except InfraError as exc:
            lost.append(Drift("RayCluster", spec.name, spec.namespace, "unknown", note=str(exc)))
    known = {item.spec.name for item in declared if item.spec} | {drift.name for drift in lost}
    left = [
        Drift("RayCluster", record.name, record.namespace, "undeclared", note=f"provisioned {record.made}, and defined no more")
        for record in records.values()
        if record.name not in known
    ]
    return [*compare(declared, stacks=()), *left, *lost]


def _as_made(spec: KubeRayClusterSpec, record: Record) -> KubeRayClusterSpec:
    """A definition as the one that runs was provisioned from one: with secret storage options where that has them."""
    has_options = SECRET_OPTIONS in record.cluster_spec().head_group.env
    return as_provisioned(spec, has_options=has_options)
