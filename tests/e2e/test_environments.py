"""Functions that need what the driver does not have: on workers of another machine, as far as one machine can have two."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.helpers import run, run_script
from tests.e2e.ray_cluster import RayCluster, two_nodes

ROOT = str(Path(__file__).parents[2])
TOKEN = "tok-3f9a1c2b7d5e"
PREPARE = """
import os, sys
import pyarrow as pa
import runner
from runner import ManifestFactory, udf
from runner.errors import RunnerError

db = runner.connect(os.environ["DB"])
table = db.create_table("t", pa.table({"x": [1_500_000]}), mode="overwrite")
"""
HUMANIZE = """
@udf
def words(x: int) -> str:
    import humanize
    return f"{humanize.intword(x)} {humanize.__file__}"

table.add_columns({"words": words, "again": words})
"""
RUN = """
with db.context(cluster="local", manifest=manifest):
    table.backfill("words", progress=False)
print(*table.to_arrow(["words"])["words"].to_pylist())
"""
PYLOCK = """
lock-version = "1.0"
created-by = "test"

[[packages]]
name = "humanize"
version = "4.12.0"

[[packages.wheels]]
name = "humanize-4.12.0-py3-none-any.whl"
url = "https://files.pythonhosted.org/humanize-4.12.0-py3-none-any.whl"
hashes = {sha256 = "106a7436a2d545d742c147c469716b3a08424aa143a82103630147c489a89f48"}
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    with two_nodes(tmp_path_factory.mktemp("ray")) as found:
        yield found


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "pyproject.toml").touch()
    return folder


def drive(source: str, folder: Path, cluster: RayCluster | None, **environment: str) -> str:
    """The output of a script; in a Ray that is there, or in one of its own."""
    address = {"RAY_ADDRESS": cluster.address} if cluster else {}
    return run_script(PREPARE + source, folder, DB=str(folder.parent / "db"), PYTHONPATH=ROOT, **address, **environment).strip()


def module(folder: Path, name: str, text: str) -> Path:
    place = folder / name
    place.mkdir(parents=True)
    (place / "__init__.py").write_text(text)
    return place


def test_pip_and_a_second_job_installs_nothing(project: Path, cluster: RayCluster) -> None:
    manifest = 'manifest = ManifestFactory.create_pip("dev").pip(["humanize==4.12.0"]).build()\n'
    again = """
with db.context(cluster="local", manifest=manifest):
    table.backfill("again", progress=False)
"""
    assert cluster.environments("pip") == set()
    out = drive(HUMANIZE + manifest + RUN, project, cluster)
    made = cluster.environments("pip")
    assert out.startswith("1.5 million ")
    assert len(made) == 1
    assert f"runtime_resources/pip/{made.copy().pop()}" in out
    stamps = {path: path.stat().st_mtime_ns for path in cluster.session.glob("runtime_resources*/pip/*/virtualenv/lib/*/*")}
    drive(HUMANIZE + manifest + again, project, cluster)
    assert cluster.environments("pip") == made
    assert {path: path.stat().st_mtime_ns for path in cluster.session.glob("runtime_resources*/pip/*/virtualenv/lib/*/*")} == stamps


def test_uv_from_a_lock_file(project: Path, cluster: RayCluster) -> None:
    (project / "pylock.toml").write_text(PYLOCK)
    manifest = 'manifest = ManifestFactory.create_uv("dev").lock_path("pylock.toml").build()\n'
    out = drive(HUMANIZE + manifest + RUN, project, cluster)
    assert out.startswith("1.5 million ")
    assert len(cluster.environments("uv")) == 1


def test_what_the_installer_says_is_told(project: Path) -> None:
    """By uv: of a file with another hash than the lock's. Ray tries three times."""
    (project / "pylock.toml").write_text(PYLOCK.replace("106a", "0000"))
    source = """
manifest = ManifestFactory.create_uv("dev").lock_path("pylock.toml").build()
try:
    with db.context(cluster="local", manifest=manifest):
        table.backfill("words", progress=False)
except RunnerError as exc:
    print(type(exc).__name__, exc)
"""
    out = drive(HUMANIZE + source, project, None)
    assert out.startswith("EnvironmentFailed workers cannot be given their environment: ")
    assert "Hash mismatch for `humanize==4.12.0`" in out


