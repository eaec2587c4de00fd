"""All that a project declares as a tree of YAML files, a resource each, for Argo CD or Flux. The same project, the same tree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from infra import delivery, labels
from infra.access_bodies import access_bodies
from infra.backfill_body import own_cluster
from infra.backfill_resources import backfill_resources
from infra.body import env_secret_name, env_secret_variables, resources
from infra.delivery import Tool
from infra.errors import BadSpec
from infra.files import to_yaml
from infra.support import Operator, schedule_kind
from stacks.preparing import Prepared, prepare_backfill
from stacks.project import DeclaredStack, Project, access_args, names_of
from stacks.settings import Settings, operator_settings

HEADER = "# Rendered by `infill render`: change the files that it reads, not this one.\n"
KUSTOMIZATION = "kustomization.yaml"
Tree = dict[str, str]
"""Text of each file by its path in the tree, with ``/`` between its parts."""


@dataclass(frozen=True)
class Target:
    """Where a tree goes, and who delivers it.

    Attributes:
        path: folder of the tree in its git repository.
        repository: address of that, for Argo CD's Application; None for none.
        branch: that Argo CD follows.
        source: name of Flux's GitRepository.
    """

    tool: Tool
    path: str
    repository: str | None = None
    branch: str = "main"
    source: str = "flux-system"


def rendered(project: Project, target: Target) -> Tree:
    """The tree of a project: a folder for each stack, or none where it is no Pulumi project.

    Raises:
        BadSpec: a cluster leaves its versions to whoever renders it, or a stack asks for what only Pulumi can make.
    """
    _refuse_unpinned(project)
    tree: Tree = {}
    for stack in project.stacks:
        folder = stack.name or ""
        for path, body in _stack_files(stack, target, str(PurePosixPath(target.path, folder))).items():
            tree[str(PurePosixPath(folder, path))] = HEADER + to_yaml(body)
    return tree


def left_out(project: Project) -> list[str]:
    """What the clusters need and a tree does not hold, for people: no secret is ever rendered."""
    runs = [own_cluster(item.spec, item.cluster) for stack in project.stacks for item in stack.backfills if not item.spec.standing]
    return [
        f"the Secret {env_secret_name(spec)} of namespace {spec.namespace}, of {', '.join(variables)}"
        for spec in [*project.declared, *runs]
        if (variables := env_secret_variables(spec))
    ]


def written(folder: str | Path) -> Tree:
    """The files of a tree that was rendered before; others are not looked at."""
    place = Path(folder)
    texts = {file.relative_to(place).as_posix(): file.read_text(errors="replace") for file in sorted(place.rglob("*.yaml"))}
    return {path: text for path, text in texts.items() if text.startswith(HEADER)}


def changed(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """A line for each file in which a tree differs, by its path."""
    words = {(False, True): "added", (True, False): "removed", (True, True): "changed"}
    paths = sorted(path for path in {*before, *after} if before.get(path) != after.get(path))
    return [f"{words[path in before, path in after]} {path}" for path in paths]


def write(folder: str | Path, tree: Mapping[str, str]) -> list[str]:
    """Write a tree, and remove what an earlier one left; files that are as they were are not touched.

    Returns:
        What `changed` says of it.

    Raises:
        BadSpec: the folder cannot be written, or a file of another origin is in the way.
    """
    place, before = Path(folder), written(folder)
    in_the_way = [path for path in tree if path not in before and (place / path).exists()]
    if in_the_way:
        raise BadSpec(f"{place / in_the_way[0]} was not made by `infill render`; remove it, or give another folder with -o")
    try:
        for path in sorted({*before} - {*tree}):
            (place / path).unlink()
        for path, text in tree.items():
            if before.get(path) != text:
                (place / path).parent.mkdir(parents=True, exist_ok=True)
                (place / path).write_text(text)
    except OSError as exc:
        raise BadSpec(f"cannot write {place}: {exc}") from None
    return changed(before, tree)


def _refuse_unpinned(project: Project) -> None:
    """Versions that are those of whoever renders would make another tree on each machine."""
    for spec in (spec for stack in project.stacks for spec in stack.places):
        has_images = all(group.image for group in spec.groups().values())
        needed = [("ray_version", spec.ray_version), ("python_version", spec.python_version or has_images)]
        missing = [field for field, given in needed if not given]
        if missing:
            raise BadSpec(f"cluster {spec.name!r}: {missing[0]}: pin it; without it each machine would render its own")


def _stack_files(stack: DeclaredStack, target: Target, path: str) -> dict[str, Any]:
    """The bodies of a stack by their path below its own folder."""
    operator = {f"operator/{_file(body)}": body for body in _operator(stack, target.tool)}
    bodies = stack_bodies(stack, _baked(stack), declared_gates(stack.settings))
    clusters = {f"clusters/{_home(body)}/{_file(body)}": body for body in (_annotated(body, stack, target.tool) for body in bodies)}
    name = "-".join(filter(None, ["infill", stack.name]))
    if target.tool == "argocd":
        files = {KUSTOMIZATION: _kustomization([*operator, *clusters]), **operator, **clusters}
        root = delivery.argocd_root(name, target.repository, target.branch, path) if target.repository else None
        return {**({"application.yaml": root} if root else {}), **files}
    return {**_flux_files(name, target.source, path, operator, bodies), **operator, **clusters, **_lists(operator, clusters)}


def _flux_files(name: str, source: str, path: str, operator: Mapping[str, Any], bodies: list[dict[str, Any]]) -> dict[str, Any]:
    rays = [body for body in bodies if body["kind"] == "RayCluster"]
    first = f"{name}-operator" if operator else None
    made = [delivery.flux_kustomization(first, source, f"{path}/operator")] if first else []
    made.append(delivery.flux_kustomization(f"{name}-clusters", source, f"{path}/clusters", rays, first))
    files = {f"flux/{_file(body)}": body for body in made}
    return {KUSTOMIZATION: _kustomization(list(files)), **files}


def _lists(*folders: Mapping[str, Any]) -> dict[str, Any]:
    """The kustomization.yaml of each folder of files."""
    found = {}
    for files in folders:
        for folder in dict.fromkeys(path.partition("/")[0] for path in files):
            found[f"{folder}/{KUSTOMIZATION}"] = _kustomization([path.partition("/")[2] for path in files])
    return found


def stack_bodies(stack: DeclaredStack, backfills: Sequence[Prepared], gates: frozenset[str] | None) -> list[dict[str, Any]]:
    """All that a stack makes but for KubeRay's operator and Secrets: what job runners need, the clusters, the backfills.

    Args:
        backfills: those of the stack, ready.
        gates: KubeRay's feature gates that are on; None where they are not known.
    """
    namespaces = list(dict.fromkeys(spec.namespace for spec in stack.places))
    found = []
    for namespace in namespaces:
        names = [name for spec in stack.specs if spec.namespace == namespace for name in names_of(spec)]
        args = access_args(stack.settings, namespace, names)
        if args:
            args.check()
            found += access_bodies(args, labels.owned())
    operator = operator_settings(stack.settings)
    found += [body for spec in stack.specs for body in resources(spec, operator.namespace if operator else None)]
    kind = stack.settings.schedules or schedule_kind(Operator(gates=gates))
    for ready in backfills:
        found += backfill_resources(ready.spec, ready.cluster, ready.driver, "CronJob" if ready.spec.standing else kind)
    return found


def declared_gates(settings: Settings) -> frozenset[str] | None:
    """KubeRay's feature gates that a stack turns on; None where others see to the operator."""
    operator = operator_settings(settings)
    return frozenset(gate for gate, on in operator.feature_gates.items() if on) if operator else None


