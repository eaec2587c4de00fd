"""``manifests build``: the files that it writes, and what it asks of a registry and of a builder."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import runner
from runner.cli import app
from runner.manifests.dockerfile import image_files
from runner.manifests.manifest import Manifest
from tests.unit.image_tools import DIGEST, builder_named, digest_of, only_on_path, registry
from tests.unit.test_imports import HEAVY, imported

IMAGE = "registry.example.com/team/images:1"
BASE = f"rayproject/ray:2.60.0-py311@sha256:{'a' * 64}"
SECRET = "s3cr3t-t0ken-of-the-index"
PLAIN = Manifest(name="images", pip=["six==1.17.0"])
PRIVATE = Manifest(name="private", pip=["six==1.17.0"], index_url="https://${env:INDEX_TOKEN}@index.example.com/simple")


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a database ``db``, and no builder on PATH."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", only_on_path(tmp_path))
    monkeypatch.chdir(tmp_path)
    database = runner.connect("db")
    for manifest in (PLAIN, PRIVATE):
        database.define_manifest(manifest.name, manifest)
    return tmp_path


def build(*args: object) -> Result:
    return CliRunner().invoke(app, ["manifests", "build", "db", *(str(arg) for arg in args)])


def written(folder: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in folder.iterdir()}


def test_without_a_tag_it_writes_files_and_says_how_to_build_them(place: Path) -> None:
    done = build("images", "--base", BASE)
    assert done.exit_code == 0, done.output
    assert written(place / "images-image") == image_files(PLAIN, BASE)
    assert done.stdout.splitlines() == [
        "wrote images-image/Dockerfile",
        "wrote images-image/requirements.txt",
        "to build and push it, give --tag and --push, or run",
        "  docker buildx build --platform linux/amd64 --tag REGISTRY/NAME:TAG --push images-image",
    ]


def test_the_base_is_pinned_by_its_registry(place: Path) -> None:
    with registry("team/ray:2") as known:
        base = f"{known.host}/team/ray:2"
        assert build("images", "--base", base).exit_code == 0
        assert f"FROM {base}@{DIGEST}\n" in written(place / "images-image")["Dockerfile"]
        asked = len(known.asked)
        assert build("images", "--base", base, "--no-pin").exit_code == 0
        assert f"FROM {base}\n" in written(place / "images-image")["Dockerfile"]
        assert len(known.asked) == asked


@pytest.mark.parametrize(("options", "suffix"), [([], ""), (["--gpu"], "-gpu"), (["--gpu", "--arch", "arm64"], "-gpu-aarch64")])
def test_the_default_base_is_ray_s_for_the_client(place: Path, options: list[str], suffix: str) -> None:
    from infra.images import client_python_version, client_ray_version

    assert build("images", "--no-pin", *options).exit_code == 0
    python = client_python_version().replace(".", "")
    text = written(place / "images-image")["Dockerfile"]
    assert f"FROM rayproject/ray:{client_ray_version()}-py{python}{suffix}\n" in text


def test_a_registry_that_cannot_be_reached_and_the_two_ways_out(place: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{taken.getsockname()[1]}"
        done = build("images", "--base", f"{host}/ray:1")
    assert done.exit_code == 1
    assert f"cannot reach {host} for the digest of {host}/ray:1" in done.stderr
    assert done.stderr.endswith("(--base IMAGE@sha256:..., or --no-pin)\n")
    assert not (place / "images-image").exists()


def test_docker_builds_and_pushes(place: Path) -> None:
    docker = builder_named("docker", place)
    done = build("images", "--base", BASE, "--tag", IMAGE, "--push", "--output", "out", "--arch", "arm64")
    assert done.exit_code == 0, done.output
    (call,) = docker.calls
    *argv, metadata_file, folder = call["argv"]
    assert argv == ["buildx", "build", "--platform", "linux/arm64", "--tag", IMAGE, "--push", "--metadata-file"]
    assert (folder, call["files"]) == ("out", image_files(PLAIN, BASE))
    assert not Path(metadata_file).exists()
    digest = digest_of(call["files"]["Dockerfile"])
    assert done.stdout.splitlines()[2:] == [
        f"pushed {IMAGE}: {digest}",
        "in the manifest, in place of pip, conda and the indexes, which are in the image now:",
        f"  worker_image: {IMAGE}@{digest}",
    ]
    assert "step 1 of 1 with None\n" in done.stderr
    Manifest.parse({"name": "baked", "worker_image": f"{IMAGE}@{digest}"})


def test_docker_builds_for_this_machine(place: Path) -> None:
    docker = builder_named("docker", place)
    done = build("images", "--base", BASE, "--tag", IMAGE, "--gpu")
    (call,) = docker.calls
    assert call["argv"][6:8] == ["--load", "--iidfile"]
    assert f"built {IMAGE}: {digest_of(call['files']['Dockerfile'])}" in done.stdout
    assert "worker_image" not in done.stdout


@pytest.mark.parametrize("name", ["podman", "buildah"])
def test_others_build_and_then_push(place: Path, name: str) -> None:
    builder = builder_named(name, place)
    done = build("images", "--base", BASE, "--tag", IMAGE, "--push", "--gpu")
    assert done.exit_code == 0, done.output
    first, second = builder.calls
    assert first["argv"] == ["build", "--platform", "linux/amd64", "--tag", IMAGE, "images-image"]
    assert [*second["argv"][:2], second["argv"][-1]] == ["push", "--digestfile", IMAGE]
    assert done.stdout.splitlines()[-1] == f"  gpu_worker_image: {IMAGE}@{digest_of(first['files']['Dockerfile'])}"
    assert build("images", "--base", BASE, "--tag", IMAGE).stdout.splitlines()[2].startswith(f"built {IMAGE}: sha256:")


def test_docker_without_buildx_is_passed_over(place: Path) -> None:
    docker, podman = builder_named("docker", place, buildx=False), builder_named("podman", place)
    assert build("images", "--base", BASE, "--tag", IMAGE).exit_code == 0
    assert [call["argv"][0] for call in podman.calls] == ["build"]
    (place / "bin" / "podman").unlink()
    done = build("images", "--base", BASE, "--tag", IMAGE)
    assert done.exit_code == 1
    assert f"{place}/bin/docker lacks its plugin buildx" in done.stderr
    assert len(docker.calls) == 1


def test_no_builder_is_an_error_that_says_what_to_run(place: Path) -> None:
    done = build("images", "--base", BASE, "--tag", IMAGE)
    assert done.exit_code == 1
    assert "no builder of images on PATH (docker, podman, buildah)" in done.stderr
    assert done.stderr.splitlines()[-1] == f"  docker buildx build --platform linux/amd64 --tag {IMAGE} --push images-image"
    assert (place / "images-image" / "Dockerfile").exists()


def test_secrets_go_by_name(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    docker = builder_named("docker", place)
    monkeypatch.delenv("INDEX_TOKEN", raising=False)
    refused = build("private", "--base", BASE, "--tag", IMAGE)
    assert refused.exit_code == 2
    assert "INDEX_TOKEN: not set in this environment" in refused.stderr
    assert docker.calls == []
    monkeypatch.setenv("INDEX_TOKEN", SECRET)
    done = build("private", "--base", BASE, "--tag", IMAGE)
    (call,) = docker.calls
    assert call["argv"][6:8] == ["--secret", "id=INDEX_TOKEN,env=INDEX_TOKEN"]
    assert call["env"]["INDEX_TOKEN"] == SECRET
    assert "step 1 of 1 with ****\n" in done.stderr
    assert SECRET not in done.output + str(call["argv"]) + str(call["files"]) + str(written(place / "private-image"))


def test_a_build_that_fails_says_the_last_of_it(place: Path) -> None:
    builder_named("docker", place, fails="ERROR: no matching distribution")
    done = build("images", "--base", BASE, "--tag", IMAGE, "--push")
    assert done.exit_code == 1
    assert "ended with 7; the last it said:\nstep 1 of 1 with None\nERROR: no matching distribution" in done.stderr
    assert "pushed" not in done.stdout


def test_a_folder_of_an_earlier_call_is_written_anew(place: Path) -> None:
    assert build("images", "--base", BASE, "--output", "out").exit_code == 0
    environment = Manifest(name="images", kind="conda", conda={"dependencies": ["ffmpeg"]})
    runner.connect("db").define_manifest("images", environment)
    assert build("images", "--base", BASE, "--output", "out").exit_code == 0
    assert written(place / "out") == image_files(environment, BASE)


def test_a_folder_of_somebody_else_s_is_left_alone(place: Path) -> None:
    (place / "requirements.txt").write_text("mine")
    done = build("images", "--base", BASE, "--output", ".")
    assert (done.exit_code, (place / "requirements.txt").read_text()) == (2, "mine")
    assert "--output . has files of somebody else's" in done.stderr
    (place / "Dockerfile").write_text("FROM scratch\n")
    assert build("images", "--base", BASE, "--output", ".").exit_code == 2
    assert build("images", "--base", BASE, "--output", "requirements.txt/x").exit_code == 2


def test_an_image_that_the_manifest_has_already_is_said() -> None:
    runner.connect("db").define_manifest("images", Manifest(name="images", worker_image=IMAGE))
    done = build("images", "--no-pin")
    assert done.stderr == f"manifest 'images' has worker_image: {IMAGE}; this one is built on Ray's: --base builds on another\n"


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["images", "--push"], "--push needs --tag"),
        (["no-such", "--no-pin"], "no manifest 'no-such'"),
        (["images", "--base", "Not An Image"], "'Not An Image' is no image"),
        (["images", "--no-pin", "--tag", f"a/b@sha256:{'0' * 64}"], "has a digest, which an image gets when it is pushed"),
        (["images", "--no-pin", "--tag", "A:1"], "'A:1' is no image"),
    ],
)
def test_what_is_refused(place: Path, args: list[str], says: str) -> None:
    builder = builder_named("docker", place)
    done = build(*args)
    assert (done.exit_code, builder.calls) == (2, [])
    assert says in done.stderr


def test_a_site_manifest_is_refused_before_a_registry_is_asked() -> None:
    runner.connect("db").define_manifest("mine", Manifest(name="mine", kind="site"))
    with registry() as known:
        done = build("mine", "--base", f"{known.host}/team/ray:1")
        assert (done.exit_code, known.asked) == (2, [])
    assert "kind site: site-packages of this machine are no recipe" in done.stderr


def test_help_answers_without_importing_anything_heavy() -> None:
    names, text = imported("-m", "runner", "manifests", "build", "--help")
    assert "Usage:" in text
    assert names.isdisjoint(HEAVY | {"pulumi"})
