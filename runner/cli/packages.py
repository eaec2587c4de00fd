"""The commands on packages: what of this machine would go to workers, and which uploads nobody uses any more."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runner.cli.common import AsJson, Database, DryRun, StorageOptions, age, exit_codes, open_database, print_collected

if TYPE_CHECKING:
    from runner.packages.package import Package
    from runner.packages.scan import Listing

packages_app = typer.Typer(help="Uploaded packages.", no_args_is_help=True, rich_markup_mode=None)

Patterns = list[str] | None


def package(
    show_all: Annotated[bool, typer.Option("--list", help="List every file, and what stays with the reason.")] = False,
    root: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="Folder. Default: the nearest with pyproject.toml, setup.cfg or .git, else this one."),
    ] = None,
    site: Annotated[bool, typer.Option("--site", help="The site-packages of this Python instead.")] = False,
    include: Annotated[Patterns, typer.Option(metavar="PATTERN", help="Goes in spite of every rule; may be repeated.")] = None,
    exclude: Annotated[Patterns, typer.Option(metavar="PATTERN", help="Stays; may be repeated.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what would go to workers. Sends nothing."""
    from runner.packages.package import describe, to_dict

    with exit_codes():
        found = [_look(folder, include or [], exclude or [], site) for folder in _roots(root, site)]
        if as_json:
            typer.echo(json.dumps([to_dict(listing, made) for listing, made in found]))
            return
        for listing, made in found:
            typer.echo(describe(listing, made, every=show_all))


@packages_app.command("gc")
def collect_packages(
    database: Database,
    older_than: Annotated[str, typer.Option(metavar="AGE", help="Not used for so long: 30d, 12h, 45m.")],
    dry_run: DryRun = False,
    as_json: AsJson = False,
    storage_option: StorageOptions = None,
) -> None:
    """Remove packages that no job has used for a time, and what only they needed."""
    from runner.packages.gc import collect

    with exit_codes():
        removed = collect(open_database(database, storage_option).store, age(older_than), dry_run)
        if as_json:
            typer.echo(json.dumps([{"path": one.path, "bytes": one.bytes, "used": one.used.isoformat()} for one in removed]))
            return
        lines = [(one.path, f"not used since {one.used:%Y-%m-%d %H:%M}", "") for one in removed]
        print_collected(lines, "objects", dry_run=dry_run, size=sum(one.bytes for one in removed))


def _roots(root: Path | None, site: bool) -> list[Path]:
    from runner.errors import BadInput
    from runner.packages.roots import site_packages, workspace_root

    if root is not None:
        return [root]
    found = site_packages() if site else [workspace_root()]
    if not found:
        raise BadInput("this Python has no site-packages folder; name one with --root")
    return found


def _look(root: Path, include: list[str], exclude: list[str], site: bool) -> tuple[Listing, Package | None]:
    """A folder's listing and, unless it is too large to go, its package."""
    from runner.packages.index import Index
    from runner.packages.package import MOST_BYTES, of_listing
    from runner.packages.scan import scan

    index = Index(root.resolve())
    listing = scan(root, include, exclude, site, index)
    if listing.bytes > MOST_BYTES:
        return listing, None
    made = of_listing(listing, index)
    index.save()
    return made.listing, made