def _baked(stack: DeclaredStack) -> list[Prepared]:
    """The backfills of a stack for a tree, which is applied when nobody is there to upload anything."""
    for backfill in stack.backfills:
        if backfill.spec.code != "image":
            raise BadSpec(
                f"backfill {backfill.spec.name!r}: code: {backfill.spec.code}: what is uploaded changes with every commit, and "
                "a tree only with what is declared; bake the code into the image (code: image), or deliver it with Pulumi"
            )
    return [prepare_backfill(backfill, send=False) for backfill in stack.backfills]


def _annotated(body: Mapping[str, Any], stack: DeclaredStack, tool: Tool) -> dict[str, Any]:
    protected = {spec.name for spec in stack.specs if spec.protect}
    name = body["metadata"].get("labels", {}).get(labels.CLUSTER)
    return delivery.annotated(tool, body, keep=name in protected)


def _operator(stack: DeclaredStack, tool: Tool) -> list[dict[str, Any]]:
    given = operator_settings(stack.settings)
    if given is None:
        return []
    local = [key for key in ("chart", "definitions") if getattr(given, key)]
    if local:
        raise BadSpec(
            f"Pulumi.{stack.name}.yaml: infill:operator.{local[0]}: {getattr(given, local[0])!r} is of this machine, and {tool} "
            f"takes KubeRay {given.version} from {delivery.REPOSITORY}; drop it, or set infill:operator: false and deliver it apart"
        )
    make = delivery.argocd_operator if tool == "argocd" else delivery.flux_operator
    return make(given.version, given.namespace, delivery.helm_values(given.feature_gates, given.values))


def _kustomization(files: list[str]) -> dict[str, Any]:
    return {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "resources": files}


def _file(body: Mapping[str, Any]) -> str:
    return f"{body['kind'].lower()}-{body['metadata']['name']}.yaml"


def _home(body: Mapping[str, Any]) -> str:
    """The namespace of a resource; a Namespace is its own."""
    return str(body["metadata"].get("namespace") or body["metadata"]["name"])
