"""Packages on a real S3 server: sent, cut short, taken up, unpacked elsewhere, tampered with, collected."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import multiprocessing
import os
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults_processes import Child, cli, run_cli, spawned, wait_until
from faults_s3 import READER, Server

from runner.errors import StorageError
from runner.packages.errors import PackageChanged, PackageMissing
from runner.packages.format import layer_path, package_path
from runner.packages.package import Package, build
from runner.packages.unpack import ensure
from runner.packages.upload import upload
from runner.store import Store


class Sending(Store):
    """Tells what was sent."""

    def __init__(self, uri: str, options: dict[str, str]) -> None:
        super().__init__(uri, options)
        self.sent: list[str] = []

    def put_file(self, path: str, file: Path, parts: int = 2) -> None:
        super().put_file(path, file, parts)
        self.sent.append(path)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def store(s3: dict[str, str]) -> Sending:
    return Sending(f"s3://faults/{uuid.uuid4().hex}", s3)


@pytest.fixture
def package(tmp_path: Path) -> Package:
    """A workspace of eight layers of 3 MB, one of them a file of 20 MB, which goes in parts."""
    root = tmp_path / "root"
    for number in range(7):
        (root / f"p{number}").mkdir(parents=True)
        for part in range(3):
            (root / f"p{number}/f{part}.bin").write_bytes(os.urandom(3 << 20))
    (root / "large.bin").write_bytes(os.urandom(20 << 20))
    (root / "run").write_text("#!/bin/sh\n")
    (root / "run").chmod(0o755)
    os.symlink("../run", root / "p1/link")
    made = build(root)
    assert len(made.layers) >= 5
    return made


def names(package: Package) -> set[str]:
    return {layer_path(layer.id) for layer in package.layers}


def test_a_package_reaches_another_machine_and_only_what_changes_is_sent_again(
    tmp_path: Path, store: Sending, package: Package
) -> None:
    assert upload(package, store) == package.id
    assert set(store.sent) == names(package)
    place = ensure(Store(store.uri, store.storage_options), package.id, tmp_path / "node")
    assert build(place).id == package.id
    store.sent.clear()
    (package.root / "p3/f1.bin").write_bytes(os.urandom(3 << 20))
    edited = build(package.root)
    upload(edited, store)
    assert set(store.sent) == names(edited) - names(package)
    assert len(store.sent) == 1
    assert build(ensure(store, edited.id, tmp_path / "node")).id == edited.id


def test_a_layer_that_was_tampered_with_is_refused(tmp_path: Path, store: Sending, package: Package) -> None:
    upload(package, store)
    first, second = [layer for layer in package.layers if 1 << 20 < layer.bytes < 10 << 20][:2]
    good = store.get(layer_path(first.id))
    assert good is not None
    middle = len(good) // 2
    for bad in (good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1 :], good[:-1], store.get(layer_path(second.id))):
        assert bad is not None
        store.put(layer_path(first.id), bad)
        with pytest.raises(PackageChanged, match=f"package {package.id} changed under its name: .*{first.id}"):
            ensure(store, package.id, tmp_path / "node")
        assert os.listdir(tmp_path / "node") == [f"{package.id}.lock"]
    store.put(layer_path(first.id), good)
    record = store.get(package_path(package.id))
    assert record is not None
    store.put(package_path(package.id), record.replace(first.id.encode(), second.id.encode()))
    with pytest.raises(PackageChanged, match="has another hash"):
        ensure(store, package.id, tmp_path / "node")


def test_packages_are_collected_by_the_command_line(tmp_path: Path, store: Sending, package: Package, s3: dict[str, str]) -> None:
    upload(package, store)
    options = [f"--storage-option={key}={value}" for key, value in s3.items()]
    assert run_cli(tmp_path, "packages", "gc", store.uri, "--older-than", "1h", *options) == []
    planned = run_cli(tmp_path, "packages", "gc", store.uri, "--older-than", "0m", "--dry-run", *options)
    assert len(planned) == len(package.layers) + 1
    assert build(ensure(store, package.id, tmp_path / "node")).id == package.id
    run_cli(tmp_path, "packages", "gc", store.uri, "--older-than", "0m", *options)
    assert list(store.objects("packages")) == []
    with pytest.raises(PackageMissing):
        ensure(store, package.id, tmp_path / "other")


def test_a_refused_key_is_one_message(tmp_path: Path, store: Sending, s3: dict[str, str], package: Package) -> None:
    stranger = Store(store.uri, {**s3, "aws_secret_access_key": "not this one"})
    with pytest.raises(StorageError, match=f"cannot list {store.uri}"):
        upload(package, stranger)
    with pytest.raises(StorageError, match=f"cannot read {store.uri}/_runner/packages/{package.id}.json"):
        ensure(stranger, package.id, tmp_path / "node")
    with spawned(cli("packages", "gc", store.uri, "--older-than", "1d"), tmp_path, {"AWS_ACCESS_KEY_ID": "none"}) as child:
        assert child.wait() != 0


def test_workers_that_may_only_read_have_the_package_and_upload_none(
    tmp_path: Path, store: Sending, s3: dict[str, str], package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(package, store)
    reader = Sending(store.uri, {**s3, **READER})
    monkeypatch.setattr("runner.packages.unpack.REFRESH", dt.timedelta())  # so that it tries to say that it is in use
    assert build(ensure(reader, package.id, tmp_path / "node")).id == package.id
    (package.root / "new.bin").write_bytes(os.urandom(1 << 20))
    edited = build(package.root)
    with pytest.raises(
        StorageError, match=rf"cannot write {store.uri}/_runner/packages/layers/\w+\.zip: .*(?i:access ?denied|403)"
    ):
        upload(edited, reader)
    assert reader.sent == []
    assert store.get(package_path(edited.id)) is None


def _ensure(uri: str, options: dict[str, str], package: str, base: Path, barrier: object, log: Path) -> None:
    """One of several processes that want a package at the same moment; notes what it downloads."""
    real = Store.get_file

    def noted(self: Store, path: str, file: Path) -> int | None:
        with log.open("a") as out:
            out.write(f"{path}\n")
        return real(self, path, file)

    Store.get_file = noted  # type: ignore[method-assign]
    barrier.wait()  # type: ignore[attr-defined]
    place = ensure(Store(uri, options), package, base)
    with log.with_suffix(".done").open("a") as out:
        out.write(f"{place} {len(list(place.rglob('*')))}\n")


def test_processes_that_want_a_package_at_once_unpack_it_once(
    tmp_path: Path, store: Sending, package: Package, s3: dict[str, str]
) -> None:
    upload(package, store)
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(4)
    args = (store.uri, s3, package.id, tmp_path / "node", barrier, tmp_path / "log")
    workers = [context.Process(target=_ensure, args=args) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert sorted((tmp_path / "log").read_text().split()) == sorted(names(package))
    expected = len(list(package.root.rglob("*")))
    assert (tmp_path / "log.done").read_text() == f"{tmp_path}/node/{package.id} {expected}\n" * 4


# A process that sends or fetches so many layers, tells so, and then waits to be killed.
STOPPING = """
import json, sys, threading
from pathlib import Path
from runner.packages.package import build
from runner.packages.unpack import ensure
from runner.packages.upload import upload
from runner.store import Store

