from __future__ import annotations

import itertools
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from runner.errors import BadInput, StorageError
from runner.packages import package as module
from runner.packages import patience
from runner.packages.errors import FileChanging
from runner.packages.format import layer_path, package_path
from runner.packages.package import Package, build, describe, to_dict
from runner.packages.unpack import ensure
from runner.packages.upload import upload
from runner.store import Store
from tests.unit.package_trees import plain, write


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Package:
    """Of six layers."""
    monkeypatch.setattr("runner.packages.layers.MOST_FILES", 10)
    return build(plain(tmp_path / "root", *(f"p{folder}/f{number}" for folder in range(6) for number in range(8))))


class Recording(Store):
    """A store that tells what was sent, and fails or lies where it is told to."""

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self.sent: list[str] = []
        self.tries = itertools.count()
        self.failing_after = 1000
        self.cut = False
        self.lost_at_put = ""

    def put_file(self, path: str, file: Path, parts: int = 2) -> None:
        if next(self.tries) >= self.failing_after:
            raise StorageError(f"cannot write {path}: refused")
        if self.cut:
            file.write_bytes(file.read_bytes()[:-1])
        super().put_file(path, file, parts)
        self.sent.append(path)

    def put(self, path: str, data: bytes) -> None:
        super().put(path, data)
        self.sent.append(path)
        if self.lost_at_put:
            self.delete([self.lost_at_put])
            self.lost_at_put = ""


@pytest.fixture
def recording(tmp_path: Path) -> Recording:
    return Recording(str(tmp_path / "db"))


def layers(package: Package) -> set[str]:
    return {layer_path(layer.id) for layer in package.layers}


def test_what_is_unpacked_is_what_was_packed(tmp_path: Path, store: Store) -> None:
    files = {"a/b.py": "1", "run": "#!", "größe/new\nline": "2", "empty/deep/": ""}
    root = write(tmp_path / "root", {**files, "big": b"\7" * (3 << 20)})
    (root / "run").chmod(0o700)
    os.symlink("../run", root / "a/link")
    os.symlink("a", root / "folder")
    said: list[str] = []
    made = build(root)
    assert upload(made, store, said.append) == made.id
    assert said == [f"sending 1 of 1 layers of package {made.id[:12]}, 3.0 MB"]
    old = os.umask(0o077)
    try:
        found = ensure(store, made.id, tmp_path / "node")
    finally:
        os.umask(old)
    assert found == tmp_path / "node" / made.id
    assert build(found).id == made.id
    assert sorted(os.listdir(found)) == ["a", "big", "empty", "folder", "größe", "run"]
    assert stat.S_IMODE((found / "run").stat().st_mode) == 0o755
    assert stat.S_IMODE((found / "a/b.py").stat().st_mode) == 0o644
    assert (os.readlink(found / "a/link"), os.readlink(found / "folder")) == ("../run", "a")
    assert (found / "empty/deep").is_dir()
    assert sorted(os.listdir(tmp_path / "node")) == [made.id, f"{made.id}.lock"]


def test_an_empty_workspace_is_a_package(tmp_path: Path, store: Store) -> None:
    made = build(write(tmp_path / "root", {}))
    upload(made, store)
    assert os.listdir(ensure(store, made.id, tmp_path / "node")) == []


def test_only_what_is_not_there_is_sent_and_the_json_comes_last(recording: Recording, package: Package) -> None:
    upload(package, recording)
    assert set(recording.sent[:-1]) == layers(package)
    assert recording.sent[-1] == package_path(package.id)
    recording.sent.clear()
    upload(package, recording)
    assert recording.sent == [package_path(package.id)]
    recording.sent.clear()
    write(package.root, {"p3/f1": "edited"})
    edited = build(package.root)
    upload(edited, recording)
    assert len(recording.sent) == 2
    assert set(recording.sent[:1]) == layers(edited) - layers(package)


