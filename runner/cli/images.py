"""The command from a manifest to a baked image: ``manifests build``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runner.cli.common import Database, StorageOptions, exit_codes, open_database

if TYPE_CHECKING:
    from infra.image_build import Build
    from runner.manifests.manifest import Manifest


class Arch(StrEnum):
    amd64 = "amd64"
    arm64 = "arm64"


def build_manifest(
    database: Database,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of a defined manifest.")],
    tag: Annotated[
        str | None, typer.Option(metavar="IMAGE", help="Build it: registry/name:tag. Default: write files only.")
    ] = None,
    push: Annotated[bool, typer.Option("--push", help="Push it as well, as whoever is logged in at its registry.")] = False,
    gpu: Annotated[bool, typer.Option("--gpu", help="On Ray's image with CUDA.")] = False,
    arch: Annotated[Arch, typer.Option(help="Platform of the nodes.")] = Arch.amd64,
    base: Annotated[
        str | None, typer.Option(metavar="IMAGE", help="Image to build on. Default: Ray's, for the Ray and Python installed here.")
    ] = None,
    no_pin: Annotated[bool, typer.Option("--no-pin", help="Leave the base without a digest, and ask no registry for it.")] = False,
    output: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Folder for the Dockerfile. Default: NAME-image, here.")
    ] = None,
    storage_option: StorageOptions = None,
) -> None:
    """Write the Dockerfile of an image that has a manifest installed; with --tag build it, with --push push it."""
    from infra.image_build import Build, secrets_of
    from runner.cli.definitions import print_warnings
    from runner.errors import BadInput
    from runner.manifests.dockerfile import check_bakeable, image_files

    with exit_codes():
        if push and not tag:
            raise BadInput("--push needs --tag: registry/name:tag is where to")
        manifest = open_database(database, storage_option).get_manifest(name)
        print_warnings("manifest", manifest)
        check_bakeable(manifest)
        _say_own_images(manifest, base)
        files = image_files(manifest, _base(base, gpu, arch, no_pin))
        folder = output or Path(f"{name}-image")
        _write(folder, files)
        for file in sorted(files):
            typer.echo(f"wrote {folder / file}")
        build = Build(folder, tag or "REGISTRY/NAME:TAG", arch.value, secrets_of(files["Dockerfile"]))
        if tag:
            _build(build, files["Dockerfile"], "gpu_worker_image" if gpu else "worker_image", push)
        else:
            _say_command(build)


def _base(base: str | None, gpu: bool, arch: Arch, no_pin: bool) -> str:
    from infra.errors import InfraError
    from infra.images import client_python_version, client_ray_version, default_image
    from infra.registry import pinned

    image = base or default_image(client_ray_version(), client_python_version(), arch=arch.value, gpu=gpu)
    try:
        return image if no_pin else pinned(image)
    except InfraError as exc:
        raise type(exc)(f"{exc} (--base IMAGE@sha256:..., or --no-pin)") from None


def _say_own_images(manifest: Manifest, base: str | None) -> None:
    """An image that the manifest names is what runs use now, and may be this one's predecessor; it is no base by itself."""
    for field in ("worker_image", "gpu_worker_image"):
        image = getattr(manifest, field)
        if image and base is None:
            typer.echo(
                f"manifest {manifest.name!r} has {field}: {image}; this one is built on Ray's: --base builds on another", err=True
            )


def _write(folder: Path, files: dict[str, str]) -> None:
    """Write the files, into a folder that is new, empty, or of an earlier call."""
    from infra.image_build import write_files
    from runner.errors import BadInput
    from runner.manifests.dockerfile import FILES, FIRST_LINE

    try:
        if folder.is_dir() and any(folder.iterdir()):
            earlier = folder / "Dockerfile"
            if not earlier.is_file() or not earlier.read_text(errors="replace").startswith(FIRST_LINE):
                raise BadInput(f"--output {folder} has files of somebody else's; name a folder that is new or empty")
        write_files(folder, files)
        for stale in set(FILES) - set(files):
            (folder / stale).unlink(missing_ok=True)
    except OSError as exc:
        raise BadInput(f"cannot write to {folder}: {exc.strerror or exc}; name another --output") from None


def _build(build: Build, dockerfile: str, field: str, push: bool) -> None:
    from infra.errors import InfraError
    from infra.image_build import build_image, check_build, command_to_run, find_builder

    check_build(build.image, dockerfile)
    try:
        find_builder()
    except InfraError as exc:
        raise InfraError(f"{exc}:\n  {command_to_run(build)}") from None
    digest = build_image(build, push=push, say=lambda line: typer.echo(line, err=True))
    typer.echo(f"{'pushed' if push else 'built'} {build.image}: {digest}")
    if not push:
        typer.echo("it is on this machine only, and has no digest that others know it by: --push")
        return
    typer.echo("in the manifest, in place of pip, conda and the indexes, which are in the image now:")
    typer.echo(f"  {field}: {build.image}@{digest}")


def _say_command(build: Build) -> None:
    from infra.image_build import command_to_run

    typer.echo("to build and push it, give --tag and --push, or run")
    typer.echo(f"  {command_to_run(build)}")
