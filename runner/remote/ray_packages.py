"""Packages of Ray's own: zip files that a cluster keeps in its GCS, so that a job can have them as working_dir or py_modules."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from runner.errors import BadInput
from runner.packages.format import EMPTY
from runner.packages.package import size_text
from runner.packages.scan import Entry, Listing, scan

MOST_BYTES = 100 << 20
"""What Ray's dashboard takes in one request."""


@dataclass(frozen=True)
class RayPackage:
    """A package before it is uploaded.

    Attributes:
        name: of the zip file; the same for the same content.
        files: content and whether it is executable, by path in the zip file.
    """

    name: str
    files: Mapping[str, tuple[bytes, bool]]

    @property
    def uri(self) -> str:
        """As a job's runtime_env has it."""
        return f"gcs://{self.name}"

    def zipped(self) -> bytes:
        """The zip file.

        Raises:
            BadInput: it is larger than Ray takes.
        """
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            for path, (content, executable) in self.files.items():
                info = zipfile.ZipInfo(path)
                info.compress_type, info.external_attr = zipfile.ZIP_DEFLATED, (0o755 if executable else 0o644) << 16
                archive.writestr(info, content)
        data = packed.getvalue()
        if len(data) > MOST_BYTES:
            raise BadInput(f"{self.name}: {size_text(len(data))} is more than Ray takes in a package ({size_text(MOST_BYTES)})")
        return data


def ray_package(contents: Mapping[str, str | Path]) -> RayPackage:
    """A package of files and folders.

    Args:
        contents: by where they are to be in the package, ``"my_package"`` for example; ``""`` is its top.

    What never goes to workers, as secrets and caches do not, stays out of it; links go as what they lead to.

    Raises:
        BadInput: nothing is there, or it is too large.
    """
    files: dict[str, tuple[bytes, bool]] = {}
    for place, source in contents.items():
        files.update(_files(place.strip("/"), Path(source)))
    if not files:
        raise BadInput(f"{', '.join(str(source) for source in contents.values())}: nothing in it goes to a cluster")
    digest = hashlib.sha256()
    for path, (content, executable) in sorted(files.items()):
        digest.update(f"{path}\0{int(executable)}\0{len(content)}\0".encode())
        digest.update(content)
    return RayPackage(f"infill_{digest.hexdigest()[:32]}.zip", dict(sorted(files.items())))


def _files(place: str, source: Path) -> dict[str, tuple[bytes, bool]]:
    if source.is_file():
        return {place or source.name: (source.read_bytes(), bool(source.stat().st_mode & 0o100))}
    if not source.is_dir():
        raise BadInput(f"there is no {source.absolute()} on this machine")
    listing = scan(source)
    if listing.bytes > 4 * MOST_BYTES:  # that is not compressed to a quarter
        raise BadInput(f"{source}: {size_text(listing.bytes)} is more than Ray takes in a package ({size_text(MOST_BYTES)})")
    found = {}
    for entry in listing.entries:
        found.update(_entry(listing, entry))
    return {f"{place}/{path}" if place else path: file for path, file in found.items()}


def _entry(listing: Listing, entry: Entry) -> dict[str, tuple[bytes, bool]]:
    file = Path(listing.file(entry))
    if entry.kind == EMPTY:
        return {}
    if file.is_dir():
        raise BadInput(f"{file} is a link to a folder, which Ray's packages do not hold; leave it out with a line in .runnerignore")
    return {entry.path: (file.read_bytes(), entry.executable)}