def test_py_modules_mean_the_same_when_they_are_gone_here(project: Path, cluster: RayCluster) -> None:
    module(project.parent / "lib", "numbersinwords", "from .more import words\n")
    (project.parent / "lib/numbersinwords/more.py").write_text("def words(x):\n    return f'{x} {__file__}'\n")
    (project.parent / "lib/alone.py").write_text("UNIT = 'rows'\n")
    define = """
import shutil
manifest = ManifestFactory.create_pip("dev").py_modules(["../lib/numbersinwords"]).add_py_module("../lib/alone.py").build()
db.define_manifest("dev", manifest)
shutil.rmtree("../lib")
"""
    use = """
@udf
def words(x: int) -> str:
    import alone, numbersinwords
    return f"{numbersinwords.words(x)} {alone.UNIT}"

table.add_columns({"words": words})
manifest = "dev"
"""
    for place in (cluster, None):
        if place is None:
            define = ""
        out = drive(define + use + RUN, project, place)
        number, file, unit = out.split()
        assert (number, unit) == ("1500000", "rows")
        assert file.endswith("/numbersinwords/more.py")


def test_the_workspace_goes_as_the_driver_finds_it(project: Path, cluster: RayCluster) -> None:
    module(
        project / "src",
        "features",
        "import os\n\ndef words(x: int) -> str:\n    return f'{__file__} {open(\"unit.txt\").read()}'\n",
    )
    (project / "jobs").mkdir()
    (project / "jobs/unit.txt").write_text("rows")
    (project / "jobs/.env").write_text("SECRET=1")
    source = """
sys.path.append("../src")
import features

table.add_columns({"words": features.words})
manifest = None
"""
    out = drive(source + RUN, project / "jobs", cluster, TMPDIR="/tmp")
    file, unit = out.split()
    assert unit == "rows"
    assert file.endswith("/src/features/__init__.py")
    assert not file.startswith(str(project))
    root = Path(file).parents[2]
    assert sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file() and path.suffix != ".pyc") == [
        "jobs/script.py",
        "jobs/unit.txt",
        "pyproject.toml",
        "src/features/__init__.py",
    ]


def test_site_packages_go_with_a_site_manifest(project: Path, cluster: RayCluster) -> None:
    folder = project.parent / "site"
    module(folder, "numbersinwords", "def words(x):\n    return f'{x} {__file__}'\n")
    module(folder, "ray", "raise ImportError('the cluster has its own')\n")
    source = """
import site
site.getsitepackages = lambda: ["../site"]

@udf
def words(x: int) -> str:
    import numbersinwords, ray
    return numbersinwords.words(x)

table.add_columns({"words": words})
manifest = ManifestFactory.create_site("dev").working_dir(False).build()
"""
    number, file = drive(source + RUN, project, cluster).split()
    assert number == "1500000"
    assert not file.startswith(str(project.parent))


def test_local_ray_has_pip_too_and_uploads_nothing(project: Path) -> None:
    manifest = 'manifest = ManifestFactory.create_pip("dev").pip(["humanize==4.12.0"]).build()\n'
    assert drive(HUMANIZE + manifest + RUN, project, None).startswith("1.5 million ")
    assert not (project.parent / "db/_runner/packages").exists()


def test_what_nobody_gives_is_named_before_a_row_is_computed(project: Path, cluster: RayCluster) -> None:
    source = """
@udf(on_error="skip")
def words(x: int) -> str:
    open("called", "w")
    import humanize
    return humanize.intword(x)

table.add_columns({"words": words})
for kind in ("inline", "local"):
    try:
        with db.context(cluster=kind):
            table.backfill("words", progress=False)
    except RunnerError as exc:
        print(type(exc).__name__, exc)
"""
    for line in drive(source, project, cluster).splitlines():
        assert line == (
            "BackfillFailed words imports humanize, which is not installed where it runs; give it to workers: "
            'db.context(manifest=ManifestFactory.create_pip("NAME").pip(["humanize"]).build()), or an image that has it'
        )
    assert not (project / "called").exists()


