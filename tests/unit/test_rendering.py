"""Projects read without Pulumi, and the trees that are rendered of them: the same each time, in order, and nothing else's."""

from __future__ import annotations

import difflib
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from infra.body import ray_cluster_body
from infra.errors import BadSpec
from infra.policy import PolicyRefused
from runner.cli import app
from stacks import rendering
from stacks.project import Project, read_project
from stacks.rendering import HEADER, Target, Tree, rendered

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "gitops"
REPOSITORY = "https://github.com/example/clusters.git"
ARGOCD = Target("argocd", "rendered/argocd", REPOSITORY)
FLUX = Target("flux", "rendered/flux")
SMALL = {"ray_version": "2.60.0", "python_version": "3.11"}


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """A copy of the example, to change."""
    return Path(shutil.copytree(EXAMPLE, tmp_path / "example"))


def cluster(folder: Path, name: str, **fields: Any) -> None:
    (folder / "clusters").mkdir(exist_ok=True)
    (folder / "clusters" / f"{name}.yaml").write_text(yaml.safe_dump({"name": name, **SMALL, **fields}))


def project(folder: Path, **stacks: dict[str, Any]) -> Path:
    (folder / "Pulumi.yaml").write_text("{name: p, runtime: python}")
    for name, config in stacks.items():
        (folder / f"Pulumi.{name}.yaml").write_text(yaml.safe_dump({"config": config}))
    return folder


def render(*args: str) -> Result:
    return CliRunner().invoke(app, ["render", *args])


def bodies(tree: Tree) -> list[dict[str, Any]]:
    loaded = [yaml.safe_load(text) for path, text in tree.items() if not path.endswith("kustomization.yaml")]
    return sorted(loaded, key=lambda body: (body["kind"], body["metadata"]["name"]))


# Projects


def test_the_stacks_of_this_repository() -> None:
    found = read_project(ROOT)
    assert found.clusters == ROOT / "stacks" / "clusters"
    assert found.policy is not None
    assert [(stack.name, stack.label, [spec.name for spec in stack.specs]) for stack in found.stacks] == [
        ("dev", "infill.dev", ["dev"]),
        ("eks", "infill.eks", ["eks"]),
        ("gpu", "infill.gpu", ["gpu"]),
    ]
    assert [spec.namespace for spec in found.declared] == ["ray-dev", "ray", "ray-gpu"]
    assert [stack.name for stack in read_project(ROOT, ["gpu"]).stacks] == ["gpu"]


def test_a_folder_of_files_is_one_stack_without_a_name(tmp_path: Path) -> None:
    cluster(tmp_path, "a", namespace="x")
    (tmp_path / "clusters" / "local.yaml").write_text("{kind: local, name: laptop}")
    (stack,) = read_project(tmp_path / "clusters").stacks
    assert (stack.name, stack.label, [(spec.name, spec.namespace) for spec in stack.specs]) == (None, None, [("a", "x")])


def test_what_is_wrong_with_a_project(tmp_path: Path) -> None:
    cluster(tmp_path, "a")
    cluster(tmp_path, "b")
    (tmp_path / "clusters" / "again.yaml").write_text("{name: b, ray_version: 2.60.0}")
    place = project(tmp_path, dev={}, prod={"infill:namespace": "prod"})
    with pytest.raises(BadSpec, match=r"b.yaml: name: 'b' is that of .*again.yaml too"):
        read_project(place)
    (tmp_path / "clusters" / "again.yaml").unlink()
    assert len(read_project(place).declared) == 4
    with pytest.raises(BadSpec, match=r"there is no .*Pulumi.production.yaml; the project has dev, prod"):
        read_project(place, ["production"])
    project(tmp_path, prod={"infill:clusters": ["b"]})
    with pytest.raises(BadSpec, match="'b' in namespace default: two stacks declare it, dev and prod; set infill:clusters"):
        read_project(place)
    assert [spec.name for spec in read_project(place, ["prod"]).declared] == ["b"]
    project(tmp_path, prod={"infill:cluster": ["b"]})
    with pytest.raises(BadSpec, match=r"Pulumi.prod.yaml: unknown key 'cluster'; did you mean 'clusters'\?"):
        read_project(place)
    (tmp_path / "Pulumi.prod.yaml").unlink()
    (tmp_path / "policy.yaml").write_text("namespaces: [ray]")
    with pytest.raises(PolicyRefused, match="cluster 'a': namespace: 'default' is none of ray"):
        read_project(place)
    (tmp_path / "Pulumi.dev.yaml").unlink()
    with pytest.raises(BadSpec, match=r"has no stack: no file Pulumi\.<stack>\.yaml"):
        read_project(place)
    with pytest.raises(BadSpec, match=r"has no Pulumi\.yaml, so no stack 'dev'"):
        read_project(tmp_path / "clusters", ["dev"])


