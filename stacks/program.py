"""Declare the clusters of a folder as a stack's config asks: all is checked before anything is declared."""

from __future__ import annotations

from pathlib import Path

import pulumi
import pulumi_kubernetes as kubernetes

from infra.access import RunnerAccess, RunnerAccessArgs
from infra.body import env_secret_data, ray_cluster_body
from infra.errors import BadSpec, InfraError
from infra.files import read_folder
from infra.gate import inspect_removed
from infra.kube import Access, access_of, run
from infra.operator import KubeRayOperator, KubeRayOperatorArgs, read_definitions
from infra.parts import K8sConfigMethod
from infra.provider import kubernetes_provider, stack_label
from infra.raycluster import RayCluster, RayClusterArgs
from infra.spec import ClusterSpec, KubeRayClusterSpec, parse_spec
from infra.support import check_supported
from stacks.settings import AccessSettings, OperatorSettings, Settings, read_settings


def declare(folder: str | Path) -> dict[str, RayCluster]:
    """The clusters of ``folder/*.yaml`` that the stack names; each one's outputs are exported under its name.

    Raises:
        pulumi.RunError: a file or a setting is wrong, or Kubernetes refuses; nothing is declared then.
    """
    try:
        settings = read_settings()
        specs = chosen(read_folder(folder), settings, str(folder))
        _check(specs, settings)
        accesses = {spec.name: access_of(spec) for spec in specs}
        if settings.wait:
            _spare_removed(specs, accesses, settings)
    except InfraError as exc:
        raise pulumi.RunError(str(exc)) from None
    return _declare_all(specs, accesses, settings)


def chosen(found: dict[str, ClusterSpec], settings: Settings, folder: str) -> list[KubeRayClusterSpec]:
    """The specs that a stack makes, with what the stack sets over them.

    Raises:
        BadSpec: a name that no file has, or a cluster that is not made in Kubernetes.
    """
    names = settings.clusters if settings.clusters is not None else list(found)
    unknown = [name for name in names if name not in found]
    if unknown:
        raise BadSpec(f"infill:clusters: no file in {folder} has the cluster {unknown[0]!r}; it has {', '.join(found) or 'none'}")
    specs = []
    for name in dict.fromkeys(names):
        spec = found[name]
        if isinstance(spec, KubeRayClusterSpec):
            spec = parse_spec({**spec.plain(), **settings.of_clusters()}, f"cluster {name}")
        if isinstance(spec, KubeRayClusterSpec):
            specs.append(spec)
        elif settings.clusters is not None:
            raise BadSpec(f"infill:clusters: {name!r} is not of kind kuberay; only such clusters are made in Kubernetes")
    return specs


def _check(specs: list[KubeRayClusterSpec], settings: Settings) -> None:
    """Refuse now what the components would refuse when others are declared already."""
    names = [spec.name for spec in specs]
    unknown = [name for name in settings.adopt if name not in names]
    if unknown:
        raise BadSpec(f"infill:adopt: the stack does not make the cluster {unknown[0]!r}; it makes {', '.join(names) or 'none'}")
    operator, access = _operator_args(settings), _access_args(settings, "default", [])
    if operator:
        read_definitions(operator)
    if access:
        access.check()
    for spec in specs:
        spec.check_provisionable()
        env_secret_data(spec)
        if operator:
            check_supported(ray_cluster_body(spec), operator.operator)


def _spare_removed(specs: list[KubeRayClusterSpec], accesses: dict[str, Access], settings: Settings) -> None:
    """Refuse to remove clusters that still have jobs; they are looked for where the stack still has others."""
    may_end_jobs = settings.force or pulumi.runtime.is_dry_run()
    for access, namespace in dict.fromkeys((accesses[spec.name], spec.namespace) for spec in specs):
        declared = {spec.name for spec in specs if (accesses[spec.name], spec.namespace) == (access, namespace)}
        run(inspect_removed(access, namespace, stack_label(), declared, may_end_jobs=may_end_jobs, warn=pulumi.log.warn))


def _declare_all(specs: list[KubeRayClusterSpec], accesses: dict[str, Access], settings: Settings) -> dict[str, RayCluster]:
    providers: dict[Access, kubernetes.Provider] = {}
    operators: dict[Access, KubeRayOperator] = {}
    grants: dict[tuple[Access, str], RunnerAccess | None] = {}
    clusters = {}
    for spec in specs:
        access = accesses[spec.name]
        if access not in providers:
            number = f"-{len(providers) + 1}" if providers else ""
            ambient = spec.config_method is K8sConfigMethod.LOCAL and spec.kubeconfig is None
            providers[access] = kubernetes_provider(f"kubernetes{number}", access, ambient=ambient, adopt=bool(settings.adopt))
            if args := _operator_args(settings):
                # Definitions outlive stacks, this one's too: those that are there are taken over.
                args.definitions_provider = kubernetes_provider(f"definitions{number}", access, ambient=ambient, adopt=True)
                options = pulumi.ResourceOptions(providers=[providers[access]])
                operators[access] = KubeRayOperator(f"kuberay-operator{number}", args, options)
        where = (access, spec.namespace)
        if where not in grants:
            names = [name for other in specs if (accesses[other.name], other.namespace) == where for name in _names(other)]
            grants[where] = _grant(f"runner-{spec.namespace}", _access_args(settings, spec.namespace, names), providers[access])
        clusters[spec.name] = _cluster(spec, settings, operators.get(access), grants[where], providers[access])
    return clusters


def _cluster(
    spec: KubeRayClusterSpec,
    settings: Settings,
    operator: KubeRayOperator | None,
    grant: RunnerAccess | None,
    provider: kubernetes.Provider,
) -> RayCluster:
    args = RayClusterArgs(spec, settings.wait, settings.force, spec.name in settings.adopt, operator)
    before = [grant] if grant else []
    cluster = RayCluster(spec.name, args, pulumi.ResourceOptions(depends_on=before, providers=[provider]))
    pulumi.export(spec.name, cluster.outputs)
    return cluster


def _names(spec: KubeRayClusterSpec) -> list[str]:
    """Of the Services and Secrets that a runner needs: the spec's, and under NewCluster that with a hash."""
    return list(dict.fromkeys([spec.name, ray_cluster_body(spec)["metadata"]["name"]]))


def _operator_args(settings: Settings) -> KubeRayOperatorArgs | None:
    if settings.operator is False:
        return None
    given = settings.operator if isinstance(settings.operator, OperatorSettings) else OperatorSettings()
    return KubeRayOperatorArgs(
        given.namespace, given.version, given.feature_gates, given.values, given.chart, definitions=given.definitions
    )


def _grant(name: str, args: RunnerAccessArgs | None, provider: kubernetes.Provider) -> RunnerAccess | None:
    return RunnerAccess(name, args, pulumi.ResourceOptions(providers=[provider])) if args else None


def _access_args(settings: Settings, namespace: str, clusters: list[str]) -> RunnerAccessArgs | None:
    if settings.access is False:
        return None
    given = settings.access if isinstance(settings.access, AccessSettings) else AccessSettings()
    return RunnerAccessArgs(
        namespace,
        given.create_namespace,
        given.service_account,
        clusters,
        given.eks_role,
        given.gke_service_account,
        given.azure_client_id,
    )
