"""A package on a worker: downloaded and unpacked once a node, checked down to the last byte.

Needs obstore and the standard library only. What is in the folder of a package is whole: it is unpacked under another name and
moved there. Processes beside each other wait for the one that unpacks.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import errno
import fcntl
import hashlib
import os
import shutil
import stat
import struct
import tempfile
import threading
import zipfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from io import FileIO
from pathlib import Path

from runner.errors import BadInput, StorageError
from runner.packages.errors import PackageChanged, PackageMissing
from runner.packages.format import (
    EMPTY,
    FILE,
    LINK,
    LayerRecord,
    PackageRecord,
    is_id,
    layer_id,
    layer_path,
    package_id,
    package_path,
)
from runner.packages.patience import patiently
from runner.store import Store

AT_A_TIME = 4
REFRESH = dt.timedelta(days=1)
_CHUNK = 1 << 20
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_KINDS = {stat.S_IFREG: FILE, stat.S_IFLNK: LINK, stat.S_IFDIR: EMPTY}


def ensure(store: Store, package: str, base: Path | None = None) -> Path:
    """The folder of a package on this machine, unpacked if it is not there yet.

    Args:
        package: the id that `upload` returned.
        base: where packages are kept; default: ``infill-<uid>/packages`` in the temporary folder.

    Raises:
        BadInput: no id of a package.
        PackageMissing: the store does not have it, or not all of it.
        PackageChanged: what the store has is not what was uploaded.
        StorageError: the store refuses, or there is no space.
    """
    if not is_id(package):
        raise BadInput(f"{package!r} is not the id of a package, 64 hexadecimal digits")
    base = base or default_base()
    target = base / package
    if target.is_dir():
        return target
    with _disk_errors(base, package):
        base.mkdir(parents=True, exist_ok=True)
        with locked(base / f"{package}.lock"):
            if not target.is_dir():
                _unpack(store, package, target)
    return target


def mark_used(store: Store, package: str) -> None:
    """Tell the collector that a package is in use, whether or not a node has it.

    Raises:
        PackageMissing, PackageChanged, StorageError: as of `ensure`.
    """
    _refresh(store, package, _record(store, package))


def default_base() -> Path:
    """Where packages are kept."""
    return own_folder() / "packages"


def own_folder() -> Path:
    """A folder of this user's alone, in the temporary one.

    Raises:
        BadInput: somebody else made it.
    """
    folder = Path(tempfile.gettempdir()) / f"infill-{os.getuid()}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    info = folder.lstat()
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.getuid():
        raise BadInput(f"{folder} is not a folder of this user; remove it, or set TMPDIR to a folder that is")
    return folder


def _unpack(store: Store, package: str, target: Path) -> None:
    record = _record(store, package)
    half = target.with_name(f"{package}.partial")  # left by one that was killed: the lock is ours
    shutil.rmtree(half, ignore_errors=True)
    try:
        (half / "content").mkdir(parents=True)
        _check_space(half, record)
        _Unpacking(store, package, half).run(record.layers)
        (half / "content").rename(target)
    finally:
        shutil.rmtree(half, ignore_errors=True)
    _refresh(store, package, record)


def _record(store: Store, package: str) -> PackageRecord:
    data = store.get(package_path(package))
    if data is None:
        raise PackageMissing(f"{store.uri} has no package {package}; it was collected, or never uploaded: upload it again")
    if package_id(data) != package:
        raise PackageChanged(f"package {package} changed under its name: {store.url(package_path(package))} has another hash")
    try:
        return PackageRecord.from_json(data)
    except ValueError as exc:
        raise PackageChanged(f"package {package} cannot be read here: {exc}") from exc


class _Unpacking:
    """Layers into ``content`` of a folder, several at a time; links when all files are there."""

    def __init__(self, store: Store, package: str, folder: Path) -> None:
        self._store = store
        self._package = package
        self._folder = folder
        self._content = os.path.realpath(folder / "content")
        self._links: dict[str, str] = {}
        self._folders: set[str] = set()
        self._stopped = threading.Event()

    def run(self, layers: Iterable[LayerRecord]) -> None:
        pool = ThreadPoolExecutor(AT_A_TIME)
        try:
            done, _ = wait([pool.submit(self._layer, layer) for layer in layers], return_when="FIRST_EXCEPTION")
            for future in done:
                future.result()
        finally:
            self._stopped.set()
            pool.shutdown(cancel_futures=True)
        self._make_links()

    def _layer(self, layer: LayerRecord) -> None:
        if not is_id(layer.id):
            raise self._changed(f"{layer.id!r} is no layer")
        file = self._folder / f"{layer.id}.zip"
        size = patiently(lambda: self._store.get_file(layer_path(layer.id), file))
        where = self._store.url(layer_path(layer.id))
        if size is None:
            raise PackageMissing(f"{where} of package {self._package} is gone; upload the package again")
        if size != layer.bytes:
            raise self._changed(f"{where} has {size} bytes and should have {layer.bytes}; upload the package again")
        try:
            with zipfile.ZipFile(file) as archive:
                entries = [self._extract(archive, info) for info in self._checked(archive.infolist(), where)]
        except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError, struct.error) as exc:
            raise self._changed(f"{where}: {exc}") from exc
        if layer_id(entries) != layer.id:
            raise self._changed(f"the content of {where} has another hash")
        file.unlink()

    def _checked(self, infos: list[zipfile.ZipInfo], where: str) -> list[zipfile.ZipInfo]:
        """Refuses, before anything is written, what would land outside or twice."""
        for info in infos:
            parts = info.filename.removesuffix("/").split("/")
            if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
                raise self._changed(f"{where} is compressed or encrypted")
            if info.filename.startswith("/") or any(part in ("", ".", "..") for part in parts) or "\0" in info.orig_filename:
                raise self._changed(f"{where} has an entry {info.orig_filename!r}, which would lie outside of the package")
        return infos

    def _extract(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> tuple[str, str, str, str]:
        if self._stopped.is_set():
            raise StorageError("stopped")
        mode = info.external_attr >> 16
        kind = _KINDS.get(stat.S_IFMT(mode), "")
        path = info.filename.rstrip("/")
        place = f"{self._content}/{path}"
        executable = kind == FILE and bool(mode & stat.S_IXUSR)
        if kind == LINK:
            self._links[path] = target = archive.read(info).decode()
            return path, kind, "", target
        if kind == EMPTY:
            os.makedirs(place, exist_ok=True)
            return path, kind, "", ""
        if kind != FILE:
            raise self._changed(f"{path!r} is neither a file nor a link nor a folder")
        return path, kind, "x" * executable, self._write(archive, info, place, executable)

    def _write(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo, place: str, executable: bool) -> str:
        folder = os.path.dirname(place)
        if folder not in self._folders:
            os.makedirs(folder, exist_ok=True)
            self._folders.add(folder)
        digest = hashlib.sha256()
        with archive.open(info) as source, self._create(place) as out:
            while chunk := source.read(_CHUNK):
                digest.update(chunk)
                out.write(chunk)
            os.fchmod(out.fileno(), 0o755 if executable else 0o644)
        return digest.hexdigest()

    def _create(self, place: str) -> FileIO:
        try:
            return open(place, "xb", buffering=0)
        except FileExistsError as exc:
            raise StorageError(
                f"{place.removeprefix(self._content)} of package {self._package} is there already: two names are one on this "
                "file system, which does not tell upper from lower case; rename one of them, or set TMPDIR to one that does"
            ) from exc

    def _make_links(self) -> None:
        """Links last, so that nothing is written through one; each must lead to a place within the package."""
        for path, target in self._links.items():
            if any(parent in self._links for parent in _parents(path)):
                raise self._changed(f"{path} would be written through a link")
            place = f"{self._content}/{path}"
            os.makedirs(os.path.dirname(place), exist_ok=True)
            os.symlink(target, place)
        for path in self._links:
            real = os.path.realpath(f"{self._content}/{path}")
            if not f"{real}/".startswith(f"{self._content}/"):
                raise self._changed(f"{path} is a link out of the package: {self._links[path]}")

    def _changed(self, how: str) -> PackageChanged:
        return PackageChanged(f"package {self._package} changed under its name: {how}")


def _parents(path: str) -> Iterator[str]:
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def _refresh(store: Store, package: str, record: PackageRecord) -> None:
    """Tell the collector that the package is in use; without the right to write it goes without."""
    with contextlib.suppress(StorageError):
        written = store.modified(package_path(package))
        if written and dt.datetime.now(dt.UTC) - written > REFRESH:
            store.put(package_path(package), record.to_json())


def _check_space(folder: Path, record: PackageRecord) -> None:
    largest = sorted(layer.bytes for layer in record.layers)[-AT_A_TIME:]
    needed, free = record.size + sum(largest), shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(errno.ENOSPC, f"{needed >> 20} MB are needed and {free >> 20} MB are free")


@contextlib.contextmanager
def _disk_errors(base: Path, package: str) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        if exc.errno in _FULL:
            raise StorageError(
                f"no space in {base} for package {package}: {exc.strerror}; make space, or set TMPDIR to a larger disk"
            ) from exc
        raise StorageError(f"cannot unpack package {package} in {base}: {exc}") from exc


@contextlib.contextmanager
def locked(file: Path) -> Iterator[None]:
    """One process at a time; the lock ends with the process."""
    with file.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
