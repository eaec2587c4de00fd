"""What Argo CD and Flux need beside the clusters: KubeRay's operator, the objects that deliver a tree, order and pruning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from infra import labels

Tool = Literal["argocd", "flux"]

CHART = "kuberay-operator"
REPOSITORY = "https://ray-project.github.io/kuberay-helm/"
SOURCE = "https://github.com/ray-project/kuberay"
DEFINITIONS_FOLDER = "helm-chart/kuberay-operator/crds"
HERE = "https://kubernetes.default.svc"

# Argo CD makes lower waves first and removes higher ones first: backfills go before clusters, those before what they need.
# https://argo-cd.readthedocs.io/en/stable/user-guide/sync-waves/
WAVE = "argocd.argoproj.io/sync-wave"
WAVES = {"definitions": -40, "operator": -30, "Namespace": -20, "access": -10, "RayJob": 10, "RayCronJob": 10, "CronJob": 10}
OPTIONS = "argocd.argoproj.io/sync-options"
CASCADE = "resources-finalizer.argocd.argoproj.io"
# https://fluxcd.io/flux/components/kustomize/kustomizations/#controlling-the-apply-behavior-of-resources
FLUX_PRUNE = "kustomize.toolkit.fluxcd.io/prune"
_ACCESS_KINDS = ("ServiceAccount", "Role", "RoleBinding")


def helm_values(feature_gates: Mapping[str, bool], values: Mapping[str, Any]) -> dict[str, Any]:
    """Values of KubeRay's chart."""
    gates = [{"name": gate, "enabled": on} for gate, on in feature_gates.items()]
    return {**({"featureGates": gates} if gates else {}), **values}


def annotated(tool: Tool, body: Mapping[str, Any], *, keep: bool = False) -> dict[str, Any]:
    """A resource of a cluster with the annotations by which a tool keeps order and removes.

    Args:
        keep: the tool never removes it, as Pulumi does not with ``protect``. A namespace is never removed in any case: all that
            others have in it would go with it.
    """
    kind = str(body["kind"])
    keep = keep or kind == "Namespace"
    added: dict[str, str] = {}
    if tool == "flux":
        added = {FLUX_PRUNE: "disabled"} if keep else {}
    else:
        wave = WAVES["access"] if kind in _ACCESS_KINDS else WAVES.get(kind, 0)
        added = {WAVE: str(wave)} if wave else {}
        options = [*(["Prune=false", "Delete=false"] if keep else [])]
        # The definitions may be a part of the same sync.
        options += ["SkipDryRunOnMissingResource=true"] if kind.startswith("Ray") else []
        added |= {OPTIONS: ",".join(options)} if options else {}
    metadata = dict(body["metadata"])
    if added:
        metadata["annotations"] = {**metadata.get("annotations", {}), **added}
    return {**body, "metadata": metadata}


