"""The commands that compare a manifest: with what a cluster or this machine has, and with a file."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from runner.cli.common import AsJson, Database, StorageOptions, exit_codes, open_database

if TYPE_CHECKING:
    from infra.changes import Change
    from runner.connection import Connection
    from runner.manifests.check import Problem
    from runner.manifests.facts import Facts
    from runner.manifests.imports import Needs
    from runner.manifests.manifest import Manifest

HERE = "this machine"

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of a defined manifest.")]


def add_checks(app: typer.Typer) -> None:
    """The commands of this file, as those of another app."""
    app.command("check")(check_manifest)
    app.command("diff")(diff_manifest)


def check_manifest(
    database: Database,
    name: Name,
    cluster: Annotated[
        str | None,
        typer.Option(metavar="NAME|ADDRESS", help="Of a defined cluster, or http://host:8265. Default: this machine."),
    ] = None,
    udf: Annotated[list[str] | None, typer.Option(metavar="MODULE:FUNCTION", help="What is to run there; may be repeated.")] = None,
    as_json: AsJson = False,
    storage_option: StorageOptions = None,
) -> None:
    """Compare this machine with a cluster: Python, Ray, packages and variables that functions need, with the manifest's over them.

    A line for each problem. Exit code 1 where one is an error.
    """
    with exit_codes():
        from runner.manifests.check import compare

        connection = open_database(database, storage_option)
        manifest = connection.get_manifest(name)
        needs = _needs(udf or [])
        client, there, where = _facts(connection, cluster, needs)
        _print(compare(client, there, manifest, needs.imports, needs.variables, optional=needs.optional), where, as_json)


def diff_manifest(
    database: Database,
    name: Name,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="YAML file of a manifest.")],
    as_json: AsJson = False,
    storage_option: StorageOptions = None,
) -> None:
    """Compare a definition with a file.

    A line for each field that differs: what is defined -> what the file says. Exit code 1 where there is one.
    """
    with exit_codes():
        defined = open_database(database, storage_option).get_manifest(name)
        changes = list(_changes(_plain(defined), _plain(read_checked(file))))
        if as_json:
            typer.echo(json.dumps([dataclasses.asdict(change) for change in changes]))
        else:
            typer.echo("\n".join(map(str, changes)) or "no differences")
        if changes:
            raise typer.Exit(1)


def read_checked(file: Path) -> Manifest:
    """The manifest of a YAML file, whose py_modules are on this machine.

    Raises:
        BadInput, infra.BadSpec: see `runner.manifests.manifest.read_manifest`.
    """
    from runner.manifests.manifest import read_manifest
    from runner.manifests.modules import check_modules

    manifest = read_manifest(file)
    check_modules(manifest.py_modules, str(file))
    return manifest


def _needs(paths: list[str]) -> Needs:
    from runner.manifests.imports import needs_of
    from runner.shipping import import_udf

    return needs_of(*[import_udf(path) for path in paths])


def _facts(connection: Connection, cluster: str | None, needs: Needs) -> tuple[Facts, Facts, str]:
    """Of this machine and of the cluster, and what the latter is called."""
    from infra.spec import ClusterSpec, LocalClusterSpec
    from runner.manifests.facts import facts_here

    modules = needs.imports | needs.optional
    here = facts_here(modules)
    target: ClusterSpec | str | None = cluster
    if cluster and "://" not in cluster:
        target = connection.get_cluster(cluster)
    if target is None or isinstance(target, LocalClusterSpec):
        return here, here, HERE
    return here, _facts_there(target, modules), cluster or HERE


def _facts_there(target: Any, modules: frozenset[str]) -> Facts:
    from runner.manifests.facts import facts_of
    from runner.remote.address import open_dashboard
    from runner.remote.ray_jobs import RayJobs

    dashboard = open_dashboard(target)
    try:
        typer.echo(f"looking at a worker of {dashboard.where}", err=True)
        return facts_of(RayJobs(dashboard), modules)
    finally:
        dashboard.close()


def _print(problems: list[Problem], where: str, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(problem) for problem in problems]))
    else:
        typer.echo("\n".join(map(str, problems)) or f"nothing is missing or apart on {where}")
    if any(problem.severity == "error" for problem in problems):
        raise typer.Exit(1)


def _plain(manifest: Manifest) -> dict[str, Any]:
    """Plain data, modules of this machine by what they hold, as they are defined."""
    from runner.manifests.modules import packaged, uploaded

    modules = []
    for module in manifest.py_modules:
        if uploaded(module):
            modules.append(module)
            continue
        with packaged(module) as package:
            modules.append(f"{Path(module).name}@{package.id}")
    plain = manifest.model_dump(mode="json", exclude_defaults=True)
    return {**plain, **({"py_modules": modules} if modules else {})}


def _changes(before: Mapping[str, Any], after: Mapping[str, Any], path: str = "") -> Iterator[Change]:
    from infra.changes import Change

    for key in dict.fromkeys([*before, *after]):
        old, new, place = before.get(key), after.get(key), f"{path}[{key}]" if path else key
        if isinstance(old or new, Mapping) and isinstance(new or {}, Mapping):
            yield from _changes(old or {}, new or {}, place)
        elif key in ("pip", "py_modules") and not path:
            yield from _changes(_named(old or []), _named(new or []), place)
        elif old != new:
            yield Change(place, old, new)


def _named(lines: list[str]) -> dict[str, str]:
    """Requirements by distribution, uploaded modules by name."""
    from runner.manifests.modules import uploaded
    from runner.manifests.requirements import requirement_name

    return {found[0] if (found := uploaded(line)) else requirement_name(line): line for line in lines}
