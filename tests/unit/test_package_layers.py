from __future__ import annotations

import hashlib
import io
import os
import random
import shutil
import stat
import subprocess
import zipfile
from pathlib import Path

import pytest

from runner.packages import layers as module
from runner.packages.errors import FileChanging
from runner.packages.format import layer_id
from runner.packages.index import CHUNK
from runner.packages.layers import Layer
from runner.packages.package import Package, build
from runner.packages.zips import write_zip
from tests.unit.package_trees import plain, write


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


TREE = {
    "README.md": "read me", "src/a/__init__.py": "", "src/a/b.py": "import a", "src/run": "#!/bin/sh\n", "größe/x y.txt": "1",
    "empty/": "", "new\nline": "2", "src/large.bin": b"\0\1\2" * CHUNK,
}  # fmt: skip


def tree(root: Path, files: dict[str, str | bytes] = TREE) -> Path:  # type: ignore[assignment]
    write(root, files)
    (root / "src/run").chmod(0o755)
    os.symlink("../README.md", root / "src/link")
    return root


def zipped(layer: Layer, root: Path) -> bytes:
    out = io.BytesIO()
    write_zip(layer, root, out)
    return out.getvalue()


def zips(package: Package) -> dict[str, str]:
    return {layer.id: hashlib.sha256(zipped(layer, package.root)).hexdigest() for layer in package.layers}


def test_the_same_tree_made_elsewhere_is_the_same_package_to_the_byte(tmp_path: Path) -> None:
    """Copied, touched, in another order, with another umask and with what stays."""
    first = build(tree(tmp_path / "one"))
    old = os.umask(0o077)
    try:
        second = tree(tmp_path / "two", dict(reversed(TREE.items())))
        write(second, {"__pycache__/x.pyc": "", ".env": "TOKEN=1"})
    finally:
        os.umask(old)
    shutil.copytree(tmp_path / "one", tmp_path / "three", symlinks=True)
    generator = random.Random(1)
    for path in (tmp_path / "three").rglob("*"):
        os.utime(path, (generator.random() * 1e9, generator.random() * 1e9), follow_symlinks=False)
    for path in second.rglob("*.py"):
        path.chmod(0o600)
    for other in (build(second), build(tmp_path / "three")):
        assert other.id == first.id
        assert other.record.to_json() == first.record.to_json()
        assert zips(other) == zips(first)


def test_the_bytes_are_those_of_every_version_of_the_runner(tmp_path: Path) -> None:
    """These change only with the format's number: stores hold packages under such names."""
    package = build(tree(tmp_path / "one"))
    assert package.id == "19d028fc98cc92152ff5e0f854ad9e0d68db45af446dd626d22c3f0207383c28"
    assert zips(package) == {
        "251195a375bc65d5beb4d92829027d2a825db1fc276df9ab2e6a3a218ed5c832": (
            "854e5238abeba2996b58de752439078bf26025f46df9eb470a9dbef9f6f55994"
        )
    }


@pytest.mark.parametrize("change", ["content", "name", "executable", "link", "folder", "file for a folder", "gone"])
def test_whatever_changes_changes_the_id(tmp_path: Path, change: str) -> None:
    root = tree(tmp_path / "one")
    before = build(root).id
    if change == "content":
        write(root, {"README.md": "Read me"})
    elif change == "name":
        (root / "README.md").rename(root / "readme.md")
    elif change == "executable":
        (root / "src/run").chmod(0o644)
    elif change == "link":
        (root / "src/link").unlink()
        os.symlink("a/b.py", root / "src/link")
    elif change == "folder":
        (root / "empty2").mkdir()
    elif change == "file for a folder":
        (root / "empty").rmdir()
        write(root, {"empty": ""})
    else:
        (root / "src/a/b.py").unlink()
    assert build(root).id != before


def test_a_layer_id_does_not_depend_on_order_and_tells_fields_apart() -> None:
    entries = [("a", "file", "", "1"), ("b", "link", "", "a"), ("c", "folder", "", "")]
    assert layer_id(entries) == layer_id(reversed(entries))
    others = [
        ("a", "file", "x", "1"),
        ("a", "link", "", "1"),
        ("a", "file", "", "2"),
        ("ab", "file", "", "1"),
        ("", "a", "file", "1"),
    ]
    assert len({layer_id([entry]) for entry in [entries[0], *others]}) == 6
    assert layer_id([("a", "folder", "", ""), ("b", "folder", "", "")]) != layer_id([("a", "folder", "", "")])


def test_zips_are_what_other_programs_read(tmp_path: Path) -> None:
    package = build(tree(tmp_path / "one"))
    (layer,) = package.layers
    data = zipped(layer, package.root)
    assert len(data) == layer.bytes
    (tmp_path / "layer.zip").write_bytes(data)
    with zipfile.ZipFile(tmp_path / "layer.zip") as archive:
        assert archive.testzip() is None
        infos = {info.filename: info for info in archive.infolist()}
        assert list(infos) == [
            "README.md", "empty/", "größe/x y.txt", "new\nline", "src/a/__init__.py", "src/a/b.py", "src/large.bin", "src/link",
            "src/run",
        ]  # fmt: skip
        assert archive.read("src/large.bin") == TREE["src/large.bin"]
        assert archive.read("src/link") == b"../README.md"
    modes = {name: info.external_attr >> 16 for name, info in infos.items()}
    assert (modes["README.md"], modes["src/run"]) == (stat.S_IFREG | 0o644, stat.S_IFREG | 0o755)
    assert (modes["src/link"], modes["empty/"]) == (stat.S_IFLNK | 0o777, stat.S_IFDIR | 0o755)
    assert {info.date_time for info in infos.values()} == {(1980, 1, 1, 0, 0, 0)}
    assert {(info.create_system, info.compress_type) for info in infos.values()} == {(3, 0)}
    if shutil.which("unzip"):
        subprocess.run(["unzip", "-q", "layer.zip", "-d", "out"], cwd=tmp_path, check=True)
        assert (tmp_path / "out/src/link").read_text() == "read me"
        assert os.access(tmp_path / "out/src/run", os.X_OK)


