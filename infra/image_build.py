"""Build a container image with what is on PATH: docker's buildx, podman or buildah. Secrets never get into the image."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from infra import kubernetes_names as names
from infra.errors import BadSpec, InfraError
from infra.secrets_in_specs import resolved

DOCKERFILE = "Dockerfile"
_BUILD = {"docker": ("buildx", "build"), "podman": ("build",), "buildah": ("build",)}
_SECRET = re.compile(r"--mount=type=secret,id=([A-Za-z_][A-Za-z0-9_]*)")
_TAIL_LINES = 20


@dataclass(frozen=True)
class Build:
    """What is to be built.

    Attributes:
        folder: what the builder sees, with a Dockerfile.
        image: the name that it gets: ``registry/name:tag``.
        arch: ``"amd64"`` or ``"arm64"``.
        secrets: variables of this environment that the Dockerfile mounts.
    """

    folder: Path
    image: str
    arch: str
    secrets: tuple[str, ...] = ()

    def command(self, builder: str, *options: str) -> list[str]:
        """The call of a builder; values of secrets are not in it."""
        secrets = [part for name in self.secrets for part in ("--secret", f"id={name},env={name}")]
        platform = ["--platform", f"linux/{self.arch}"]
        return [builder, *_BUILD[Path(builder).name], *platform, "--tag", self.image, *secrets, *options, str(self.folder)]


def find_builder() -> str:
    """Path of the builder on PATH.

    Raises:
        InfraError: there is none.
    """
    without_buildx = ""
    for name in _BUILD:
        path = shutil.which(name)
        if path and (name != "docker" or _has_buildx(path)):
            return path
        if path:
            without_buildx = f"; {path} lacks its plugin buildx, which mounts secrets"
    known = ", ".join(_BUILD)
    raise InfraError(f"no builder of images on PATH ({known}){without_buildx}; install one, or build where there is one")


def command_to_run(build: Build) -> str:
    """What to type where docker is, to build and push."""
    return shlex.join(build.command("docker", "--push"))


def secrets_of(dockerfile: str) -> tuple[str, ...]:
    """Names of the secrets that a Dockerfile mounts."""
    return tuple(sorted(set(_SECRET.findall(dockerfile))))


def check_build(image: str, dockerfile: str) -> None:
    """Refuse what cannot be built.

    Raises:
        BadSpec: no name of an image that can be pushed; a secret whose variable is not set here.
    """
    try:
        names.image(image)
    except ValueError as exc:
        raise BadSpec(str(exc)) from None
    if "@" in image:
        raise BadSpec(f"{image!r} has a digest, which an image gets when it is pushed; write registry/name:tag")
    resolved([f"${{env:{name}}}" for name in secrets_of(dockerfile)])


def write_files(folder: Path, files: Mapping[str, str]) -> None:
    """Write files by their names."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8", newline="\n")


def build_image(build: Build, *, push: bool, say: Callable[[str], None] = lambda _: None) -> str:
    """Build an image.

    Args:
        push: to its registry as well, as whoever is logged in there.
        say: called with each line that the builder prints, without the values of secrets.

    Returns:
        Of a pushed image its digest, by which its registry has it; else its id on this machine.

    Raises:
        InfraError: no builder, or it failed; with what it said last.
    """
    builder, masked = find_builder(), _Masked(build.secrets, say)
    with tempfile.TemporaryDirectory(prefix="infill-image-") as folder:
        found = Path(folder) / "found"
        if not push:
            local = ["--load"] if Path(builder).name == "docker" else []
            _run(build.command(builder, *local, "--iidfile", str(found)), masked)
            return _digest(builder, found.read_text() if found.exists() else "")
        if Path(builder).name == "docker":
            _run(build.command(builder, "--push", "--metadata-file", str(found)), masked)
            return _digest(builder, _of_metadata(found))
        _run(build.command(builder), masked)
        _run([builder, "push", "--digestfile", str(found), build.image], masked)
        return _digest(builder, found.read_text() if found.exists() else "")


class _Masked:
    """Says lines without the values of secrets: pip prints the address of a requirement with its credentials."""

    def __init__(self, secrets: Sequence[str], say: Callable[[str], None]) -> None:
        # The line that mounts one takes off the ends of lines.
        self._values = sorted({os.environ.get(name, "").rstrip("\n") for name in secrets} - {""}, key=len, reverse=True)
        self._say = say
        self.tail: deque[str] = deque(maxlen=_TAIL_LINES)

    def __call__(self, line: str) -> None:
        for value in self._values:
            line = line.replace(value, "****")
        self.tail.append(line)
        self._say(line)


def _of_metadata(file: Path) -> str:
    try:
        return str(json.loads(file.read_text())["containerimage.digest"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _digest(builder: str, text: str) -> str:
    """A digest; podman and buildah write an id without ``sha256:``."""
    digest = text.strip() if ":" in text else f"sha256:{text.strip()}"
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
        raise InfraError(f"{builder} built the image and gave no digest of it, but {text.strip()[:100]!r}; upgrade it")
    return digest


def _run(command: Sequence[str], said: _Masked) -> None:
    try:
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        ) as process:
            for line in process.stdout or ():
                said(line.rstrip())
    except OSError as exc:
        raise InfraError(f"cannot run {command[0]}: {exc.strerror or exc}") from None
    if process.returncode:
        last = "\n".join(said.tail)
        raise InfraError(f"{shlex.join(command)}\nended with {process.returncode}; the last it said:\n{last}")


def _has_buildx(docker: str) -> bool:
    try:
        return subprocess.run([docker, "buildx", "version"], capture_output=True).returncode == 0
    except OSError:
        return False
