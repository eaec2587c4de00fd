"""`RayImage`: the Pulumi component of an image that is built from a Dockerfile and pushed.

A resource of Pulumi's dynamic provider builds, with the builder on PATH: see `infra.image_build`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pulumi
from pulumi.dynamic import CheckFailure, CheckResult, CreateResult, DiffResult, Resource, ResourceProvider, UpdateResult
from pulumi.runtime.rpc import UNKNOWN

from infra.errors import BadSpec, InfraError
from infra.groups import Arch
from infra.image_build import DOCKERFILE, Build, build_image, check_build, find_builder, secrets_of, write_files

TYPE = "infill:image:RayImage"
LARGEST_CONTEXT = 2**20
_INPUTS = ("image", "arch", "files")


@dataclass
class RayImageArgs:
    """What a `RayImage` is made from.

    Attributes:
        image: name that it is pushed under: ``registry/name:tag``. Whoever runs `pulumi up` is logged in there.
        context: the Dockerfile and the files that it copies: a folder, as ``manifests build`` writes it, or their texts by name, as
            `runner.manifests.dockerfile.image_files` gives them. At most 1 MiB of text; it is kept in Pulumi's state. A secret
            that the Dockerfile mounts is the variable of that name; its value is not kept.
        arch: platform of the nodes: ``"amd64"`` or ``"arm64"``.
    """

    image: pulumi.Input[str]
    context: str | Path | Mapping[str, str]
    arch: Arch = "amd64"


class RayImage(pulumi.ComponentResource):
    """An image, built and pushed when its Dockerfile, a file beside it or its name changes.

    The base is part of the Dockerfile: pinned by digest (`infra.registry.pinned`) it changes with its digest only. The image stays
    in its registry when the stack is destroyed.

    Raises:
        pulumi.RunError: the context has no Dockerfile, or cannot be read.
    """

    reference: pulumi.Output[str]
    """The image, pinned: ``registry/name:tag@sha256:...``. Not known before it is built."""
    digest: pulumi.Output[str]
    """``sha256:...``"""

    def __init__(self, name: str, args: RayImageArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(TYPE, name, {}, opts)
        try:
            files = _files(args.context)
        except InfraError as exc:  # which Pulumi prints without a traceback
            raise pulumi.RunError(str(exc)) from exc
        built = _Built(name, {"image": args.image, "arch": args.arch, "files": files}, pulumi.ResourceOptions(parent=self))
        self.reference, self.digest = built.reference, built.digest
        self.register_outputs({"reference": self.reference, "digest": self.digest})


class _Built(Resource, module="infill", name="Image"):
    reference: pulumi.Output[str]
    digest: pulumi.Output[str]

    def __init__(self, name: str, inputs: dict[str, Any], opts: pulumi.ResourceOptions) -> None:
        super().__init__(ImageProvider(), name, {**inputs, "reference": None, "digest": None}, opts)


class ImageProvider(ResourceProvider):
    """Builds images for Pulumi, in a process of Pulumi's own. The state holds this class by name: a change of it builds nothing."""

    serialize_as_secret_always = False

    def check(self, olds: dict[str, Any], news: dict[str, Any]) -> CheckResult:
        """Say what stands against a build before anything is built; where nothing changed, nothing has to be there."""
        failures = []
        if _changed(olds, news) and UNKNOWN not in (news["image"], news["arch"]):
            try:
                check_build(news["image"], news["files"][DOCKERFILE])
                find_builder()
            except InfraError as exc:
                failures.append(CheckFailure("", str(exc)))
        return CheckResult(news, failures)

    def diff(self, id_: str, olds: dict[str, Any], news: dict[str, Any]) -> DiffResult:
        changed = _changed(olds, news)
        return DiffResult(changes=bool(changed), replaces=[key for key in changed if key == "image"])

    def create(self, props: dict[str, Any]) -> CreateResult:
        return CreateResult(props["image"], _built(props))

    def update(self, id_: str, olds: dict[str, Any], news: dict[str, Any]) -> UpdateResult:
        return UpdateResult(_built(news))


def _changed(olds: Mapping[str, Any], news: Mapping[str, Any]) -> list[str]:
    return [key for key in _INPUTS if olds.get(key) != news.get(key)]


def _built(props: Mapping[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="infill-image-") as folder:
        write_files(Path(folder), props["files"])
        secrets = secrets_of(props["files"][DOCKERFILE])
        digest = build_image(Build(Path(folder), props["image"], props["arch"], secrets), push=True)
    return {**{key: props[key] for key in _INPUTS}, "digest": digest, "reference": f"{props['image']}@{digest}"}


def _files(context: str | Path | Mapping[str, str]) -> dict[str, str]:
    """The texts of a context, by name."""
    files = dict(context) if isinstance(context, Mapping) else _read(Path(context))
    where = "" if isinstance(context, Mapping) else f" {context}"
    if DOCKERFILE not in files:
        raise BadSpec(f"the context{where} has no {DOCKERFILE}; `python -m runner manifests build` writes one")
    if odd := [name for name in files if Path(name).name != name or name == ".."]:
        raise BadSpec(f"the context{where} has {odd[0]!r}; its files lie side by side")
    if sum(len(text.encode()) for text in files.values()) > LARGEST_CONTEXT:
        raise BadSpec(f"the context{where} has more than {LARGEST_CONTEXT} bytes; give a folder with a Dockerfile and little else")
    return files


def _read(folder: Path) -> dict[str, str]:
    try:
        found = sorted(folder.iterdir())
        if large := [each for each in found if each.is_dir() or each.stat().st_size > LARGEST_CONTEXT]:
            raise BadSpec(f"the context {folder} has {large[0].name}; give a folder with a Dockerfile and small files of text")
        return {each.name: each.read_text(encoding="utf-8") for each in found}
    except (OSError, UnicodeDecodeError) as exc:
        raise BadSpec(f"cannot read the context {folder}: {getattr(exc, 'strerror', None) or exc}") from None