def test_a_secret_is_shown_nowhere(project: Path, tmp_path: Path) -> None:
    source = """
manifest = ManifestFactory.create_pip("dev").env_vars({"API_TOKEN": "${env:API_TOKEN}", "LEVEL": "shown-level"}).build()
token = os.environ["API_TOKEN"]

@udf
def words(x: int) -> str:
    return os.environ["LEVEL"] + os.environ["API_TOKEN"][-4:]

table.add_columns({"words": words, "again": words})
with db.context(cluster="local", manifest=manifest):
    table.backfill("words", progress=False)
    from ray.util import state
    actors = state.list_actors(detail=True)
    workers = [actor for actor in actors if actor.class_name == "RayWorker"]
    print(len(workers) > 0, "shown-level" in str(actors), token in str(actors), token in str(state.list_runtime_envs(detail=True)))
    print(token in str(state.list_jobs(detail=True)), token in str(state.list_tasks(detail=True)))

manifest = ManifestFactory.create_pip("there").env_vars({"API_TOKEN": "${env:NODE_TOKEN}", "LEVEL": "shown-level"}).build()
with db.context(cluster=os.environ["DASHBOARD"], manifest=manifest):
    job = table.backfill("again", progress=False)
from ray.job_submission import JobSubmissionClient
client = JobSubmissionClient(os.environ["DASHBOARD"])
told = str(client.get_job_info(job.job_id)) + client.get_job_logs(job.job_id) + str(client.list_jobs())
print(job.job_id in told, token in told)
print(*table.to_arrow(["words", "again"]).to_pylist()[0].values())
"""
    with two_nodes(tmp_path, dashboard=True, env={"NODE_TOKEN": TOKEN}) as cluster:
        out = drive(source, project, cluster, API_TOKEN=TOKEN, DASHBOARD=f"http://{cluster.dashboard}")
        assert out.splitlines() == ["True True False False", "False False", "True False", "shown-level7d5e shown-level7d5e"]
        logs = [path for path in cluster.session.glob("logs/**/*") if path.is_file()]
        assert logs
        assert [path.name for path in logs if TOKEN.encode() in path.read_bytes()] == []
        stored = [path for path in (project.parent / "db").rglob("*") if path.is_file()]
        assert [path.name for path in stored if TOKEN.encode() in path.read_bytes()] == []


def test_the_command_line_takes_a_manifest_and_a_cluster(project: Path) -> None:
    (project / "features.py").write_text("def words(x: int) -> str:\n    import humanize\n    return humanize.intword(x)\n")
    (project / "dev.yaml").write_text("{name: dev, pip: [humanize==4.12.0], worker_image: own/image:1}")
    (project / "here.yaml").write_text("{kind: local, name: here, ray_init_kwargs: {num_cpus: 1}}")
    drive("", project, None)
    db = str(project.parent / "db")

    def infill(*args: str) -> tuple[int, str, str]:
        done = run(["-m", "runner", *args], project, PYTHONPATH=ROOT)
        return done.returncode, done.stdout, done.stderr

    assert infill("manifests", "define", db, "dev.yaml")[0] == 0
    assert infill("clusters", "define", db, "here.yaml")[0] == 0
    backfill = ("backfill", db, "t", "words", "--udf", "features:words", "--cluster", "here", "--manifest", "dev")
    code, out, err = infill(*backfill)
    assert (code, "rows done     1 " in out) == (0, True), err
    assert "worker_image: own/image:1 is not used" in err
    code, out, err = infill(*backfill)
    assert (code, "nothing to do" in out, "install" in err) == (0, True, False)
    code, out, err = infill(*backfill[:-1], "devv")
    assert (code, out) == (2, "")
    assert "no manifest 'devv'" in err
