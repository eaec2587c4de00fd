"""The builders; the manifests of the seed page among them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import runner
from infra import BadSpec
from runner import GenevaManifest, ManifestFactory
from runner.errors import BadInput
from runner.manifests.manifest import DEFAULT_IMAGE, Manifest

# -- the seed page, verbatim but for the imports

IMPORTS = """
import runner as geneva
from runner import GenevaManifest
"""

PIP = """
db = geneva.connect(my_db_uri)

manifest_name="dev-manifest"
manifest = (
    GenevaManifest.create_pip(manifest_name)
        .pip(["lancedb", "numpy"])
    ).build()

db.define_manifest(manifest_name, manifest)
"""

CONDA = """
manifest = (
    GenevaManifest.create_conda("my-conda-manifest")
        .conda({"dependencies": ["python=3.10", "numpy"]})
    ).build()
"""

IMAGE = """
db = geneva.connect(my_db_uri)

manifest_name = "prod-manifest"
manifest = (
    GenevaManifest.create_pip(manifest_name)
        .worker_image("myregistry.example.com/my-custom-worker-image:latest")
    ).build()

db.define_manifest(manifest_name, manifest)
"""

SITE = """
db = geneva.connect(my_db_uri)
manifest_name = "dev-manifest"
manifest = GenevaManifest.create_site(manifest_name).build()

db.define_manifest(manifest_name, manifest)
"""


def run(source: str, uri: Path) -> Manifest:
    """The manifest that a script makes."""
    variables: dict[str, Any] = {"my_db_uri": str(uri)}
    exec(IMPORTS + source, variables)
    manifest = variables["manifest"]
    assert isinstance(manifest, Manifest)
    return manifest


def test_the_pip_manifest_of_the_seed_page(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"manifest 'dev-manifest': '(lancedb|numpy)' has no pinned version") as warned:
        manifest = run(PIP, tmp_path)
    assert len(warned) == 2
    assert manifest.plain() == {"kind": "pip", "name": "dev-manifest", "pip": ["lancedb", "numpy"]}
    assert runner.connect(tmp_path).get_manifest("dev-manifest") == manifest


def test_the_conda_manifest_of_the_seed_page(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="python=3.10, and Ray runs workers with the client's Python"):
        manifest = run(CONDA, tmp_path)
    assert manifest.conda == {"dependencies": ["python=3.10", "numpy"]}


def test_the_image_manifest_of_the_seed_page(tmp_path: Path) -> None:
    manifest = run(IMAGE, tmp_path)
    assert manifest.worker_image == "myregistry.example.com/my-custom-worker-image:latest"
    assert (manifest.head_image, manifest.gpu_worker_image) == (None, None)
    assert runner.connect(tmp_path).get_manifest("prod-manifest") == manifest


def test_the_site_manifest_of_the_seed_page(tmp_path: Path) -> None:
    assert run(SITE, tmp_path).plain() == {"kind": "site", "name": "dev-manifest"}
    assert runner.connect(tmp_path).get_manifest("dev-manifest").kind == "site"


# -- both given


def test_packages_and_a_file_of_them_are_too_much() -> None:
    with pytest.raises(BadInput, match=r"manifest 'a': both pip\(\) and requirements_path\(\) are given; keep one"):
        GenevaManifest.create_pip("a").pip(["numpy"]).requirements_path("r.txt")
    with pytest.raises(BadInput, match=r"manifest 'a': both requirements_path\(\) and pip\(\) are given; keep one"):
        GenevaManifest.create_pip("a").requirements_path("r.txt").pip([])
    with pytest.raises(BadInput, match=r"both conda\(\) and conda_environment_path\(\) are given; keep one"):
        GenevaManifest.create_conda("a").conda({"dependencies": []}).conda_environment_path("e.yml")
    with pytest.raises(BadInput, match=r"both conda_environment_path\(\) and conda\(\) are given; keep one"):
        GenevaManifest.create_conda("a").conda_environment_path("e.yml").conda({"dependencies": []})


# -- every method


def test_every_method_sets_its_field(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERE", "value of here")
    manifest = (
        ManifestFactory.create_pip("first")
        .name("second")
        .version("1")
        .pip(("attrs==25.1.0",))
        .index_url("https://one/simple")
        .extra_index_urls(["https://two/simple"])
        .py_modules([str(tmp_path)])
        .add_py_module(str(tmp_path / "b"))
        .head_image("head:1")
        .worker_image("worker:1", gpu="gpu:1")
        .env_vars({"HERE": "value of here", "B": "c"})
        .working_dir(False)
        .include(["*.bin"])
        .exclude(["data"])
        .delete_local_zips(False)
        .local_zip_output_dir(tmp_path)
        .build()
    )
    assert manifest.plain() == {
        "kind": "pip",
        "name": "second",
        "version": "1",
        "pip": ["attrs==25.1.0"],
        "index_url": "https://one/simple",
        "extra_index_urls": ["https://two/simple"],
        "py_modules": [str(tmp_path), str(tmp_path / "b")],
        "head_image": "head:1",
        "worker_image": "worker:1",
        "gpu_worker_image": "gpu:1",
        "env_vars": {"HERE": "${env:HERE}", "B": "c"},
        "working_dir": False,
        "include": ["*.bin"],
        "exclude": ["data"],
        "delete_local_zips": False,
        "local_zip_output_dir": str(tmp_path),
    }
    default = ManifestFactory.create_site("a").default_head_image().default_worker_image().build()
    assert (default.head_image, default.worker_image) == (DEFAULT_IMAGE, DEFAULT_IMAGE)


def test_files_are_relative_to_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("r.txt").write_text("attrs==25.1.0\n")
    Path("env.yml").write_text("dependencies: [numpy]")
    Path("pylock.toml").write_text('lock-version = "1.0"\npackages = []\n')
    assert ManifestFactory.create_pip("a").requirements_path("r.txt").build().pip == ["attrs==25.1.0"]
    assert ManifestFactory.create_conda("a").conda_environment_path("env.yml").build().conda == {"dependencies": ["numpy"]}
    assert ManifestFactory.create_uv("a").lock_path(Path("pylock.toml")).build().kind == "uv"
    assert ManifestFactory.create_pip("a").add_py_module("lib").build().py_modules == [str(tmp_path / "lib")]


@pytest.mark.parametrize("method", ["pip", "extra_index_urls", "py_modules", "include", "exclude"])
def test_a_text_is_not_taken_for_a_list_of_its_letters(method: str) -> None:
    with pytest.raises(BadSpec, match=f"^manifest 'a': {method}: Input should be a valid list, not 'abc'"):
        getattr(ManifestFactory.create_pip("a"), method)("abc").build()


def test_a_builder_shares_nothing_with_its_caller_nor_with_what_it_built() -> None:
    packages, conda = ["attrs==25.1.0"], {"dependencies": ["numpy", {"pip": ["pillow"]}]}
    pip, environment = ManifestFactory.create_pip("a").pip(packages), ManifestFactory.create_conda("a").conda(conda)
    packages.append("click==8.1.8")
    conda["dependencies"][1]["pip"].append("rich")  # type: ignore[index]
    first, second = pip.build(), environment.build()
    assert first.pip == ["attrs==25.1.0"]
    assert second.conda == {"dependencies": ["numpy", {"pip": ["pillow"]}]}
    pip.add_py_module("/x").version("2")
    first.pip.append("y")
    second.conda["dependencies"].append("y")
    assert (first.py_modules, first.version) == ([], None)
    assert pip.build().pip == ["attrs==25.1.0"]
    assert environment.build().conda == {"dependencies": ["numpy", {"pip": ["pillow"]}]}