# Trees


@pytest.mark.parametrize("target", [ARGOCD, FLUX], ids=["argocd", "flux"])
def test_the_tree_that_is_committed_is_what_is_rendered(target: Target, tmp_path: Path) -> None:
    """`make render` after a change of what the example becomes."""
    tree = rendered(read_project(EXAMPLE), target)
    assert rendering.changed(rendering.written(EXAMPLE / target.path), tree) == []
    assert rendered(read_project(EXAMPLE), target) == tree
    assert rendering.write(tmp_path, tree) == [f"added {path}" for path in sorted(tree)]
    assert rendering.write(tmp_path, tree) == []


def test_a_change_is_its_own_diff_and_no_other(example: Path) -> None:
    before = rendering.written(example / ARGOCD.path)
    file = example / "clusters" / "texts.yaml"
    file.write_text(file.read_text().replace("max_replicas: 10", "max_replicas: 12"))
    changes = rendering.write(example / ARGOCD.path, rendered(read_project(example), ARGOCD))
    assert changes == ["changed production/clusters/ray/raycluster-texts.yaml"]
    path = changes[0].split()[1]
    lines = difflib.unified_diff(before[path].splitlines(), rendering.written(example / ARGOCD.path)[path].splitlines(), n=0)
    assert [line for line in lines if not line.startswith(("---", "+++", "@@"))] == ["-    maxReplicas: 10", "+    maxReplicas: 12"]


def test_what_is_declared_no_more_goes_and_what_others_wrote_stays(example: Path) -> None:
    out = example / ARGOCD.path
    note = out / "production" / "note.yaml"
    note.write_text("mine: true\n")
    (example / "clusters" / "texts.yaml").unlink()
    changes = rendering.write(out, rendered(read_project(example), ARGOCD))
    assert changes == [
        "removed production/clusters/ray/raycluster-texts.yaml",
        "changed production/clusters/ray/role-infill-runner.yaml",  # which names the clusters whose token a runner may read
        "changed production/kustomization.yaml",
    ]
    assert not (out / "production/clusters/ray/raycluster-texts.yaml").exists()
    assert note.read_text() == "mine: true\n"
    in_the_way = out / "production/clusters/ray/raycluster-texts.yaml"
    in_the_way.write_text("kind: RayCluster\n")
    with pytest.raises(BadSpec, match=r"raycluster-texts\.yaml was not made by `infill render`"):
        rendering.write(out, rendered(read_project(EXAMPLE), ARGOCD))
    assert in_the_way.read_text() == "kind: RayCluster\n"


def test_every_file_is_listed_once(example: Path) -> None:
    """By the kustomization.yaml that Argo CD, or Flux, or `kubectl apply -k` reads."""
    for target, top in ((ARGOCD, ["production"]), (FLUX, ["production", "production/operator", "production/clusters"])):
        tree = rendered(read_project(example), target)
        listed = [
            f"{folder}/{name}" for folder in top for name in yaml.safe_load(tree[f"{folder}/kustomization.yaml"])["resources"]
        ]
        assert sorted(listed) == sorted(
            path for path in tree if not path.endswith(("kustomization.yaml", "production/application.yaml"))
        )
        assert all(text.startswith(HEADER) for text in tree.values())


def test_clusters_come_after_what_they_need_and_go_before_it_with_argo_cd() -> None:
    waves = {
        f"{body['kind']} {body['metadata']['name']}": int(
            body["metadata"].get("annotations", {}).get("argocd.argoproj.io/sync-wave", 0)
        )
        for body in bodies(rendered(read_project(EXAMPLE), ARGOCD))
    }
    assert waves == {
        "Application infill-production": 0,
        "Application kuberay-definitions": -40,
        "Application kuberay-operator": -30,
        "ConfigMap captions-schedule": 0,
        "CronJob captions": 10,
        "Namespace ray": -20,
        "NetworkPolicy captions-run": 0,
        "NetworkPolicy images": 0,
        "RayCluster images": 0,
        "RayCluster texts": 0,
        **{
            f"{kind} {name}": -10
            for kind in ("Role", "RoleBinding", "ServiceAccount")
            for name in ("captions-schedule", "infill-runner")
        },
    }


def test_what_is_never_removed() -> None:
    """The namespace, the definitions, and a cluster that says protect; with Flux, which keeps no order, the operator too."""
    kept = {
        tool: {
            body["metadata"]["name"]
            for body in bodies(rendered(read_project(EXAMPLE), target))
            if (annotations := body["metadata"].get("annotations", {})).get("kustomize.toolkit.fluxcd.io/prune") == "disabled"
            or {"Prune=false", "Delete=false"} <= set(annotations.get("argocd.argoproj.io/sync-options", "").split(","))
        }
        for tool, target in (("argocd", ARGOCD), ("flux", FLUX))
    }
    assert kept == {
        "argocd": {"ray", "texts", "kuberay-definitions"},
        "flux": {"ray", "texts", "kuberay", "kuberay-operator"},
    }


