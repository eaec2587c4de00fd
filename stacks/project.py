"""All that a folder declares, read as `pulumi up` reads it, without Pulumi: for what renders it and compares it with what runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from infra.access_bodies import RunnerAccessArgs
from infra.body import ray_cluster_body
from infra.errors import BadSpec
from infra.files import read_folder, read_yaml
from infra.labels import label_of_stack
from infra.policy import Policy, check_policy, policy_beside
from infra.spec import ClusterSpec, KubeRayClusterSpec, parse_spec
from stacks.preparing import Chosen, chosen_backfills
from stacks.settings import AccessSettings, Settings, settings_of

PROJECT_FILE = "Pulumi.yaml"
CLUSTERS, BACKFILLS = "clusters", "backfills"


@dataclass(frozen=True)
class DeclaredStack:
    """What one stack declares.

    Attributes:
        name: None of a folder that is no Pulumi project.
        label: value of `infra.labels.STACK` on what Pulumi makes of it; None where Pulumi does not.
        specs: with what the stack sets over them.
        backfills: with the clusters that they name.
    """

    name: str | None
    label: str | None
    settings: Settings
    specs: tuple[KubeRayClusterSpec, ...]
    backfills: tuple[Chosen, ...] = ()

    @property
    def places(self) -> list[KubeRayClusterSpec]:
        """Every cluster that is made: those that stand, and those that runs have for themselves, by their shape."""
        return [*self.specs, *(backfill.cluster for backfill in self.backfills)]


@dataclass(frozen=True)
class Project:
    """A folder of clusters and backfills, with its stacks.

    Attributes:
        clusters: the folder of the clusters' files.
        policy: that of the file beside it.
    """

    clusters: Path
    policy: Policy | None
    stacks: tuple[DeclaredStack, ...]

    @property
    def declared(self) -> list[KubeRayClusterSpec]:
        """All clusters, stack by stack."""
        return [spec for stack in self.stacks for spec in stack.specs]


def read_project(folder: str | Path, names: Sequence[str] = ()) -> Project:
    """The stacks of a Pulumi project, or the one that a plain folder of clusters' files is.

    Args:
        folder: one that has a Pulumi.yaml, with ``clusters`` and ``backfills`` beside the program; or a folder of clusters' files.
        names: of the stacks to read. Default: all that have a file.

    Raises:
        BadSpec: a wrong file or setting, a stack that is not there, a cluster or a backfill that two stacks declare in one place.
        infra.policy.PolicyRefused: the policy forbids a cluster.
    """
    place = Path(folder)
    if not (place / PROJECT_FILE).exists():
        if names:
            raise BadSpec(f"{place} has no {PROJECT_FILE}, so no stack {names[0]!r}; give the folder of the project")
        stacks: tuple[DeclaredStack, ...] = (
            DeclaredStack(None, None, Settings(), chosen(read_folder(place), Settings(), str(place))),
        )
        clusters = place
    else:
        clusters, stacks = _read_stacks(place, names)
    _refuse_shared(stacks)
    project = Project(clusters, policy_beside(clusters), stacks)
    places = [spec for stack in stacks for spec in stack.places]
    check_policy(project.policy, *places)
    for spec in places:
        spec.check_provisionable()
    return project


def chosen(found: dict[str, ClusterSpec], settings: Settings, folder: str) -> tuple[KubeRayClusterSpec, ...]:
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
        spec, over = found[name], settings.of_clusters()
        if isinstance(spec, KubeRayClusterSpec) and over:
            spec = parse_spec({**spec.plain(), **over}, f"cluster {name}")
        if isinstance(spec, KubeRayClusterSpec):
            specs.append(spec)
        elif settings.clusters is not None:
            raise BadSpec(f"infill:clusters: {name!r} is not of kind kuberay; only such clusters are made in Kubernetes")
    return tuple(specs)


def names_of(spec: KubeRayClusterSpec) -> list[str]:
    """Of the Services and Secrets that a runner needs: the spec's, and under NewCluster that with a hash."""
    return list(dict.fromkeys([spec.name, ray_cluster_body(spec)["metadata"]["name"]]))


def access_args(settings: Settings, namespace: str, clusters: list[str]) -> RunnerAccessArgs | None:
    """What a stack makes for job runners in a namespace; None where it makes nothing."""
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


def _read_stacks(place: Path, names: Sequence[str]) -> tuple[Path, tuple[DeclaredStack, ...]]:
    about = read_yaml(place / PROJECT_FILE)
    if not isinstance(about, dict) or not about.get("name"):
        raise BadSpec(f"{place / PROJECT_FILE} is no project of Pulumi: it has no name")
    configs = place / about.get("stackConfigDir", ".")
    clusters = place / about.get("main", ".") / CLUSTERS
    there = sorted(file.name[len("Pulumi.") : -len(".yaml")] for file in configs.glob("Pulumi.*.yaml"))
    unknown = [name for name in names if name not in there]
    if unknown:
        raise BadSpec(f"there is no {configs / f'Pulumi.{unknown[0]}.yaml'}; the project has {', '.join(there) or 'no stack'}")
    found = read_folder(clusters)
    stacks = []
    for name in names or there:
        config = (read_yaml(configs / f"Pulumi.{name}.yaml") or {}).get("config") or {}
        settings = settings_of(config, name)
        specs = chosen(found, settings, str(clusters))
        backfills = chosen_backfills(clusters.parent / BACKFILLS, found, [spec.name for spec in specs], settings)
        stacks.append(DeclaredStack(name, label_of_stack(str(about["name"]), name), settings, specs, tuple(backfills)))
    if not stacks:
        raise BadSpec(f"{configs} has no stack: no file Pulumi.<stack>.yaml; `pulumi stack init` and `pulumi config set` make one")
    return clusters, tuple(stacks)


def _refuse_shared(stacks: Sequence[DeclaredStack]) -> None:
    """Two stacks that declare one thing in one place would each undo what the other did."""
    homes: dict[tuple[object, ...], str | None] = {}
    for stack in stacks:
        named = [("cluster", spec.name, spec) for spec in stack.specs]
        named += [("backfill", backfill.spec.name, backfill.cluster) for backfill in stack.backfills]
        for kind, name, spec in named:
            access = (spec.config_method, spec.kubeconfig, spec.context, spec.aws_config)
            place = (kind, name, spec.namespace, *access)
            if place in homes:
                raise BadSpec(
                    f"{kind} {name!r} in namespace {spec.namespace}: two stacks declare it, {homes[place]} and {stack.name}; "
                    f"set infill:{kind}s, infill:namespace or infill:context of one of them, or name one stack alone: --stack"
                )
            homes[place] = stack.name
