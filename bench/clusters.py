"""`python -m bench.clusters`: what clusters as stacks cost, beside KubeRay alone. Writes bench/CLUSTERS.md.

Needs KUBECONFIG with KubeRay's operator, and `pulumi` with its Kubernetes provider and `kubectl` on PATH. Works in a namespace of
its own. The clusters must fit the nodes: a head and a worker of 1 CPU, of which 300m are requested.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import yaml

from infra.body import ray_cluster_body
from infra.files import read_folder
from infra.spec import KubeRayClusterSpec

NAMESPACE = "infill-bench"
DECLARED, MANY, ROUNDS = 500, 100, 3
POLICY = {"namespaces": [NAMESPACE], "registries": ["docker.io"], "max_cpus": 8, "max_memory": "64Gi", "public_address": False}
SMALL = {"cpus": 1, "memory": "2Gi", "requests": {"cpus": "300m", "memory": "512Mi"}}
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(Path(__file__).parents[1]),
    "PULUMI_CONFIG_PASSPHRASE": "",
    "PULUMI_SKIP_UPDATE_CHECK": "1",
}


def main() -> None:
    with tempfile.TemporaryDirectory() as work:
        _run("kubectl", "create", "namespace", NAMESPACE)
        try:
            table = [*_declared(Path(work) / "declared"), *_many(Path(work) / "many"), *_one(Path(work) / "one")]
        finally:
            _run("kubectl", "delete", "namespace", NAMESPACE, "--wait=false")
    text = "# Clusters\n\nSeconds, in one run of `python -m bench.clusters`.\n\n| what | seconds | limit |\n| --- | --- | --- |\n"
    text += "".join(f"| {what} | {seconds:.2f} | {limit} |\n" for what, seconds, limit in table)
    Path(__file__).with_name("CLUSTERS.md").write_text(text)
    print(text)


def _declared(folder: Path) -> list[tuple[str, float, str]]:
    """Five hundred clusters, with a policy: read, checked, and rendered as a tree for Argo CD. Nothing is asked of Kubernetes."""
    versions = {"ray_version": "2.60.0", "python_version": "3.11"}
    _files(folder, [_cluster(f"c{number:03}", **versions) for number in range(DECLARED)])
    (folder / "Pulumi.bench.yaml").write_text("config: {'infill:access': true, 'infill:operator': true}\n")
    (folder / "policy.yaml").write_text(yaml.safe_dump(POLICY))
    rendered = _timed(lambda: _infill(folder, "render", "-o", "rendered"))
    checked = _timed(lambda: _infill(folder, "render", "-o", "rendered", "--check"))
    return [
        (f"`infill render` of {DECLARED} clusters held to a policy", rendered, "2"),
        ("`infill render --check` of the same", checked, "2"),
    ]


def _many(folder: Path) -> list[tuple[str, float, str]]:
    """A hundred clusters, declared and suspended: files read, rendered, previewed before and after they are made."""
    _project(folder, [_cluster(f"c{number:03}", suspend=True) for number in range(MANY)])
    rendered = _timed(lambda: [ray_cluster_body(spec) for spec in _specs(folder)])
    new = _timed(lambda: _pulumi(folder, "preview"))
    made = _timed(lambda: _pulumi(folder, "up", "--yes", "--skip-preview"))
    steady = _timed(lambda: _pulumi(folder, "preview", "--expect-no-changes"))
    compared = _timed(lambda: _infill(folder, "diff"))
    _pulumi(folder, "destroy", "--yes", "--skip-preview")
    return [
        (f"{MANY} files read, checked and rendered", rendered, "1"),
        (f"`pulumi preview` of {MANY} new clusters", new, "30"),
        (f"`pulumi up` of {MANY} suspended clusters", made, "none"),
        (f"`pulumi preview` of {MANY} clusters that are there", steady, "30"),
        (f"`infill diff` of {MANY} clusters that are there", compared, "10"),
    ]


def _one(folder: Path) -> list[tuple[str, float, str]]:
    """One cluster until it serves, by Pulumi and by kubectl, in turns."""
    _project(folder, [_cluster("one")])
    body = json.dumps(ray_cluster_body(_specs(folder)[0]))
    ups, applies = [], []
    for _ in range(ROUNDS):
        ups.append(_timed(lambda: _pulumi(folder, "up", "--yes", "--skip-preview")))
        _pulumi(folder, "destroy", "--yes", "--skip-preview")
        _run("kubectl", "wait", "--for=delete", "pods", "--all", "-n", NAMESPACE, "--timeout=120s")
        applies.append(_timed(lambda: _apply(body)))
        _run("kubectl", "delete", "raycluster", "one", "-n", NAMESPACE)
        _run("kubectl", "wait", "--for=delete", "pods", "--all", "-n", NAMESPACE, "--timeout=120s")
    up, apply = statistics.median(ups), statistics.median(applies)
    return [
        ("KubeRay alone: `kubectl apply` to RayClusterProvisioned, median of 3", apply, "none"),
        ("`pulumi up` of the same cluster, median of 3", up, f"KubeRay's + 5 = {apply + 5:.2f}"),
    ]


def _cluster(name: str, **fields: object) -> dict[str, object]:
    worker = {"name": "cpu", **SMALL, "min_replicas": 1, "max_replicas": 2}
    autoscaler = {"requests": {"cpus": "100m", "memory": "256Mi"}}
    return {
        "name": name,
        "namespace": NAMESPACE,
        "head_group": SMALL,
        "worker_groups": [worker],
        "autoscaler": autoscaler,
        **fields,
    }


def _project(folder: Path, clusters: list[dict[str, object]]) -> None:
    _files(folder, clusters)
    (folder / "Pulumi.bench.yaml").write_text("config: {}\n")
    _pulumi(folder, "stack", "init", "bench")


def _files(folder: Path, clusters: list[dict[str, object]]) -> None:
    (folder / "clusters").mkdir(parents=True)
    for cluster in clusters:
        (folder / "clusters" / f"{cluster['name']}.yaml").write_text(yaml.safe_dump(cluster))
    (folder / "__main__.py").write_text("from stacks.program import declare\n\ndeclare('clusters')\n")
    runtime = {"name": "python", "options": {"toolchain": "pip", "virtualenv": sys.prefix}}
    project = {"name": "bench", "runtime": runtime, "backend": {"url": f"file://{folder}"}}
    (folder / "Pulumi.yaml").write_text(yaml.safe_dump(project))


def _specs(folder: Path) -> list[KubeRayClusterSpec]:
    return [spec for spec in read_folder(folder / "clusters").values() if isinstance(spec, KubeRayClusterSpec)]


def _apply(body: str) -> None:
    _run("kubectl", "apply", "-f", "-", text=body)
    _run("kubectl", "wait", "--for=condition=RayClusterProvisioned", "raycluster/one", "-n", NAMESPACE, "--timeout=180s")


def _pulumi(folder: Path, *words: str) -> None:
    _run("pulumi", *words, "--non-interactive", folder=folder)


def _infill(folder: Path, *words: str) -> None:
    _run(sys.executable, "-m", "runner", *words, folder=folder)


def _run(*words: str, folder: Path | None = None, text: str | None = None) -> None:
    done = subprocess.run(words, cwd=folder, env=ENVIRONMENT, input=text, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}\n{done.stdout}\n{done.stderr}")


def _timed(work: Callable[[], object]) -> float:
    begun = time.monotonic()
    work()
    return time.monotonic() - begun


if __name__ == "__main__":
    main()
