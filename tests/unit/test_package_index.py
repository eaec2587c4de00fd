from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runner.errors import BadInput
from runner.packages import index as module
from runner.packages.errors import FileChanging
from runner.packages.index import Index, Stamp, index_file, read_file
from tests.unit.package_trees import SERVICE_ACCOUNT, write


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were read."""
    read: list[str] = []
    real = read_file

    def counted(file: str, consume: Callable[[bytes], Any] | None = None) -> Any:
        read.append(os.path.basename(file))
        return real(file, consume)

    monkeypatch.setattr(module, "read_file", counted)
    return read


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """An hour has passed since everything was written."""
    real = module.time.time_ns
    monkeypatch.setattr(module.time, "time_ns", lambda: real() + 3600 * 10**9)


def look(root: Path, *names: str) -> list[str]:
    """Digests by a new index, which is saved."""
    index = Index(root)
    stamps = [(name, f"{root}/{name}", Stamp.of(os.stat(root / name))) for name in names]
    found = index.read_all(stamps)
    index.save()
    return [found[name].digest for name in names]


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.usefixtures("later")
def test_what_has_not_changed_is_not_read_again(root: Path, reads: list[str]) -> None:
    write(root, {"a": "1", "b": "2"})
    assert look(root, "a", "b") == [sha("1"), sha("2")]
    assert sorted(reads) == ["a", "b"]
    assert look(root, "a", "b") == [sha("1"), sha("2")]
    assert len(reads) == 2
    write(root, {"b": "33"})
    assert look(root, "a", "b") == [sha("1"), sha("33")]
    assert reads[2:] == ["b"]


@pytest.mark.usefixtures("later")
def test_another_content_of_the_same_size_and_time_is_seen(root: Path, reads: list[str]) -> None:
    """``cp -p`` and ``mv`` keep sizes and times; inode and change time tell."""
    write(root, {"a": "1"})
    look(root, "a")
    info = (root / "a").stat()
    write(root, {"new": "2"})
    os.utime(root / "new", ns=(info.st_atime_ns, info.st_mtime_ns))
    os.rename(root / "new", root / "a")
    assert look(root, "a") == [sha("2")]
    with (root / "a").open("r+") as file:
        file.write("3")
    os.utime(root / "a", ns=(info.st_atime_ns, info.st_mtime_ns))
    assert look(root, "a") == [sha("3")]
    assert reads == ["a"] * 3


def test_a_file_written_in_the_instant_that_it_was_read_is_read_again(
    root: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two writes within one tick of the clock leave the same size and times."""
    write(root, {"a": "1"})
    written = Stamp.of((root / "a").stat())
    instant = max(written.mtime_ns, written.ctime_ns)
    for after, expected in ((0, 1), (module.TICK_NS, 2), (module.TICK_NS + 1, 3), (0, 3)):
        monkeypatch.setattr(module.time, "time_ns", lambda after=after: instant + after)
        assert look(root, "a") == [sha("1")]
        assert len(reads) == expected, after


