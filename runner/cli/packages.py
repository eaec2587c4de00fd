"""The commands on packages: what of this machine would go to workers, and which uploads nobody uses any more."""

from __future__ import annotations

import datetime as dt
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runner.cli.common import AsJson, Database, StorageOptions, exit_codes, open_database

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
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be removed and remove nothing.")] = False,
    as_json: AsJson = False,
    storage_option: StorageOptions = None,
) -> None:
    """Remove packages that no job has used for a time, and what only they needed."""
    from runner.packages.gc import collect
    from runner.packages.package import size_text

    with exit_codes():
        removed = collect(open_database(database, storage_option).store, _age(older_than), dry_run)
        if as_json:
            typer.echo(json.dumps([{"path": one.path, "bytes": one.bytes, "used": one.used.isoformat()} for one in removed]))
            return
        for one in removed:
            typer.echo(f"{one.path}  {size_text(one.bytes):>9}  {one.used:%Y-%m-%d %H:%M}")
        did = "would remove" if dry_run else "removed"
        typer.echo(f"{did} {len(removed)} objects, {size_text(sum(one.bytes for one in removed))}", err=True)


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


def _age(text: str) -> dt.timedelta:
    from runner.errors import BadInput

    found = re.fullmatch(r"(\d+)([dhm])", text.strip())
    if not found:
        raise BadInput(f"--older-than {text!r} is no age; write 30d, 12h or 45m")
    unit = {"d": "days", "h": "hours", "m": "minutes"}[found[2]]
    return dt.timedelta(**{unit: int(found[1])})
