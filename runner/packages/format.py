"""What a package is in the store. Client and workers share this file; it imports nothing.

A package is ``packages/<id>.json``: a few facts and its layers. The id is the hash of those bytes. A layer is
``packages/layers/<id>.zip``, a zip file without compression; the id is the hash of the layer's entries with their content,
so a worker that knows the package's id can check everything down to the last byte, whoever can write to the store.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

FORMAT = 1
FOLDER = "packages"
LAYERS = f"{FOLDER}/layers"
FILE, LINK, EMPTY = "file", "link", "folder"

_ID = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class LayerRecord:
    """One layer of a package: the size of its zip file, and how many entries it holds."""

    id: str
    bytes: int
    files: int


@dataclass(frozen=True)
class PackageRecord:
    """A package's JSON.

    Attributes:
        kind: ``workspace`` or ``site``.
        python: of site-packages, the Python that they are of, such as ``3.11``.
        platform: of site-packages, such as ``linux-x86_64``.
    """

    kind: str
    python: str | None
    platform: str | None
    layers: tuple[LayerRecord, ...]

    @property
    def size(self) -> int:
        return sum(layer.bytes for layer in self.layers)

    def to_json(self) -> bytes:
        """The same bytes for the same package, everywhere."""
        return json.dumps({"format": FORMAT, **asdict(self)}, sort_keys=True, separators=(",", ":")).encode()

    @classmethod
    def from_json(cls, data: bytes) -> PackageRecord:
        """The record of a package's bytes.

        Raises:
            ValueError: no package, or one of another format.
        """
        raw = json.loads(data)
        found = raw.pop("format", None) if isinstance(raw, dict) else None
        if found != FORMAT:
            raise ValueError(f"format {found}, where this version of the runner reads format {FORMAT}")
        try:
            return cls(**{**raw, "layers": tuple(LayerRecord(**layer) for layer in raw["layers"])})
        except (KeyError, TypeError) as exc:
            raise ValueError(f"no package: {exc}") from exc


def package_id(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def is_id(text: Any) -> bool:
    """Whether a text may be the id of a package or a layer, and so may be part of a path."""
    return isinstance(text, str) and _ID.fullmatch(text) is not None


def package_path(package: str) -> str:
    return f"{FOLDER}/{package}.json"


def layer_path(layer: str) -> str:
    return f"{LAYERS}/{layer}.zip"


def layer_id(entries: Iterable[Sequence[str]]) -> str:
    """The id of a layer.

    Args:
        entries: ``(path, kind, "x" or "", SHA-256 of the content or target of the link)``, in any order.
    """
    lines = sorted("\0".join(entry) for entry in entries)
    return hashlib.sha256("\0\0".join(["infill layer 1", *lines]).encode()).hexdigest()