def test_whole_seconds_are_taken_for_a_coarse_clock(root: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    write(root, {"a": "1"})
    whole = (root / "a").stat().st_mtime_ns // 10**9 * 10**9
    os.utime(root / "a", ns=(whole, whole))
    instant = (root / "a").stat().st_ctime_ns
    for after, expected in ((module.TICK_NS + 1, 1), (module.COARSE_TICK_NS + 1, 2), (0, 2)):
        monkeypatch.setattr(module.time, "time_ns", lambda after=after: instant + after)
        look(root, "a")
        assert len(reads) == expected


@pytest.mark.usefixtures("later")
@pytest.mark.parametrize("damage", ["", "{", "[]", "null", "cut", "flip", "format"])
def test_a_damaged_index_is_read_over(root: Path, reads: list[str], damage: str) -> None:
    write(root, {"a": "1"})
    look(root, "a")
    file = index_file(root)
    assert file is not None
    good = file.read_bytes()
    data = {"cut": good[:-9], "flip": good.replace(sha("1").encode(), sha("2").encode())}.get(damage, damage.encode())
    if damage == "format":
        body = json.dumps({"format": 99, "files": {"a": 1}}).encode()
        data = hashlib.sha256(body).hexdigest().encode() + b"\n" + body
    file.write_bytes(data)
    assert look(root, "a") == [sha("1")]
    assert reads == ["a", "a"]
    assert file.read_bytes() == good


@pytest.mark.usefixtures("later")
def test_without_a_cache_folder_it_works_without_memory(root: Path, reads: list[str], cache: Path) -> None:
    write(root, {"a": "1"})
    cache.write_text("a file in the way")
    assert look(root, "a") == look(root, "a")
    assert reads == ["a", "a"]


@pytest.mark.usefixtures("later")
def test_a_user_without_a_home_has_no_index(root: Path, reads: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(root, {"a": "1"})
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # a container's made-up user
    monkeypatch.chdir(tmp_path)
    assert look(root, "a") == look(root, "a") == [sha("1")]
    assert reads == ["a", "a"]
    assert os.listdir(tmp_path) == ["root"]


@pytest.mark.usefixtures("later")
def test_an_index_belongs_to_one_root_and_forgets_what_is_gone(root: Path, tmp_path: Path, reads: list[str], cache: Path) -> None:
    write(root, {"a": "1", "b": "2"})
    look(root, "a", "b")
    write(tmp_path / "other", {"a": "9"})
    assert look(tmp_path / "other", "a") == [sha("9")]
    look(root, "b")
    assert len(list((cache / "infill/index").iterdir())) == 2
    file = index_file(root)
    assert file is not None
    assert list(json.loads(file.read_bytes().partition(b"\n")[2])["files"]) == ["b"]


@pytest.mark.usefixtures("later")
def test_a_secret_is_remembered_with_the_content(root: Path, reads: list[str]) -> None:
    write(root, {"sa.json": SERVICE_ACCOUNT})
    for _ in range(2):
        index = Index(root)
        found = index.read("sa.json", f"{root}/sa.json", Stamp.of((root / "sa.json").stat()))
        index.save()
        assert found.secret == "service account key"
    assert reads == ["sa.json"]


def _save_often(root: Path) -> None:
    for _ in range(30):
        (root / f"own{os.getpid()}").write_text("x")
        index = Index(root)
        names = [path.name for path in root.iterdir()]
        index.read_all((name, f"{root}/{name}", Stamp.of(os.stat(root / name))) for name in names)
        index._known.pop(f"own{os.getpid()}")
        index.save()


def test_processes_beside_each_other_leave_a_whole_index(root: Path, cache: Path) -> None:
    write(root, {f"f{number}": str(number) for number in range(50)})
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_save_often, args=(root,)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 4
    (file,) = (cache / "infill/index").iterdir()
    digest, _, data = file.read_bytes().partition(b"\n")
    assert hashlib.sha256(data).hexdigest().encode() == digest
    assert look(root, "f7") == [sha("7")]


def test_a_file_that_changes_while_it_is_read_is_read_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(root, {"a": "1"})
    changes = iter(["22", "333"])
    real = os.fstat
    calls = 0

    def fstat(handle: int) -> os.stat_result:
        nonlocal calls
        calls += 1
        if calls % 2 == 0 and (text := next(changes, None)):  # between the two looks of an attempt
            (root / "a").write_text(text)
        return real(handle)

    monkeypatch.setattr(module.os, "fstat", fstat)
    found = read_file(f"{root}/a")
    assert (found.digest, found.stamp.size) == (sha("333"), 3)
    assert calls == 6


def test_a_file_that_never_rests_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(root, {"train.log": "1"})
    real = os.fstat

    def fstat(handle: int) -> os.stat_result:
        with (root / "train.log").open("a") as log:
            log.write("more")
        return real(handle)

    monkeypatch.setattr(module.os, "fstat", fstat)
    with pytest.raises(FileChanging, match=f"{root}/train.log changes while it is read; leave it out"):
        read_file(f"{root}/train.log")


def test_a_file_that_cannot_be_read_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(root, {"a": "1"})

    def refuse(*args: Any, **options: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    with pytest.raises(FileChanging, match="b is gone since it was listed; run again"):
        read_file(f"{root}/b")
    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(BadInput, match=f"cannot read {root}/a: Permission denied; leave it out"):
        read_file(f"{root}/a")
