"""`render`: what a folder declares as a tree of YAML files for Argo CD or Flux."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

import typer

from runner.cli.common import exit_codes

Folder = Annotated[Path, typer.Argument(metavar="[FOLDER]", help="Pulumi project, or folder of clusters' files.")]
Stacks = Annotated[list[str] | None, typer.Option("--stack", metavar="NAME", help="Only this one; may be repeated.")]


def render(
    folder: Folder = Path("."),
    out: Annotated[Path, typer.Option("--out", "-o", metavar="OUT", help="Folder of the tree; made if it is missing.")] = Path(
        "rendered"
    ),
    tool: Annotated[Literal["argocd", "flux"], typer.Option("--for", help="What delivers the tree.")] = "argocd",
    path: Annotated[
        str | None, typer.Option(metavar="PATH", help="Of OUT in its git repository. Default: OUT, if it is relative.")
    ] = None,
    repository: Annotated[
        str | None, typer.Option(metavar="URL", help="Of git, for Argo CD: writes the Application to apply once.")
    ] = None,
    branch: Annotated[str, typer.Option(metavar="NAME", help="That Argo CD follows.")] = "main",
    source: Annotated[str, typer.Option(metavar="NAME", help="Of Flux's GitRepository.")] = "flux-system",
    stack: Stacks = None,
    check: Annotated[bool, typer.Option("--check", help="Write nothing; exit code 1 where OUT is not what it would be.")] = False,
) -> None:
    """Write everything that a folder declares as YAML, a resource a file, stable from run to run.

    Files of an earlier run that are not declared any more are removed. Kubernetes is not asked.
    """
    with exit_codes():
        from stacks import rendering
        from stacks.project import read_project

        project = read_project(folder, stack or ())
        place = path or _relative(out)
        tree = rendering.rendered(project, rendering.Target(tool, place, repository, branch, source))
        changes = rendering.changed(rendering.written(out), tree) if check else rendering.write(out, tree)
        for line in changes:
            typer.echo(line)
        for missing in rendering.left_out(project):
            typer.echo(f"not rendered: {missing}; make it in Kubernetes, by hand or from a vault", err=True)
        if tool == "argocd" and not repository:
            typer.echo("no application.yaml: give --repository, or have its ignoreDifferences in an Application of yours", err=True)
        typer.echo(f"{len(tree)} files, {len(changes)} {'differ' if check else 'written or removed'}", err=True)
        if check and changes:
            raise typer.Exit(1)


def _relative(out: Path) -> str:
    from infra.errors import BadSpec

    if out.is_absolute() or ".." in out.parts:
        raise BadSpec(f"-o {out} does not say where the tree is in its git repository; give --path")
    return str(PurePosixPath(*out.parts))