what, uri, options, subject, base, count, told = sys.argv[1:]
store, left, lock = Store(uri, json.loads(options)), [int(count)], threading.Lock()

def stopping(real):
    def called(*args):
        with lock:
            if left[0]:
                left[0] -= 1
                found = real(*args)
                if not left[0]:
                    Path(told).touch()
                return found
        threading.Event().wait()
    return called

if what == "upload":
    store.put_file = stopping(store.put_file)
    upload(build(Path(subject)), store)
else:
    store.get_file = stopping(store.get_file)
    ensure(store, subject, Path(base))
"""


@contextlib.contextmanager
def stopped_after(what: str, count: int, store: Store, subject: object, folder: Path) -> Iterator[Child]:
    """A process that has sent or fetched so many layers of a package, and would go on."""
    told = folder / f"{what}.told"
    options = json.dumps(store.storage_options)
    command = [sys.executable, "-c", STOPPING, what, store.uri, options, str(subject), str(folder / "node"), str(count), str(told)]
    with spawned(command, folder) as child:
        wait_until(told.exists, f"{count} layers", child=child)
        yield child


def test_an_unpacking_that_was_killed_is_done_again(tmp_path: Path, store: Sending, package: Package) -> None:
    upload(package, store)
    with stopped_after("ensure", 2, store, package.id, tmp_path) as child:
        assert (tmp_path / f"node/{package.id}.partial").is_dir()
        child.kill()
    assert build(ensure(store, package.id, tmp_path / "node")).id == package.id
    assert sorted(os.listdir(tmp_path / "node")) == [package.id, f"{package.id}.lock"]


def test_after_the_server_was_killed_in_an_upload_only_the_rest_is_sent(tmp_path: Path, server: Server, package: Package) -> None:
    store = Sending("s3://faults/db", server.options)
    with stopped_after("upload", 3, store, package.root, tmp_path) as child:
        server.kill()
        child.kill()
    server.start()
    arrived = {path for path, _ in store.objects("packages/layers")}
    assert len(arrived) == 3
    assert arrived < names(package)
    with pytest.raises(PackageMissing):
        ensure(store, package.id, tmp_path / "node")
    upload(package, store)
    assert set(store.sent) == names(package) - arrived
    assert build(ensure(store, package.id, tmp_path / "node")).id == package.id


def test_an_upload_outlives_a_restart_of_the_server(tmp_path: Path, server: Server, package: Package) -> None:
    class Shaken(Sending):
        """The server is killed when the second layer has arrived, and comes back while the others are sent."""

        def put_file(self, path: str, file: Path, parts: int = 2) -> None:
            super().put_file(path, file, parts)
            if len(self.sent) == 2:
                server.kill()
                server.start()

    store = Shaken("s3://faults/db", server.options)
    upload(package, store)
    assert build(ensure(store, package.id, tmp_path / "node")).id == package.id
