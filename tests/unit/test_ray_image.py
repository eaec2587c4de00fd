"""The component of a baked image: what it registers, when it builds, and what it says when it cannot."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pulumi
import pytest

from infra import RayImage, RayImageArgs
from infra.errors import InfraError
from infra.rayimage import LARGEST_CONTEXT, ImageProvider
from tests.unit.image_tools import builder_named, digest_of, only_on_path
from tests.unit.pulumi_mocks import Ran, run_program

IMAGE = "registry.example.com/team/images:1"
FILES = {"Dockerfile": "FROM rayproject/ray:2.60.0-py311\nCOPY requirements.txt /tmp/\n", "requirements.txt": "six==1.17.0\n"}
SECRET = "s3cr3t-t0ken-of-the-index"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No builder on PATH yet."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", only_on_path(tmp_path))
    return tmp_path


def declared(context: str | Path | Mapping[str, str], image: Any = IMAGE, *, preview: bool = False) -> Ran:
    def program() -> None:
        made = RayImage("baked", RayImageArgs(image, context))
        pulumi.export("reference", made.reference)

    return run_program(program, preview=preview)


def inputs(**changes: Any) -> dict[str, Any]:
    return {"image": IMAGE, "arch": "amd64", "files": dict(FILES), **changes}


def folder_of(place: Path, files: Mapping[str, str]) -> Path:
    folder = place / "context"
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


def test_what_is_registered(place: Path) -> None:
    ran = declared(FILES).ok()
    assert [(item.type, item.name, item.parent) for item in ran.resources.values()] == [
        ("infill:image:RayImage", "baked", "Stack infill-test"),
        ("pulumi-python:dynamic/infill:Image", "baked", "infill:RayImage baked"),
    ]
    registered = ran["Image baked"].inputs
    assert {key: registered[key] for key in ("image", "arch", "files")} == inputs()
    assert set(registered) == {"image", "arch", "files", "__provider"}


def test_a_folder_is_the_same_as_its_texts(place: Path) -> None:
    ran = declared(folder_of(place, FILES)).ok()
    assert ran["Image baked"].inputs["files"] == FILES


def test_a_preview_does_not_know_the_digest_and_builds_nothing(place: Path) -> None:
    builder = builder_named("docker", place)
    ran = declared(FILES, preview=True).ok()
    assert ran.exports == {"reference": "<unknown>"}
    assert ran.outputs["infill:RayImage baked"] == {"reference": "<unknown>", "digest": "<unknown>"}
    assert builder.calls == []


def test_the_state_holds_the_provider_by_name_alone() -> None:
    import base64

    pickled = base64.b64decode(declared(FILES).ok()["Image baked"].inputs["__provider"])
    assert b"infra.rayimage" in pickled
    assert len(pickled) < 200


@pytest.mark.parametrize(
    ("context", "says"),
    [
        ({"requirements.txt": ""}, "the context has no Dockerfile; `python -m runner manifests build` writes one"),
        ({**FILES, "../x": ""}, "the context has '../x'; its files lie side by side"),
        ({**FILES, "..": ""}, "the context has '..'; its files lie side by side"),
        ({**FILES, "large": "x" * LARGEST_CONTEXT}, "the context has more than 1048576 bytes"),
        ("no/such/folder", "cannot read the context no/such/folder: No such file or directory"),
    ],
)
def test_a_context_that_is_none(context: str | dict[str, str], says: str) -> None:
    assert says in declared(context).failed(pulumi.RunError)


def test_a_folder_with_more_than_small_texts(place: Path) -> None:
    folder = folder_of(place, FILES)
    (folder / "sub").mkdir()
    assert f"the context {folder} has sub; give a folder with a Dockerfile and" in declared(folder).failed(pulumi.RunError)
    (folder / "sub").rmdir()
    (folder / "image.png").write_bytes(b"\x89PNG\xff")
    assert f"cannot read the context {folder}: 'utf-8' codec" in declared(folder).failed(pulumi.RunError)


def test_it_builds_pushes_and_gives_the_pinned_reference(place: Path) -> None:
    builder = builder_named("docker", place)
    made = ImageProvider().create(inputs(arch="arm64"))
    (call,) = builder.calls
    assert call["argv"][:7] == ["buildx", "build", "--platform", "linux/arm64", "--tag", IMAGE, "--push"]
    assert call["files"] == FILES
    digest = digest_of(FILES["Dockerfile"])
    assert (made.id, made.outs) == (IMAGE, {**inputs(arch="arm64"), "digest": digest, "reference": f"{IMAGE}@{digest}"})
    assert not Path(call["argv"][-1]).exists()


def test_an_update_builds_anew(place: Path) -> None:
    builder_named("podman", place)
    text = FILES["Dockerfile"] + "ENV A=1\n"
    outs = ImageProvider().update(IMAGE, inputs(), inputs(files={**FILES, "Dockerfile": text})).outs
    assert outs is not None
    assert outs["reference"] == f"{IMAGE}@{digest_of(text)}"


@pytest.mark.parametrize(
    ("change", "changes", "replaces"),
    [
        ({}, False, []),
        ({"files": {**FILES, "requirements.txt": "six==1.16.0\n"}}, True, []),
        ({"files": {**FILES, "Dockerfile": FILES["Dockerfile"].replace("py311", "py312")}}, True, []),
        ({"arch": "arm64"}, True, []),
        ({"image": IMAGE.replace(":1", ":2")}, True, ["image"]),
        ({"__provider": "of another release"}, False, []),
    ],
)
def test_what_makes_a_build(change: dict[str, Any], changes: bool, replaces: list[str]) -> None:
    olds = {**inputs(), "digest": "sha256:1", "reference": "r", "__provider": "p"}
    found = ImageProvider().diff(IMAGE, olds, inputs(**{"__provider": "p", **change}))
    assert (found.changes, found.replaces) == (changes, replaces)


def reasons(olds: dict[str, Any], news: dict[str, Any]) -> list[str]:
    return [failure.reason for failure in ImageProvider().check(olds, news).failures]


def test_no_builder_is_said_before_anything_is_built_and_only_where_one_is_needed(place: Path) -> None:
    (reason,) = reasons({}, inputs())
    assert reason.startswith("no builder of images on PATH (docker, podman, buildah)")
    assert reasons(inputs(), inputs()) == []
    builder_named("buildah", place)
    assert reasons({}, inputs()) == []


def test_a_name_that_cannot_be_pushed_and_a_secret_that_is_not_set(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    builder = builder_named("docker", place)
    assert reasons({}, inputs(image="A:1")) == ["'A:1' is no image: [registry/]name[:tag][@sha256:digest], name in lowercase"]
    files = {**FILES, "Dockerfile": FILES["Dockerfile"] + "RUN --mount=type=secret,id=INDEX_TOKEN,uid=1000 pip install six\n"}
    monkeypatch.delenv("INDEX_TOKEN", raising=False)
    (reason,) = reasons({}, inputs(files=files))
    assert reason.startswith("INDEX_TOKEN: not set in this environment")
    monkeypatch.setenv("INDEX_TOKEN", SECRET)
    assert reasons({}, inputs(files=files)) == []
    made = ImageProvider().create(inputs(files=files))
    (call,) = builder.calls
    assert call["env"]["INDEX_TOKEN"] == SECRET
    assert SECRET not in str(call["argv"]) + str(made.outs)


def test_a_build_that_fails_is_no_resource(place: Path) -> None:
    builder_named("docker", place, fails="ERROR: denied: not logged in")
    with pytest.raises(InfraError, match=r"(?s)ended with 7; the last it said:.*denied: not logged in"):
        ImageProvider().create(inputs())


def test_infra_loads_pulumi_only_with_its_components() -> None:
    program = "import sys, infra; assert 'pulumi' not in sys.modules; infra.RayImage; assert 'pulumi' in sys.modules"
    subprocess.run([sys.executable, "-c", program + "; assert 'runner' not in sys.modules"], check=True)
