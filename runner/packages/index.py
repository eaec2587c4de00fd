"""What the files of a root contain, remembered: a file is read again only where its size, times or inode changed.

One file a root in the user's cache folder, written whole under a new name and put in place, so that processes beside each
other never see half of one. It is a cache: what cannot be read or written of it is done without. A file that changed just
before it was read is not remembered, since another change in the same tick of the clock would not show (git: racily clean).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from runner.errors import BadInput
from runner.packages import secrets
from runner.packages.errors import FileChanging

FORMAT = 1
ATTEMPTS = 4
TICK_NS = 100_000_000
COARSE_TICK_NS = 2_000_000_000  # of file systems that keep whole seconds, or two
CHUNK = 1 << 20
_THREADS = min(8, os.cpu_count() or 1)
_BATCH = 256


class Stamp(NamedTuple):
    """What of a file's stat tells that it changed."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    @classmethod
    def of(cls, info: os.stat_result) -> Stamp:
        return cls(info.st_size, info.st_mtime_ns, info.st_ctime_ns, info.st_ino)


class Known(NamedTuple):
    """A file's content: its SHA-256, its size, and what secret it is, if any."""

    digest: str
    secret: str | None
    stamp: Stamp


class Index:
    """The contents of a root's files.

    Args:
        root: the folder; None remembers nothing beyond this object.
    """

    def __init__(self, root: Path | None = None) -> None:
        self._root = root
        self._file = index_file(root) if root else None
        self._old = _load(self._file) if self._file else {}
        self._known: dict[str, Known] = {}
        self._racy: set[str] = set()

    def known(self, path: str, stamp: Stamp) -> Known | None:
        """The content of a file that has not changed since it was read."""
        found = self._known.get(path)
        if found is None and path in self._old:
            digest, secret, *old = self._old[path]
            if old == [*stamp]:
                found = self._known[path] = Known(digest, secret, stamp)
        return found if found and found.stamp == stamp else None

    def read(self, path: str, file: str, stamp: Stamp) -> Known:
        """The content of a file, read if it must be.

        Raises:
            BadInput: it cannot be read.
            FileChanging: it changes all the time.
        """
        found = self.known(path, stamp)
        if found is None:
            read_at = time.time_ns()
            found = read_file(file)
            self._known[path] = found
            if _is_racy(found.stamp, read_at):
                self._racy.add(path)
        return found

    def read_all(self, files: Iterable[tuple[str, str, Stamp]]) -> dict[str, Known]:
        """The contents of ``(path, file, stamp)``, several read at a time."""
        found: dict[str, Known] = {}
        missing = []
        for path, file, stamp in files:
            known = self.known(path, stamp)
            if known is None:
                missing.append((path, file, stamp))
            else:
                found[path] = known
        if missing:
            batches = [missing[start : start + _BATCH] for start in range(0, len(missing), _BATCH)]
            with ThreadPoolExecutor(_THREADS) as pool:
                for batch in pool.map(lambda batch: [(path, self.read(path, *rest)) for path, *rest in batch], batches):
                    found.update(batch)
        return found

    def save(self) -> None:
        """Remember what was asked for since this index was opened, and nothing else."""
        if self._file is None:
            return
        kept = {path: [known.digest, known.secret, *known.stamp] for path, known in self._known.items() if path not in self._racy}
        if kept == self._old:
            return
        data = json.dumps({"format": FORMAT, "root": str(self._root), "files": kept}, separators=(",", ":")).encode()
        with contextlib.suppress(OSError):
            _write(self._file, hashlib.sha256(data).hexdigest().encode() + b"\n" + data)


def index_file(root: Path) -> Path | None:
    """Where the index of a root lies; nowhere for a user without a home."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    if not os.path.isabs(cache):
        return None
    return Path(cache) / "infill" / "index" / f"{hashlib.sha256(os.fsencode(root)).hexdigest()[:32]}.json"


def read_file(file: str, consume: Callable[[bytes], Any] | None = None) -> Known:
    """The content of a file that did not change while it was read; with a consumer, of one attempt.

    Raises:
        BadInput: it cannot be read.
        FileChanging: it changed each time.
    """
    try:
        for _ in range(1 if consume else ATTEMPTS):
            found = _read_once(file, consume)
            if found is not None:
                return found
    except FileNotFoundError as exc:
        raise FileChanging(f"{file} is gone since it was listed; run again") from exc
    except OSError as exc:
        raise BadInput(f"cannot read {file}: {exc.strerror}; leave it out with a line in .runnerignore") from exc
    raise FileChanging(f"{file} changes while it is read; leave it out with a line in .runnerignore, or wait until it is written")


def _read_once(file: str, consume: Callable[[bytes], Any] | None) -> Known | None:
    digest = hashlib.sha256()
    with open(file, "rb", buffering=0) as source:
        before = Stamp.of(os.fstat(source.fileno()))
        first = b""
        size = 0
        while size < before.size and (chunk := source.read(min(CHUNK, before.size - size))):
            digest.update(chunk)
            first = first or chunk
            size += len(chunk)
            if consume:
                consume(chunk)
        after = Stamp.of(os.fstat(source.fileno()))
    if before != after or size != before.size:
        return None
    secret = secrets.by_content(os.path.basename(file), first) if secrets.worth_looking(os.path.basename(file), size) else None
    return Known(digest.hexdigest(), secret, before)


def _is_racy(stamp: Stamp, read_at: int) -> bool:
    tick = COARSE_TICK_NS if stamp.mtime_ns % 1_000_000_000 == 0 else TICK_NS
    return max(stamp.mtime_ns, stamp.ctime_ns) + tick >= read_at


def _load(file: Path) -> Mapping[str, Any]:
    try:
        digest, _, data = file.read_bytes().partition(b"\n")
        if hashlib.sha256(data).hexdigest().encode() != digest:
            return {}
        raw = json.loads(data)
        return raw["files"] if raw["format"] == FORMAT else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _write(file: Path, data: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=file.name)
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(data)
        os.replace(name, file)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
