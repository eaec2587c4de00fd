"""Folders for the tests of packages."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from runner.packages.scan import Listing, scan

SERVICE_ACCOUNT = """{"type": "service_account", "project_id": "p", "private_key": "-----BEGIN PRIVATE KEY-----\\nMII"}"""
KUBECONFIG = "apiVersion: v1\nkind: Config\nclusters: []\nusers:\n- name: me\n  user: {token: t}\n"
PRIVATE_KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1r\n-----END OPENSSH PRIVATE KEY-----\n"


def write(root: Path, files: Mapping[str, str | bytes]) -> Path:
    """Files by path; a path that ends with ``/`` is an empty folder."""
    root.mkdir(parents=True, exist_ok=True)
    for path, content in files.items():
        place = root / path
        if path.endswith("/"):
            place.mkdir(parents=True, exist_ok=True)
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def plain(root: Path, *paths: str) -> Path:
    """Files whose content does not matter."""
    return write(root, dict.fromkeys(paths, "x"))


def going(root: Path, **options: object) -> list[str]:
    """Paths that go, without the ignore files."""
    return [path for path in paths(scan(root, **options)) if not path.endswith("ignore")]  # type: ignore[arg-type]


def paths(listing: Listing) -> list[str]:
    return [entry.path for entry in listing.entries]


def staying(root: Path, **options: object) -> dict[str, str]:
    """Paths that stay, and why."""
    return dict(scan(root, **options).ignored)  # type: ignore[arg-type]


def age(root: Path, seconds: float = 3600) -> None:
    """Set the times of all files back, so that an index remembers them."""
    for path in root.rglob("*"):
        if path.is_file() and not path.is_symlink():
            old = path.stat().st_mtime - seconds
            os.utime(path, (old, old))
