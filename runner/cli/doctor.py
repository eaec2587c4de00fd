"""`doctor`: whether everything is here that a backfill or a cluster needs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runner.cli.cluster_specs import kuberay, read_or_get
from runner.cli.common import AsJson, StorageOptions, exit_codes, open_database

if TYPE_CHECKING:
    from infra.spec import KubeRayClusterSpec
    from runner.doctor.check import Check
    from runner.store import Store


def doctor(
    database: Annotated[str | None, typer.Option("--db", metavar="DB", help="Check its storage, too.")] = None,
    cluster: Annotated[
        str | None, typer.Option(metavar="FILE_OR_NAME", help="Check what this cluster needs: a YAML file, or with --db a name.")
    ] = None,
    as_json: AsJson = False,
    storage_option: StorageOptions = None,
) -> None:
    """Check Python, packages, disks, Pulumi, Kubernetes, KubeRay, rights, the store and the clock, each with a remedy.

    Exit code 1 where something that was asked for cannot work (FAIL).
    """
    with exit_codes():
        store = open_database(database, storage_option).store if database else None
        spec = None
        if cluster:  # a file needs no database, which is to be checked all the same
            defined_in = None if Path(cluster).is_file() else database
            spec = kuberay(read_or_get(cluster, defined_in, storage_option), "needs Kubernetes")
        found = []
        for check in _look(store, spec):
            found.append(check)
            if not as_json:
                _print(check)
        if as_json:
            typer.echo(json.dumps([dataclasses.asdict(check) for check in found]))
        if any(check.status == "FAIL" for check in found):
            raise typer.Exit(1)


def _look(store: Store | None, spec: KubeRayClusterSpec | None) -> Iterator[Check]:
    from runner.doctor import kubernetes, machine, pulumi_cli, storage

    steady = machine.SteadyClock()
    yield from machine.look(kubernetes=spec is not None, database=store.uri if store and store.is_local else None)
    yield from pulumi_cli.look(needed=spec is not None)
    yield from kubernetes.look(spec)
    if store is not None:
        yield from storage.look(store)
    yield steady.check()


def _print(check: Check) -> None:
    colour = {"OK": typer.colors.GREEN, "WARN": typer.colors.YELLOW, "FAIL": typer.colors.RED}[check.status]
    typer.echo(f"{typer.style(f'{check.status:<4}', fg=colour)}  {check.name}: {check.found}")
    if check.remedy:
        typer.echo(f"      -> {check.remedy}")
