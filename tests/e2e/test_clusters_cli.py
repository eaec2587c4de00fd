"""The commands on clusters. Most run in this process; a Kubernetes that runs one is made up."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from typer.testing import CliRunner, Result

import runner
from infra import InfraError, KubeRayClusterSpec, parse_spec, ray_cluster_body
from infra.body import head_service_name
from infra.labels import STACK
from infra.live import LiveCluster
from runner.cli import app
from tests.e2e.helpers import cli, cli_json, files
from tests.unit.test_imports import HEAVY, imported

DEV = """
name: dev
namespace: ray
ray_version: 2.60.0
python_version: "3.11"
head_group: {cpus: 2, env: {MODEL: small}}
worker_groups: [{name: cpu, cpus: 4, max_replicas: 5}]
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with files of clusters, and no Kubernetes."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dev.yaml").write_text(DEV)
    (tmp_path / "laptop.yaml").write_text("{kind: local, name: laptop}")
    (tmp_path / "wrong.yaml").write_text("{name: wrong, namespacee: ray}")
    return tmp_path


def clusters(*args: str) -> Result:
    """A command in this process."""
    return CliRunner().invoke(app, ["clusters", *args])


def test_define_list_show_and_history(project: Path) -> None:
    defined = cli(project, "clusters", "define", "db", "dev.yaml", "laptop.yaml")
    assert (defined.returncode, defined.stdout, defined.stderr) == (
        0,
        "defined dev (revision 1)\ndefined laptop (revision 1)\n",
        "",
    )
    again = clusters("define", "db", "laptop.yaml", "dev.yaml")
    assert again.stdout == "laptop is unchanged (revision 1)\ndev is unchanged (revision 1)\n"
    (project / "dev.yaml").write_text(DEV.replace("cpus: 2", "cpus: 8"))
    assert clusters("define", "db", "dev.yaml").stdout == "defined dev (revision 2)\n"
    assert cli_json(project, "clusters", "define", "db", "dev.yaml") == [{"name": "dev", "revision": 2, "new": False}]

    first, second = cli(project, "clusters", "list", "db").stdout.splitlines()
    assert re.fullmatch(r"dev     kuberay   revision 2  20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00  \S+ on \S+", first)
    assert re.fullmatch(r"laptop  local     revision 1  20\S+  \S+ on \S+", second)
    listed = cli_json(project, "clusters", "list", "db")
    assert [(each["name"], each["revision"], each["spec"]["kind"]) for each in listed] == [
        ("dev", 2, "kuberay"),
        ("laptop", 1, "local"),
    ]

    shown = clusters("show", "db", "dev")
    assert shown.exit_code == 0
    assert parse_spec(yaml.safe_load(shown.stdout)) == runner.connect("db").get_cluster("dev")
    assert yaml.safe_load(clusters("show", "db", "dev", "--revision", "1").stdout)["head_group"]["cpus"] == "2"
    assert cli_json(project, "clusters", "show", "db", "dev") == listed[0]
    (project / "copy.yaml").write_text(shown.stdout)
    assert clusters("define", "db", "copy.yaml").stdout == "dev is unchanged (revision 2)\n"

    assert clusters("delete", "db", "laptop").exit_code == 0
    history = clusters("show", "db", "laptop", "--history").stdout.splitlines()
    assert [line.split()[:2] + line.split()[6:] for line in history] == [["revision", "2", "deleted"], ["revision", "1"]]
    assert [each["spec"] for each in cli_json(project, "clusters", "show", "db", "laptop", "--history")] == [
        None,
        {"kind": "local", "name": "laptop"},
    ]


def test_warnings_go_to_standard_error(project: Path) -> None:
    (project / "dev.yaml").write_text(DEV.replace("cpus: 2,", "service_account: my_k8s_service_account,"))
    for command in (("define", "db", "dev.yaml"), ("render", "dev.yaml")):
        done = clusters(*command)
        assert done.exit_code == 0
        assert done.stderr.startswith(
            "warning: cluster 'dev': head_group.service_account: 'my_k8s_service_account' is not lowercase"
        )
        assert "warning" not in done.stdout


