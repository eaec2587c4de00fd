"""Files that a function loads in ``setup``, a model's weights say: downloaded once a node, however many workers it has."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from runner.errors import BadInput, DownloadFailed

_SCHEMES = ("https", "http", "s3", "gs", "az", "file")
_CHUNK_BYTES = 8 << 20


def model_files(address: str, *, sha256: str | None = None, storage_options: Mapping[str, str] | None = None) -> Path:
    """A file on this machine, or a folder of files where the address ends in a slash. For ``setup`` of a class.

    The first worker of a node downloads it, the others wait for that. It stays for later jobs, so an address must stand for the
    same bytes for ever: name a version in it, or give the hash.

    Args:
        address: ``https://``, ``http://``, ``s3://``, ``gs://``, ``az://`` or ``file://``; folders from all but the first two.
        sha256: of the file, 64 hexadecimal digits. Default: not checked.
        storage_options: as Lance takes them. Default: what the environment says.

    Raises:
        BadInput: no such address, or a hash for a folder.
        DownloadFailed: it cannot be downloaded, is not what the hash says, or there is no space.

    Example:
        >>> def setup(self):
        ...     self.model = torch.jit.load(runner.model_files("s3://models/clip-2.pt"))
    """
    from runner.packages.unpack import locked, own_folder

    _check(address, sha256)
    base = own_folder() / "models"
    base.mkdir(exist_ok=True)
    folder = base / hashlib.sha256(f"{address} {sha256}".encode()).hexdigest()[:32]
    with locked(folder.with_suffix(".lock")):
        if not folder.exists():
            half = folder.with_suffix(".partial")  # of a worker that was killed: the lock is ours
            shutil.rmtree(half, ignore_errors=True)
            try:
                _download(address, sha256, storage_options or {}, half)
                half.rename(folder)
            finally:
                shutil.rmtree(half, ignore_errors=True)
    return folder if address.endswith("/") else folder / _name(address)


def _check(address: str, sha256: str | None) -> None:
    scheme, _, rest = address.partition("://")
    if scheme not in _SCHEMES or not rest.strip("/"):
        raise BadInput(f"address={address!r} must begin with one of {', '.join(f'{scheme}://' for scheme in _SCHEMES)}")
    if sha256 is not None and (address.endswith("/") or not re.fullmatch("[0-9a-f]{64}", sha256)):
        raise BadInput(f"sha256={sha256!r} must be 64 hexadecimal digits, of one file; {address!r} is the address")


def _name(address: str) -> str:
    return address.partition("?")[0].rpartition("/")[2]


def _download(address: str, sha256: str | None, options: Mapping[str, str], folder: Path) -> None:
    from obstore.exceptions import BaseError

    from runner.store import first_line, open_store

    if address.startswith("http://"):
        options = {"allow_http": "true", **options}
    root, _, name = address.rpartition("/")
    try:
        store = open_store(root, options)
        paths = [name] if name else list(_paths(store))
        if not paths:
            raise DownloadFailed(f"{address} has no files; is it the right address?")
        for path in paths:
            _save(store, path, folder / (path if not name else _name(address)), sha256)
    except (BaseError, OSError) as exc:
        raise DownloadFailed(f"cannot download {address} to {folder.parent}: {first_line(exc)}") from exc


def _paths(store: Any) -> Iterator[str]:
    import obstore

    for entries in obstore.list(store):
        yield from (entry["path"] for entry in entries)


def _save(store: Any, path: str, file: Path, sha256: str | None) -> None:
    import obstore

    file.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with file.open("wb") as out:
        for chunk in obstore.get(store, path).stream(min_chunk_size=_CHUNK_BYTES):
            out.write(chunk)
            digest.update(chunk)
    if sha256 is not None and digest.hexdigest() != sha256:
        raise DownloadFailed(f"{path} has the SHA-256 {digest.hexdigest()}, not {sha256}: it is another file, or was cut short")