def test_the_number_of_workers_is_left_to_the_autoscaler() -> None:
    root = yaml.safe_load(rendered(read_project(EXAMPLE), ARGOCD)["production/application.yaml"])
    assert root["spec"]["source"] == {"repoURL": REPOSITORY, "targetRevision": "main", "path": "rendered/argocd/production"}
    assert root["spec"]["ignoreDifferences"] == [
        {"group": "ray.io", "kind": "RayCluster", "jqPathExpressions": [".spec.workerGroupSpecs[].replicas"]}
    ]
    tree = rendered(read_project(EXAMPLE), FLUX)
    clusters = yaml.safe_load(tree["production/flux/kustomization-infill-production-clusters.yaml"])["spec"]
    assert clusters["dependsOn"] == [{"name": "infill-production-operator"}]
    assert clusters["path"] == "./rendered/flux/production/clusters"
    assert [(rule["target"]["labelSelector"], rule["paths"]) for rule in clusters["ignore"]] == [
        ("infill/cluster=images", ["/spec/workerGroupSpecs/0/replicas", "/spec/workerGroupSpecs/1/replicas"]),
        ("infill/cluster=texts", ["/spec/workerGroupSpecs/0/replicas"]),
    ]


def test_a_cluster_is_what_pulumi_would_make(example: Path) -> None:
    found: Project = read_project(example)
    tree = rendered(found, FLUX)
    for spec in found.declared:
        body = yaml.safe_load(tree[f"production/clusters/ray/raycluster-{spec.name}.yaml"])
        assert body["spec"] == ray_cluster_body(spec)["spec"]
    policy = yaml.safe_load(tree["production/clusters/ray/networkpolicy-images.yaml"])["spec"]["ingress"][1]["from"][0]
    assert policy["namespaceSelector"] == {"matchLabels": {"kubernetes.io/metadata.name": "kuberay-system"}}


def test_what_cannot_be_rendered(tmp_path: Path) -> None:
    (tmp_path / "clusters").mkdir()
    (tmp_path / "clusters" / "a.yaml").write_text("{name: a, python_version: '3.11'}")
    with pytest.raises(BadSpec, match="cluster 'a': ray_version: pin it"):
        rendered(read_project(tmp_path / "clusters"), FLUX)
    (tmp_path / "clusters" / "a.yaml").write_text("{name: a, ray_version: 2.60.0, head_group: {image: 'r:1'}}")
    with pytest.raises(BadSpec, match="cluster 'a': python_version: pin it"):
        rendered(read_project(tmp_path / "clusters"), FLUX)
    cluster(tmp_path, "a")
    place = project(tmp_path, dev={"infill:operator": {"chart": "./chart"}})
    with pytest.raises(BadSpec, match=r"Pulumi.dev.yaml: infill:operator.chart: './chart' is of this machine"):
        rendered(read_project(place), ARGOCD)


BACKFILL = {"database": "s3://b/db", "table": "t", "columns": "x", "cluster": "images", "code": "image"}


def backfill(folder: Path, name: str, **fields: Any) -> None:
    (folder / "backfills").mkdir(exist_ok=True)
    (folder / "backfills" / f"{name}.yaml").write_text(yaml.safe_dump({"name": name, **BACKFILL, **fields}))


def test_backfills_are_in_the_tree_and_go_before_their_clusters(example: Path) -> None:
    before = rendered(read_project(example), ARGOCD)
    backfill(example, "once", standing=True)
    backfill(example, "nightly", schedule="0 3 * * *", storage_options={"aws_secret_access_key": "${env:KEY}"})
    project_of = read_project(example)
    tree = rendered(project_of, ARGOCD)
    added = [line.rpartition("/")[2] for line in rendering.changed(before, tree) if line.startswith("added")]
    assert [re.sub(r"-[0-9a-f]{8}\.", "-HASH.", name) for name in added] == [
        "configmap-nightly-schedule.yaml", "cronjob-nightly.yaml", "networkpolicy-nightly-run.yaml", "rayjob-once-HASH.yaml",
        "role-nightly-schedule.yaml", "rolebinding-nightly-schedule.yaml", "serviceaccount-nightly-schedule.yaml",
    ]  # fmt: skip
    run = yaml.safe_load(next(text for path, text in tree.items() if "rayjob-once" in path))
    assert run["metadata"]["annotations"]["argocd.argoproj.io/sync-wave"] == "10"
    assert run["spec"]["clusterSelector"] == {"ray.io/cluster": "images"}
    assert any("nightly-run-env of namespace ray, of KEY" in line for line in rendering.left_out(project_of))
    assert rendered(read_project(example), ARGOCD) == tree