def test_one_wrong_file_and_nothing_is_defined(project: Path) -> None:
    (project / "dev-too.yaml").write_text("{name: dev}")
    done = cli(project, "clusters", "define", "db", "dev.yaml", "wrong.yaml", "missing.yaml", "dev-too.yaml")
    assert (done.returncode, done.stdout) == (2, "")
    wrong, missing, twice = done.stderr.splitlines()
    assert wrong == "error: wrong.yaml: unknown key 'namespacee'; did you mean 'namespace'?"
    assert missing.startswith("cannot read missing.yaml: No such file")
    assert twice == "dev-too.yaml: name: 'dev' is that of an earlier file; a cluster is known by its name"
    assert not (project / "db").exists()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("show", "db", "devv"), "runner: no cluster 'devv' in "),
        (("show", "db", "dev", "--revision", "2"), "has no revision 2; its latest is 1"),
        (("delete", "db", "devv"), "no cluster 'devv'"),
        (("diff", "db", "devv"), "no cluster 'devv'"),
        (("diff", "db", "laptop"), "error: cluster 'laptop' is of kind local; only one of kind kuberay can be compared"),
        (("render", "laptop.yaml"), "error: cluster 'laptop' is of kind local; only one of kind kuberay becomes resources"),
        (("render", "laptop", "--db", "db"), "cluster 'laptop' is of kind local"),
        (("render", "dev"), "error: there is no file dev; for a cluster that a database defines, name it with --db DB"),
        (("render", "devv", "--db", "db"), "no cluster 'devv'"),
        (("render", "wrong.yaml"), "error: wrong.yaml: unknown key 'namespacee'"),
        (("list", "db", "--storage-option", "key"), "'key' is not of the form KEY=VALUE"),
        (("define", "db"), "Missing argument 'FILE...'"),
        (("list", "db://cloud"), "LanceDB Cloud or Enterprise"),
    ],
)
def test_exit_code_2_changes_nothing(project: Path, args: tuple[str, ...], message: str) -> None:
    assert clusters("define", "db", "dev.yaml", "laptop.yaml").exit_code == 0
    before = files(project / "db")
    done = clusters(*args)
    assert (done.exit_code, done.stdout) == (2, "")
    assert message in done.stderr
    assert files(project / "db") == before


def test_render_prints_every_resource(project: Path) -> None:
    more = "network_policy: {from_namespaces: [jobs]}\nupgrade_strategy: NewCluster\n"
    (project / "dev.yaml").write_text(DEV.replace("{MODEL: small}", '{TOKEN: "${env:TOKEN}"}') + more)
    done = cli(project, "clusters", "render", "dev.yaml")
    assert done.returncode == 0
    assert done.stderr == "not printed: the Secret dev-env of namespace ray; `pulumi up` makes it of TOKEN\n"
    cluster, policy, service = yaml.safe_load_all(done.stdout)
    spec = parse_spec(yaml.safe_load((project / "dev.yaml").read_text()))
    assert isinstance(spec, KubeRayClusterSpec)
    assert cluster == ray_cluster_body(spec)
    assert (policy["kind"], policy["metadata"]["name"]) == ("NetworkPolicy", "dev")
    assert (service["kind"], service["metadata"]["name"]) == ("Service", head_service_name("dev"))
    assert service["spec"]["selector"]["ray.io/cluster"] == cluster["metadata"]["name"] != "dev"
    assert {each["metadata"]["namespace"] for each in (cluster, policy, service)} == {"ray"}

    assert clusters("define", "db", "dev.yaml").exit_code == 0
    assert clusters("render", "dev", "--db", "db").stdout == done.stdout
    (project / "dev.yaml").write_text(DEV)
    assert [each["kind"] for each in yaml.safe_load_all(clusters("render", "dev.yaml").stdout)] == ["RayCluster"]