def test_an_upload_that_broke_is_not_seen_and_taken_up(recording: Recording, package: Package) -> None:
    recording.failing_after = 2
    with pytest.raises(StorageError, match="refused"):
        upload(package, recording)
    arrived = set(recording.sent)
    assert len(arrived) == 2
    assert recording.get(package_path(package.id)) is None
    recording.failing_after = 1000
    recording.sent.clear()
    upload(package, recording)
    assert set(recording.sent[:-1]) == layers(package) - arrived


def test_a_store_that_does_not_answer_is_waited_for_and_one_that_refuses_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(patience.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(patience.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    answers = iter(["PUT in 2.1s, after 10 retries, max_retries: 10", "after 3 retries", None])

    def call() -> str:
        answer = next(answers)
        if answer:
            raise StorageError(answer)
        return "there"

    assert patience.patiently(call) == "there"
    assert now == [0.75]
    answers = iter(["403 Forbidden", None])
    with pytest.raises(StorageError, match="403"):
        patience.patiently(call)
    answers = itertools.repeat("after 10 retries")  # type: ignore[assignment]
    with pytest.raises(StorageError, match="after 10 retries"):
        patience.patiently(call)
    assert 55 < now[0] <= 60.75


def test_a_layer_that_was_cut_is_sent_again(tmp_path: Path, recording: Recording, package: Package) -> None:
    upload(package, recording)
    cut = sorted(layers(package))[2]
    os.truncate(tmp_path / "db/_runner" / cut, 100)
    recording.sent.clear()
    upload(package, recording)
    assert recording.sent == [cut, package_path(package.id)]
    ensure(recording, package.id, tmp_path / "node")


def test_a_store_that_keeps_less_than_it_was_given_is_told(recording: Recording, package: Package) -> None:
    recording.cut = True
    with pytest.raises(StorageError, match=r"packages/layers/\w+\.zip was written, and is not there or not of \d+ bytes"):
        upload(package, recording)
    assert recording.get(package_path(package.id)) is None


def test_a_layer_that_is_collected_during_an_upload_is_sent_again(tmp_path: Path, recording: Recording, package: Package) -> None:
    upload(package, recording)
    recording.lost_at_put = sorted(layers(package))[0]
    recording.sent.clear()
    upload(package, recording)
    assert recording.sent == [package_path(package.id), sorted(layers(package))[0], package_path(package.id)]
    ensure(recording, package.id, tmp_path / "node")


def test_a_file_that_changed_since_ends_the_upload(recording: Recording, package: Package) -> None:
    write(package.root, {"p1/f1": "y"})
    with pytest.raises(FileChanging, match="p1/f1 changed while the package was made; run again"):
        upload(package, recording)
    assert recording.get(package_path(package.id)) is None


def test_zips_are_kept_where_they_are_wanted_only(tmp_path: Path, recording: Recording, package: Package) -> None:
    kept = package.root / "zips"
    upload(package, recording, local_zip_output_dir=kept)
    assert os.listdir(kept) == []
    upload(package, recording, local_zip_output_dir=kept, delete_local_zips=False)
    assert sorted(os.listdir(kept)) == sorted(f"{layer.id}.zip" for layer in package.layers)
    for layer in package.layers:
        assert (kept / f"{layer.id}.zip").read_bytes() == (tmp_path / "db/_runner" / layer_path(layer.id)).read_bytes()
    assert build(package.root).id == package.id, "zip files in the workspace are part of the next package"
    with pytest.raises(BadInput, match="delete_local_zips=False needs local_zip_output_dir"):
        upload(package, recording, delete_local_zips=False)
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match=f"cannot write zip files to {tmp_path}/file"):
        upload(package, recording, local_zip_output_dir=tmp_path / "file")


def test_a_temporary_folder_is_left_empty(
    tmp_path: Path, recording: Recording, package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    recording.failing_after = 2
    with pytest.raises(StorageError):
        upload(package, recording)
    assert os.listdir(tmp_path / "tmp") == []


def test_a_full_disk_under_the_zips_is_told(tmp_path: Path) -> None:
    root = write(tmp_path / "root", {"big": b"\0" * 300_000})
    program = (
        "import resource, sys; from pathlib import Path; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000));"
        "from runner.packages.package import build; from runner.packages.upload import upload; from runner.store import Store;"
        "upload(build(Path(sys.argv[1])), Store(sys.argv[2]))"
    )
    done = subprocess.run([sys.executable, "-c", program, root, tmp_path / "db"], capture_output=True, text=True)
    assert "StorageError: cannot write" in done.stderr
    assert "File too large; it is 293.1 kB" in done.stderr


def test_what_goes_is_described_with_sizes_and_what_stays_with_reasons(tmp_path: Path) -> None:
    root = write(tmp_path / "root", {f"f{number:02d}": "x" * number for number in range(12)})
    write(root, {".env": "", "a b.py": "1" * 2000, "new\nline": "", "data/": ""})
    os.symlink("f01", root / "link")
    made = build(root)
    lines = describe(made.listing, made).splitlines()
    assert lines[0] == f"{root}: 16 files, 2.0 kB; 1 left out"
    assert "     2.0 kB  a b.py" in lines
    assert "        0 B  data/" in lines
    assert "        0 B  link -> f01" in lines
    assert "        0 B  new\\nline" in lines
    assert lines[lines.index("left out:") + 1] == "  .env  secret: environment file"
    largest = [line.split()[-1] for line in lines[lines.index("the largest:") + 1 : -1]]
    assert largest == ["b.py", "f11", "f10", "f09", "f08", "f07", "f06", "f05", "f04", "f03"]
    assert lines[-1] == f"package {made.id} in 1 layer"
    data = to_dict(made.listing, made)
    assert (data["package"], data["bytes"], len(data["files"])) == (made.id, 2066, 16)
    assert data["left_out"] == [{"path": ".env", "reason": "secret: environment file"}]
    json.dumps(data)


def test_much_is_warned_of_and_too_much_refused_before_anything_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = plain(tmp_path / "root", "a.py")
    for number in range(12):
        with (root / f"f{number:02d}.bin").open("wb") as file:
            file.truncate((10 << 20) + number)
    made = build(root)
    (warning,) = made.warnings
    assert warning.splitlines()[:2] == ["120.0 MB go to workers; the largest:", "    10.0 MB  f11.bin"]
    assert len(warning.splitlines()) == 11
    assert "warning: 120.0 MB go to workers; the largest" in describe(made.listing, made)
    monkeypatch.setattr("runner.packages.index.read_file", None)
    with pytest.raises(BadInput, match=r"(?s)120\.0 MB would go to workers, and 100\.0 MB may; .*The largest:\n.*f11\.bin"):
        build(root, limit=100 << 20)
    assert module.MOST_BYTES == 5 << 30


def test_site_packages_say_what_they_are_of(tmp_path: Path) -> None:
    root = plain(tmp_path / "site-packages", "a/__init__.py", "a/__pycache__/x.pyc")
    record = build(root, site=True).record
    assert (record.kind, record.python, record.platform) == ("site", module.this_python(), module.this_platform())
    assert build(root).record.python is None
    assert build(root, site=True).id != build(root).id


def test_a_file_that_grew_after_it_was_listed_goes_as_read(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write(tmp_path / "root", {"x.bin": "1", "other": "2"})
    real = module.scan

    def listed(*args: object) -> object:
        listing = real(*args)  # type: ignore[arg-type]
        write(root, {"x.bin": "12345"})
        return listing

    monkeypatch.setattr(module, "scan", listed)
    made = build(root)
    assert made.listing.bytes == 6
    upload(made, store)
    assert (ensure(store, made.id, tmp_path / "node") / "x.bin").read_text() == "12345"
