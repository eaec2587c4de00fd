"""Lock files as requirements with exact versions and hashes: uv.lock, by uv itself, and pylock.toml (PEP 751)."""

from __future__ import annotations

import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

from packaging.markers import Marker

from runner.errors import BadInput


def read_lock(path: Path) -> list[str]:
    """The requirements of a lock file: ``name==version --hash=sha256:...``, with their markers.

    Raises:
        BadInput: no such file, no lock file, a package without hashes, or uv is needed and not there.
    """
    if not path.is_file():
        raise BadInput(f"no lock file at {path}")
    return _exported(path) if path.name == "uv.lock" else _from_pylock(path)


def _exported(path: Path) -> list[str]:
    uv = shutil.which("uv")
    if uv is None:
        raise BadInput(f"{path} is read by uv, which is not on PATH: pip install uv, or export it once: uv export -o pylock.toml")
    command = [
        uv,
        "export",
        "--frozen",
        "--no-emit-project",
        "--no-default-groups",
        "--no-header",
        "--no-annotate",
        "--format",
        "requirements-txt",
    ]
    done = subprocess.run(command, cwd=path.parent, capture_output=True, text=True)
    if done.returncode:
        raise BadInput(f"uv cannot export {path}: {' '.join(done.stderr.split())}")
    text = done.stdout.replace("\\\n", " ")
    found = [" ".join(line.split()) for line in text.splitlines() if line.strip() and not line.startswith("#")]
    local = [line for line in found if line.startswith(("-e", "./", "../", "/")) or "@ file:" in line]
    if local:
        raise BadInput(f"{path} has {local[0]!r}, a folder of this machine; give it to py_modules instead")
    unhashed = [line for line in found if " --hash=" not in line]
    if unhashed:
        raise BadInput(
            f"{path}: {unhashed[0]!r} has no hashes: it comes from a repository, and only packages of an index are exact"
        )
    return found


def _from_pylock(path: Path) -> list[str]:
    try:
        lock = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise BadInput(f"{path} is no TOML: {exc}") from None
    if "lock-version" not in lock or "packages" not in lock:
        raise BadInput(f"{path} is neither uv.lock nor pylock.toml (PEP 751): it has no lock-version and packages")
    return [_requirement(package, path) for package in lock["packages"]]


def _requirement(package: dict[str, Any], path: Path) -> str:
    name, version = package.get("name"), package.get("version")
    files = [*package.get("wheels", []), *([package["sdist"]] if "sdist" in package else [])]
    if not version or not files:
        raise BadInput(f"{path}: {name} comes from a folder or a repository, which workers do not have; give it to py_modules")
    hashes = sorted({f"--hash={kind}:{value}" for file in files for kind, value in file.get("hashes", {}).items()})
    if not hashes:
        raise BadInput(f"{path}: {name} has no hashes; lock it again")
    marker = f" ; {Marker(package['marker'])}" if package.get("marker") else ""
    return f"{name}=={version}{marker} {' '.join(hashes)}"
