"""The Jobs API of a real dashboard with token authentication: direct, through a port that loses connections, and by TLS."""

from __future__ import annotations

import os
import platform
import re
import secrets
import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import pytest
from typer.testing import CliRunner

from infra.spec import ExternalClusterSpec, LocalClusterSpec
from runner.cli import app
from runner.errors import BadInput
from runner.manifests.facts import NoFacts, facts_here, facts_of
from runner.remote.address import open_dashboard
from runner.remote.dashboard import ClusterUnreachable, Dashboard, NotRay, OtherPython, OtherRay, TokenRefused
from runner.remote.ray_jobs import JobExists, RayJobs, UnknownJob, WaitEnded
from tests.e2e.certificate import self_signed
from tests.e2e.forwarder import Forwarder

_MAIN = """
import sys
from ray.cluster_utils import Cluster

ports = {"dashboard_agent_listen_port": 0, "metrics_export_port": 0}  # two nodes, and other Rays, on one machine
head = {"num_cpus": 0, "include_dashboard": True, "dashboard_port": int(sys.argv[1]), "temp_dir": sys.argv[2], **ports}
cluster = Cluster(initialize_head=True, head_node_args=head)
cluster.add_node(num_cpus=2, env_vars={"ONLY_ON_WORKERS": "1"}, **ports)
cluster.wait_for_nodes()
print("ready", flush=True)
sys.stdin.read()
cluster.shutdown()
"""
LIMIT_SECONDS = 60.0