def argocd_operator(version: str, namespace: str, values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Applications of KubeRay's definitions and of its operator.

    The definitions have no finalizer, so that they stay when their Application goes: with them every RayCluster would go.
    """
    definitions = {"repoURL": SOURCE, "targetRevision": f"v{version}", "path": DEFINITIONS_FOLDER}
    # The definitions are larger than the annotation that a client-side apply keeps.
    crds = _application("kuberay-definitions", definitions, namespace, ["ServerSideApply=true", "Prune=false"])
    crds["metadata"]["annotations"] = {WAVE: str(WAVES["definitions"]), OPTIONS: "Prune=false,Delete=false"}
    helm: dict[str, Any] = {"releaseName": CHART, "skipCrds": True, **({"valuesObject": dict(values)} if values else {})}
    chart = {"repoURL": REPOSITORY, "chart": CHART, "targetRevision": version, "helm": helm}
    operator = _application(CHART, chart, namespace, ["CreateNamespace=true"])
    operator["metadata"] |= {"annotations": {WAVE: str(WAVES["operator"])}, "finalizers": [CASCADE]}
    return [crds, operator]


def argocd_root(name: str, repository: str, branch: str, path: str) -> dict[str, Any]:
    """The Application of a rendered tree: apply it once, and every commit is delivered.

    The number of workers is the autoscaler's: without the ignored difference Argo CD would end busy workers at each look. Not
    ``RespectIgnoreDifferences``: it takes the whole list of groups from what runs, so that no change of a group is ever delivered
    (https://github.com/argoproj/argo-cd/issues/17694).
    """
    source = {"repoURL": repository, "targetRevision": branch, "path": path}
    root = _application(name, source, "default", ["ApplyOutOfSyncOnly=true"])
    root["metadata"]["finalizers"] = [CASCADE]
    replicas = {"group": "ray.io", "kind": "RayCluster", "jqPathExpressions": [".spec.workerGroupSpecs[].replicas"]}
    root["spec"]["ignoreDifferences"] = [replicas]
    return root


def _application(name: str, source: Mapping[str, Any], namespace: str, options: Sequence[str]) -> dict[str, Any]:
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Application",
        "metadata": {"name": name, "namespace": "argocd"},
        "spec": {
            "project": "default",
            "source": dict(source),
            "destination": {"server": HERE, "namespace": namespace},
            "syncPolicy": {"automated": {"prune": True, "selfHeal": True}, "syncOptions": list(options)},
        },
    }


def flux_operator(version: str, namespace: str, values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Helm repository and release of KubeRay's operator.

    Flux keeps no order when it removes (https://github.com/fluxcd/flux2/issues/1744), so it does not remove these at all: they
    go by hand when the clusters are gone.
    """
    metadata = {"namespace": "flux-system", "annotations": {FLUX_PRUNE: "disabled"}}
    chart = {"chart": CHART, "version": version, "sourceRef": {"kind": "HelmRepository", "name": "kuberay"}}
    release = {
        "interval": "1h",
        "releaseName": CHART,
        "targetNamespace": namespace,
        "chart": {"spec": chart},
        "install": {"createNamespace": True, "crds": "Create"},
        "upgrade": {"crds": "CreateReplace"},
        **({"values": dict(values)} if values else {}),
    }
    return [
        {
            "apiVersion": "source.toolkit.fluxcd.io/v1",
            "kind": "HelmRepository",
            "metadata": {"name": "kuberay", **metadata},
            "spec": {"interval": "1h", "url": REPOSITORY},
        },
        {
            "apiVersion": "helm.toolkit.fluxcd.io/v2",
            "kind": "HelmRelease",
            "metadata": {"name": CHART, **metadata},
            "spec": release,
        },
    ]


def flux_kustomization(
    name: str, source: str, path: str, clusters: Sequence[Mapping[str, Any]] = (), depends_on: str | None = None
) -> dict[str, Any]:
    """The object by which Flux delivers a folder of a rendered tree.

    Args:
        source: name of the GitRepository, in ``flux-system``.
        clusters: RayClusters in the folder: the number of their workers is left to the autoscaler (``spec.ignore``, Flux 2.9).
        depends_on: another one that has to be ready first.
    """
    spec: dict[str, Any] = {
        "interval": "10m",
        "path": f"./{path}",
        "prune": True,
        "deletionPolicy": "WaitForTermination",
        "wait": not clusters,  # a cluster may take a quarter of an hour to serve, or wait for a node
        "sourceRef": {"kind": "GitRepository", "name": source},
    }
    if depends_on:
        spec["dependsOn"] = [{"name": depends_on}]
    ignored = [_ignored(body) for body in clusters if body["spec"].get("enableInTreeAutoscaling")]
    if ignored:
        spec["ignore"] = ignored
    return {
        "apiVersion": "kustomize.toolkit.fluxcd.io/v1",
        "kind": "Kustomization",
        "metadata": {"name": name, "namespace": "flux-system"},
        "spec": spec,
    }


def _ignored(cluster: Mapping[str, Any]) -> dict[str, Any]:
    paths = [f"/spec/workerGroupSpecs/{number}/replicas" for number, _ in enumerate(cluster["spec"]["workerGroupSpecs"])]
    metadata = cluster["metadata"]
    selector = f"{labels.CLUSTER}={metadata['labels'][labels.CLUSTER]}"
    return {"paths": paths, "target": {"kind": "RayCluster", "namespace": metadata["namespace"], "labelSelector": selector}}