def test_a_file_that_changed_since_is_not_sent_as_what_it_was(tmp_path: Path) -> None:
    package = build(tree(tmp_path / "one"))
    (layer,) = package.layers
    for path, content in {"README.md": b"READ ME", "src/large.bin": b"\0\1\3" * CHUNK, "src/run": b"longer than before\n"}.items():
        write(package.root, {path: content})
        with pytest.raises(FileChanging, match=f"{path} changed while the package was made; run again"):
            zipped(layer, package.root)
        write(package.root, {path: TREE[path]})
    zipped(layer, package.root)
    (package.root / "README.md").unlink()
    with pytest.raises(FileChanging, match=r"README\.md is gone"):
        zipped(layer, package.root)


def project(root: Path, folders: int = 30, files: int = 20) -> Path:
    return plain(root, *(f"p{folder % 7}/s{folder}/m{number}.py" for folder in range(folders) for number in range(files)), "top.py")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers of at most 100 files or 1,000 bytes."""
    monkeypatch.setattr(module, "MOST_FILES", 100)
    monkeypatch.setattr(module, "MOST_BYTES", 1000)


def ids(package: Package) -> set[str]:
    return {layer.id for layer in package.layers}


@pytest.mark.usefixtures("small")
def test_one_edited_file_changes_its_layer_alone(tmp_path: Path) -> None:
    root = project(tmp_path / "one")
    before = build(root)
    assert 6 <= len(before.layers) <= 30
    for path in ("p3/s3/m7.py", "top.py", "p0/s28/m0.py"):
        write(root, {path: "y"})
        after = build(root)
        (changed,) = ids(after) - ids(before)
        assert len(ids(before) - ids(after)) == 1
        (layer,) = (layer for layer in after.layers if layer.id == changed)
        assert path in {entry.path for entry in layer.entries}
        before = after


@pytest.mark.usefixtures("small")
def test_every_file_is_in_one_layer_and_no_layer_is_too_large(tmp_path: Path) -> None:
    package = build(project(tmp_path / "one"))
    found = [entry for layer in package.layers for entry in layer.entries]
    assert sorted(found) == list(package.listing.entries)
    assert max(len(layer.entries) for layer in package.layers) <= 100
    assert max(sum(entry.size for entry in layer.entries) for layer in package.layers) <= 1000


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("flat", [True, False])
def test_a_new_file_changes_few_layers_wherever_it_sorts(tmp_path: Path, flat: bool) -> None:
    root = plain(tmp_path / "one", *(f"{'' if flat else 'sub/'}f{number:04d}" for number in range(1000)))
    before = build(root)
    assert len(before.layers) >= 10
    for name in ("a", "f0500x", "z", "f0100x", "f0999x"):
        plain(root, f"{'' if flat else 'sub/'}{name}")
        after = build(root)
        assert len(ids(after) - ids(before)) <= 2
        before = after


@pytest.mark.usefixtures("small")
def test_a_large_file_is_a_layer_of_its_own(tmp_path: Path) -> None:
    root = plain(tmp_path / "one", *(f"f{number}" for number in range(50)))
    write(root, {"f25x": b"0" * 5000, "data/only": b"1" * 5000})
    package = build(root)
    assert sorted(len(layer.entries) for layer in package.layers) == [1, 1, 50]


@pytest.mark.usefixtures("small")
def test_a_large_folder_takes_nothing_of_its_siblings_with_it(tmp_path: Path) -> None:
    root = plain(tmp_path / "one", "a/x", "b/x", "z/x", *(f"m/s{number % 4}/f{number}" for number in range(300)))
    before = build(root)
    write(root, {"a/x": "changed"})
    (changed,) = (layer for layer in build(root).layers if layer.id not in ids(before))
    assert [entry.path for entry in changed.entries] == ["a/x", "b/x", "z/x"]


@pytest.mark.slow
def test_a_file_of_more_than_four_gigabytes(tmp_path: Path) -> None:
    size = (1 << 32) + 17
    (tmp_path / "one").mkdir()
    with (tmp_path / "one/large").open("wb") as file:
        file.truncate(size)
    write(tmp_path / "one", {"small": "x"})
    package = build(tmp_path / "one")
    for layer in package.layers:
        with (tmp_path / "layer.zip").open("wb") as out:
            write_zip(layer, package.root, out)
        assert (tmp_path / "layer.zip").stat().st_size == layer.bytes
        with zipfile.ZipFile(tmp_path / "layer.zip") as archive:
            assert archive.testzip() is None
            assert [info.file_size for info in archive.infolist()] in ([1], [size])