@dataclass(frozen=True)
class Ray:
    """A Ray that runs."""

    port: int
    token: str

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@pytest.fixture(scope="module")
def ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ray]:
    """A head without CPUs and a worker node, with token authentication."""
    folder = tmp_path_factory.mktemp("ray")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    token = secrets.token_hex(32)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "PYTEST_"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # a job's `python` is this one
    own = {"HOME": str(folder), "PATH": path, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
    temp = tmp_path_factory.mktemp("r")
    process = subprocess.Popen(
        [sys.executable, "-c", _MAIN, str(port), str(temp)],
        cwd=folder,
        env={**inherited, **own},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        yield Ray(port, token)
    finally:
        process.stdin.close()
        process.wait(60)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own, without a token."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def jobs(ray: Ray, monkeypatch: pytest.MonkeyPatch) -> Iterator[RayJobs]:
    monkeypatch.setenv("RAY_AUTH_TOKEN", ray.token)
    dashboard = open_dashboard(ray.address)
    yield RayJobs(dashboard)
    dashboard.close()


def test_the_token_is_the_one_that_ray_itself_takes_and_is_read_anew_when_refused(
    ray: Ray, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(TokenRefused, match=rf"^{ray.address}: Ray asks for a token, and there is none: RAY_AUTH_TOKEN, the"):
        open_dashboard(ray.address)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "another")
    with pytest.raises(TokenRefused, match=rf"^{ray.address}: Ray refuses the token that is here"):
        open_dashboard(ray.address)
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    file = home / "token"
    file.write_text(f"{ray.token}\n")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(file))
    dashboard = open_dashboard(ExternalClusterSpec(name="ours", address=f"{ray.address}/"))
    assert dashboard.version().ray_version == metadata.version("ray")
    file.unlink()
    assert RayJobs(dashboard).list() == RayJobs(dashboard).list()  # what was read once is kept
    (home / ".ray").mkdir()
    (home / ".ray/auth_token").write_text(ray.token)
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH")
    assert open_dashboard(ray.address).version().ray_version == metadata.version("ray")


def test_an_address_that_leads_to_no_dashboard_is_refused_with_the_reason(ray: Ray) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        closed = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(ClusterUnreachable, match=rf"^{closed}: nothing listens there .* is the address right, and is Ray up\?$"):
        open_dashboard(closed)
    with pytest.raises(ClusterUnreachable, match=r"there is no such host .*is the address right\?$"):
        open_dashboard("http://no-such-host.invalid:8265")
    with pytest.raises(ClusterUnreachable, match=r"TLS fails .* is it http:// there\?$"):
        open_dashboard(f"https://127.0.0.1:{ray.port}")
    with pytest.raises(NotRay, match=r"answers, and not as Ray's dashboard does \(GET /api/version: 40\d"):
        open_dashboard(f"{ray.address}/static")
    with pytest.raises(BadInput, match=r"'ray://h:10001' is Ray Client's address; jobs go to the dashboard, http://h:8265$"):
        open_dashboard("ray://h:10001")
    with pytest.raises(BadInput, match="of kind local"):
        open_dashboard(LocalClusterSpec(name="here"))


def test_another_version_of_ray_is_refused_with_both(jobs: RayJobs) -> None:
    running = metadata.version("ray")
    assert jobs.dashboard.check_ray().ray_version == running
    with pytest.raises(OtherRay, match=rf"runs Ray {running}, and Ray 2\.9\.0 is installed here"):
        jobs.dashboard.check_ray("2.9.0")


def test_another_python_is_refused_with_both(jobs: RayJobs) -> None:
    jobs.dashboard.check_python()
    with pytest.raises(
        OtherPython, match=rf"runs Python {platform.python_version()}, and this is Python 3\.9: functions do not pass"
    ):
        jobs.dashboard.check_python("3.9")


def test_a_job_runs_with_an_uploaded_package_and_is_followed_from_anywhere(jobs: RayJobs, tmp_path: Path) -> None:
    package = tmp_path / "sent"
    package.mkdir()
    (package / "__init__.py").write_text("WORD = 'from afar'\n")
    (package / "id_rsa").write_text("-----BEGIN OPENSSH PRIVATE KEY-----\n")
    uri = jobs.upload({"sent_package": package, "single.py": package / "__init__.py"})
    assert re.fullmatch(r"gcs://infill_[0-9a-f]{32}\.zip", uri)
    assert jobs.upload({"single.py": package / "__init__.py", "sent_package/": package}) == uri

    code = "import os, single, sent_package as p; print(single.WORD, p.WORD); print(os.listdir(p.__path__[0]))"
    job = jobs.submit(f'python -c "{code}"; exit 7', runtime_env={"py_modules": [uri]}, metadata={"who": "ana"})
    text = "".join(jobs.follow(job))

    details = jobs.info(job)
    assert (details.status, details.driver_exit_code, details.metadata) == ("FAILED", 7, {"who": "ana"})
    assert (details.submission_id, details.has_ended, details.type) == (job, True, "SUBMISSION")
    assert details.end_time is not None
    assert "\nfrom afar from afar\n['__init__.py']\n" in text.replace(", '__pycache__'", "").replace("'__pycache__', ", "")
    assert jobs.logs(job) == text
    half = text.index("from afar")
    assert "".join(jobs.follow(job, half)) == text[half:]
    assert [each.submission_id for each in jobs.list()].count(job) == 1
    assert jobs.delete(job)
    assert jobs.find(job) is None


def test_what_a_job_prints_comes_while_it_runs(jobs: RayJobs, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    job = jobs.submit(f"echo one; until [ -e {gate} ]; do sleep 0.05; done; echo two")
    seen = ""
    for piece in jobs.follow(job):
        seen += piece
        if "\none\n" in seen and not gate.exists():
            assert jobs.info(job).status == "RUNNING"
            gate.touch()
    assert seen.endswith("\ntwo\n")
    assert jobs.wait(job).status == "SUCCEEDED"


def test_a_job_is_stopped_and_not_deleted_before(jobs: RayJobs) -> None:
    job = jobs.submit("sleep 600", submission_id="a-long.one_1")
    assert job == "a-long.one_1"
    with pytest.raises(WaitEnded, match=rf"^job {job} is (PENDING|RUNNING) after 0.2 s: "):
        jobs.wait(job, 0.2)
    with pytest.raises(BadInput, match=rf"^job {job} is (PENDING|RUNNING); stop it first$"):
        jobs.delete(job)
    with pytest.raises(JobExists, match=rf"^a job {job} is on .* already; give another submission_id$"):
        jobs.submit("true", submission_id=job)
    assert jobs.stop(job)
    assert jobs.wait(job, LIMIT_SECONDS).status == "STOPPED"
    assert jobs.delete(job)
    assert jobs.wait(jobs.submit("sleep 2"), LIMIT_SECONDS).status == "SUCCEEDED"  # longer than Ray takes to bring one back
    assert jobs.find(job) is None


def test_what_ray_does_not_take_or_know_is_refused(jobs: RayJobs, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="metadata values must be strings"):
        jobs.submit("true", metadata={"a": 1})  # type: ignore[dict-item]
    with pytest.raises(BadInput, match="submission_id='a/b': it names a file of Ray's"):
        jobs.submit("true", submission_id="a/b")
    with pytest.raises(BadInput, match="entrypoint is empty"):
        jobs.submit(" ")
    for call in (jobs.info, jobs.stop, jobs.delete, jobs.logs, jobs.wait):
        with pytest.raises(UnknownJob, match=r"knows no job no/such job; a head that starts anew"):
            call("no/such job")
    with pytest.raises(BadInput, match=r"there is no .*nothing on this machine$"):
        jobs.upload({"a": tmp_path / "nothing"})
    (tmp_path / "large").mkdir()
    (tmp_path / "large/noise").write_bytes(os.urandom(101 << 20))
    with pytest.raises(BadInput, match=r"101\.0 MB is more than Ray takes in a package \(100\.0 MB\)$"):
        jobs.upload({"": tmp_path / "large"})


def test_a_worker_tells_what_it_has(jobs: RayJobs) -> None:
    found = facts_of(jobs, ["pyarrow", "no_such_module", "os"])
    here = facts_here(["pyarrow", "no_such_module", "os"])
    assert (found.python, found.platform, found.ray) == (here.python, here.platform, metadata.version("ray"))
    assert found.distributions["pylance"] == metadata.version("pylance")
    assert found.modules == here.modules == {"pyarrow": "site", "os": "stdlib"}
    assert found.provided_by["pyarrow"] == ("pyarrow",)
    assert "ONLY_ON_WORKERS" in found.env
    assert "ONLY_ON_WORKERS" not in facts_of(jobs, on_worker=False).env
    assert "GIVEN" in facts_of(jobs, runtime_env={"env_vars": {"GIVEN": "1"}}).env
    with pytest.raises(NoFacts, match=r"no worker told what it has within 0\.5 s .*has the cluster a node with room for 99 CPUs"):
        facts_of(jobs, num_cpus=99, timeout=0.5)


def through(ray: Ray, tls: object = None) -> Forwarder:
    return Forwarder("127.0.0.1", ray.port, tls)  # type: ignore[arg-type]


def test_a_job_is_started_once_when_the_answer_is_lost(ray: Ray, jobs: RayJobs) -> None:
    with through(ray) as forwarder:
        apart = RayJobs(open_dashboard(f"http://127.0.0.1:{forwarder.port}"))
        apart.version()  # Ray's token is known, so the next POST is the one
        forwarder.lose = b"POST /api/jobs/ "
        job = apart.submit("true", metadata={"only": "once"})
        assert forwarder.lose == b""
    assert [each.submission_id for each in jobs.list() if each.metadata == {"only": "once"}] == [job]
    assert jobs.wait(job, LIMIT_SECONDS).status == "SUCCEEDED"


def test_a_connection_that_dropped_is_made_again_and_given_up_in_time(ray: Ray, jobs: RayJobs) -> None:
    with through(ray) as forwarder:
        address = f"http://127.0.0.1:{forwarder.port}"
        dashboard = open_dashboard(address, patience=LIMIT_SECONDS)
        session = dashboard.version().session_name
        forwarder.close()
        with pytest.raises(ClusterUnreachable, match=rf"^{address}: "):
            dashboard.version(patience=0.3)
        forwarder.open()
        assert dashboard.version().session_name == session
        job = RayJobs(dashboard).submit("sleep 600")
        forwarder.lose = f"POST /api/jobs/{job}/stop".encode()
        RayJobs(dashboard).stop(job)
        assert RayJobs(dashboard).wait(job, LIMIT_SECONDS).status == "STOPPED"


def test_tls_is_checked_against_the_authority_that_is_given(
    ray: Ray, jobs: RayJobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, authority = self_signed("127.0.0.1", tmp_path)
    with through(ray, context) as forwarder:
        address = f"https://127.0.0.1:{forwarder.port}"
        with pytest.raises(ClusterUnreachable, match=r"its certificate is not trusted .*; set SSL_CERT_FILE"):
            open_dashboard(address)
        monkeypatch.setenv("SSL_CERT_FILE", str(authority))
        dashboard: Dashboard = open_dashboard(address)
        assert dashboard.version() == jobs.version()
        assert dashboard.where == address


def test_a_package_is_the_same_for_the_same_content(tmp_path: Path) -> None:
    from runner.remote.ray_packages import ray_package

    first, second = tmp_path / "a", tmp_path / "b"
    for folder in (first, second):
        (folder / "inner").mkdir(parents=True)
        (folder / "inner/x.py").write_text("1")
        (folder / "run").write_text("#!/bin/sh\n")
        (folder / "inner/link.py").symlink_to("x.py")
    (first / "run").chmod(0o700)
    (second / "run").chmod(0o755)
    package = ray_package({"": first})
    assert package.uri == ray_package({"": second}).uri
    (second / "inner/x.py").write_text("2")
    assert package.uri != ray_package({"": second}).uri
    archive = tmp_path / "p.zip"
    archive.write_bytes(package.zipped())
    with zipfile.ZipFile(archive) as opened:
        assert {info.filename: info.external_attr >> 16 for info in opened.infolist()} == {
            "inner/link.py": 0o644,
            "inner/x.py": 0o644,
            "run": 0o755,
        }
        assert opened.read("inner/link.py") == b"1"
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="nothing in it goes to a cluster"):
        ray_package({"": tmp_path / "empty"})


def test_a_manifest_is_checked_against_a_dashboard(jobs: RayJobs, tmp_path: Path) -> None:
    (tmp_path / "dev.yaml").write_text("name: dev\nenv_vars: {WORD: '${env:NO_SUCH_VARIABLE}'}\n")
    database = str(tmp_path / "db")
    assert CliRunner().invoke(app, ["manifests", "define", database, str(tmp_path / "dev.yaml")]).exit_code == 0

    done = CliRunner().invoke(app, ["manifests", "check", database, "dev", "--cluster", jobs.dashboard.where])

    assert done.exit_code == 1
    assert re.fullmatch(r"error: the manifest refers to \$\{env:NO_SUCH_VARIABLE\}, .*\n", done.stdout)
    assert done.stderr == f"looking at a worker of {jobs.dashboard.where}\n"