def test_the_schema_takes_what_define_takes(project: Path) -> None:
    schema = json.loads(clusters("schema").stdout)
    for file in ("dev.yaml", "laptop.yaml"):
        jsonschema.validate(yaml.safe_load((project / file).read_text()), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(yaml.safe_load((project / "wrong.yaml").read_text()), schema)


@pytest.mark.parametrize("command", [[], ["list"], ["define"], ["diff"], ["render"]])
def test_help_answers_without_importing_anything_heavy(command: list[str]) -> None:
    names, text = imported("-m", "runner", "clusters", *command, "--help")
    assert "Usage:" in text
    assert names.isdisjoint(HEAVY | {"infra", "yaml", "kr8s", "pulumi"})


# -- the cluster that runs

UNREACHABLE = """
apiVersion: v1
kind: Config
current-context: here
clusters: [{name: here, cluster: {server: "http://127.0.0.1:1"}}]
users: [{name: ana, user: {token: none}}]
contexts: [{name: here, context: {cluster: here, user: ana}}]
"""


def running(monkeypatch: pytest.MonkeyPatch, found: Callable[[KubeRayClusterSpec], LiveCluster | None]) -> None:
    monkeypatch.setattr("infra.live.find", found)


def live(spec: KubeRayClusterSpec, *, stack: str | None = None, **changed: Any) -> LiveCluster:
    """The cluster that a spec became, before some of its fields were changed."""
    body = ray_cluster_body(spec.model_copy(update=changed))
    body["metadata"]["labels"] |= {STACK: stack} if stack else {}
    return LiveCluster(body["metadata"]["name"], spec.namespace, "ready", body)


def test_diff_says_what_is_otherwise_and_exits_with_1(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clusters("define", "db", "dev.yaml")
    running(monkeypatch, lambda spec: live(spec))
    assert (done := clusters("diff", "db", "dev")).stdout == "no differences\n"
    assert done.exit_code == 0
    same = clusters("diff", "db", "dev", "--json")
    assert (same.exit_code, json.loads(same.stdout)) == (0, {"running": True, "changes": []})

    running(monkeypatch, lambda spec: live(spec, ray_version="2.59.0", labels={"team": "a"}))
    done = clusters("diff", "db", "dev")
    assert done.exit_code == 1
    assert "spec.rayVersion: 2.59.0 -> 2.60.0" in done.stdout.splitlines()
    other = clusters("diff", "db", "dev", "--json")
    assert other.exit_code == 1
    assert {"path": "spec.rayVersion", "before": "2.59.0", "after": "2.60.0"} in json.loads(other.stdout)["changes"]

    running(monkeypatch, lambda spec: None)
    assert (done := clusters("diff", "db", "dev")).stdout == "not running\n"
    assert done.exit_code == 1
    absent = clusters("diff", "db", "dev", "--json")
    assert (absent.exit_code, json.loads(absent.stdout)) == (1, {"running": False, "changes": []})


def test_delete_says_that_it_runs_and_how_it_is_removed(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "dev.yaml").write_text(DEV + "context: prod\n")
    clusters("define", "db", "dev.yaml")
    running(monkeypatch, lambda spec: live(spec))
    done = clusters("delete", "db", "dev")
    assert (done.exit_code, done.stdout) == (0, "deleted dev (revision 2)\n")
    assert done.stderr == (
        "it still runs in namespace ray (ready); `kubectl --context=prod delete raycluster -n ray dev` removes it\n"
    )
    assert clusters("list", "db").stdout == ""

    clusters("define", "db", "dev.yaml")
    running(monkeypatch, lambda spec: live(spec, stack="infill.prod"))
    assert clusters("delete", "db", "dev").stderr == (
        "it still runs in namespace ray (ready); `pulumi destroy` of the stack that made it, infill.prod, removes it\n"
    )
    clusters("define", "db", "dev.yaml")
    running(monkeypatch, lambda spec: None)
    assert clusters("delete", "db", "dev").stderr == ""


def test_only_clusters_of_kubernetes_are_looked_for(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(spec: KubeRayClusterSpec) -> LiveCluster | None:
        raise AssertionError(f"{spec.name} was looked for")

    running(monkeypatch, never)
    clusters("define", "db", "laptop.yaml")
    done = clusters("delete", "db", "laptop")
    assert (done.exit_code, done.stdout, done.stderr) == (0, "deleted laptop (revision 2)\n", "")


def test_kubernetes_that_cannot_be_asked(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(spec: KubeRayClusterSpec) -> LiveCluster | None:
        raise InfraError("cannot reach Kubernetes\nmore of it")

    running(monkeypatch, refuse)
    clusters("define", "db", "dev.yaml")
    done = clusters("diff", "db", "dev")
    assert (done.exit_code, done.stdout, done.stderr) == (1, "", "error: cannot reach Kubernetes\nmore of it\n")
    deleted = clusters("delete", "db", "dev")
    assert (deleted.exit_code, deleted.stdout) == (0, "deleted dev (revision 2)\n")
    assert deleted.stderr == "whether it runs is not known: cannot reach Kubernetes\n"


def test_a_kubeconfig_that_is_missing_or_leads_nowhere(project: Path) -> None:
    clusters("define", "db", "dev.yaml")
    missing = cli(project, "clusters", "diff", "db", "dev")
    assert (missing.returncode, missing.stdout) == (2, "")
    assert missing.stderr.startswith(f"error: no kubeconfig at {project}/kubeconfig (KUBECONFIG); set KUBECONFIG")
    (project / "kubeconfig").write_text(UNREACHABLE)
    nowhere = cli(project, "clusters", "diff", "db", "dev")
    assert (nowhere.returncode, nowhere.stdout) == (1, "")
    assert nowhere.stderr.startswith(f"error: cannot reach Kubernetes ({project}/kubeconfig)")
    assert "Traceback" not in nowhere.stderr
    deleted = cli(project, "clusters", "delete", "db", "dev")
    assert (deleted.returncode, deleted.stdout) == (0, "deleted dev (revision 2)\n")
    assert deleted.stderr.startswith("whether it runs is not known: cannot reach Kubernetes (")
    assert len(deleted.stderr.splitlines()) == 1


def test_without_the_kubernetes_extra(project: Path) -> None:
    clusters("define", "db", "dev.yaml")
    (project / "kubeconfig").write_text(UNREACHABLE)
    program = "import sys; sys.modules['kr8s'] = None; from runner.cli import app; app()"
    for command, code in (("diff", 1), ("delete", 0)):
        done = subprocess.run(
            [sys.executable, "-c", program, "clusters", command, "db", "dev"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == code, done.stderr
        assert "pip install 'infill[kubernetes]'" in done.stderr
        assert "Traceback" not in done.stderr