def test_a_schedule_is_kuberay_s_own_where_the_stack_turns_its_gate_on(example: Path) -> None:
    backfill(example, "nightly", schedule="0 3 * * *")
    config = {"infill:namespace": "ray", "infill:operator": {"feature_gates": {"RayCronJob": True}}}
    (example / "Pulumi.production.yaml").write_text(yaml.safe_dump({"config": config}))
    tree = rendered(read_project(example), FLUX)
    assert "production/clusters/ray/raycronjob-nightly.yaml" in tree
    assert not [path for path in tree if "/cronjob-" in path]


def test_a_backfill_whose_code_is_uploaded_is_not_for_a_tree(example: Path) -> None:
    backfill(example, "once", code="upload", function="features:f")
    with pytest.raises(BadSpec, match=r"backfill 'once': code: upload: what is uploaded changes with every commit"):
        rendered(read_project(example), FLUX)


def test_a_policy_holds_for_the_clusters_of_runs(example: Path) -> None:
    cluster(example, "big", labels={"team": "x"}, head_group={"cpus": 99})
    (example / "Pulumi.production.yaml").write_text("config: {'infill:namespace': ray, 'infill:clusters': [images]}")
    assert [spec.name for spec in read_project(example).declared] == ["images"]
    backfill(example, "once", cluster="big")
    with pytest.raises(PolicyRefused, match=r"cluster 'big': head_group\.cpus: 99 is more than 16"):
        read_project(example)


# The command


def test_render_writes_checks_and_says_what_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cluster(tmp_path, "a", namespace="x", head_group={"env": {"TOKEN": "${env:TOKEN}"}})
    done = render("clusters", "--for", "flux")
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines() == [
        "added clusters/kustomization.yaml",
        "added clusters/x/raycluster-a.yaml",
        "added flux/kustomization-infill-clusters.yaml",
        "added kustomization.yaml",
    ]
    assert "not rendered: the Secret a-env of namespace x, of TOKEN; make it in Kubernetes" in done.stderr
    assert yaml.safe_load((tmp_path / "rendered/flux/kustomization-infill-clusters.yaml").read_text())["spec"]["path"] == (
        "./rendered/clusters"
    )
    assert render("clusters", "--for", "flux", "--check").exit_code == 0
    cluster(tmp_path, "a", namespace="x", suspend=True)
    checked = render("clusters", "--for", "flux", "--check")
    assert (checked.exit_code, checked.stdout) == (1, "changed clusters/x/raycluster-a.yaml\n")
    assert render("clusters", "--for", "flux", "--check").exit_code == 1  # it wrote nothing
    refused = render("clusters", "-o", str(tmp_path / "out"))
    assert (refused.exit_code, "does not say where the tree is in its git repository; give --path" in refused.stderr) == (2, True)
    assert not (tmp_path / "out").exists()


def test_policy_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cluster(tmp_path, "a", namespace="x")

    def check() -> Result:
        return CliRunner().invoke(app, ["policy", "check", "clusters"])

    assert (check().exit_code, "there is no policy.yaml beside clusters" in check().stderr) == (2, True)
    (tmp_path / "policy.yaml").write_text("namespaces: [x]")
    assert (check().exit_code, check().stdout) == (0, "1 clusters keep to policy.yaml\n")
    (tmp_path / "policy.yaml").write_text("namespaces: [ray]")
    assert (check().exit_code, check().stderr) == (2, "error: cluster 'a': namespace: 'x' is none of ray (rule namespaces)\n")


def test_the_policy_of_a_database_from_the_command_line(tmp_path: Path) -> None:
    def policy(*args: str) -> Result:
        return CliRunner().invoke(app, ["policy", *args])

    db, file = str(tmp_path / "db"), tmp_path / "policy.yaml"
    assert policy("show", db).exit_code == 2
    file.write_text("max_gpus: 1")
    assert policy("set", db, str(file)).stdout == "set (revision 1)\n"
    assert policy("set", db, str(file)).stdout == "unchanged (revision 1)\n"
    assert policy("show", db).stdout == "max_gpus: 1\n"
    file.write_text("max_gpu: 1")
    assert "did you mean 'max_gpus'?" in policy("set", db, str(file)).stderr
    cluster(tmp_path, "a", worker_groups=[{"gpus": 2}])
    defined = CliRunner().invoke(app, ["clusters", "define", db, str(tmp_path / "clusters" / "a.yaml")])
    assert (defined.exit_code, "worker_groups.gpu.gpus: 2 of nvidia.com/gpu is more than 1" in defined.stderr) == (2, True)
    assert policy("delete", db).stdout == "deleted (revision 2)\n"
    assert CliRunner().invoke(app, ["clusters", "define", db, str(tmp_path / "clusters" / "a.yaml")]).exit_code == 0
