"""YAML blocks: each is read by what reads such a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from infra.backfill_spec import BackfillSpec
from infra.policy import Policy
from infra.prices import PriceTable
from infra.spec import parse_spec
from runner.manifests.manifest import load_manifest
from stacks.settings import Settings


def check_yaml(text: str, title: str | None, folder: Path) -> None:
    """Read a block as the file that it is.

    Args:
        title: its path; without one, what the block has in it tells.
        folder: the page's, for what a file names.

    Raises:
        Exception: whatever its reader says.
        AssertionError: nothing reads such files.
    """
    for document in yaml.safe_load_all(text):
        kind = _kind(document, title)
        assert kind in _READERS, f"nothing reads a file {title or 'without a title'} that has {', '.join(document)}"
        _READERS[kind](document, folder / (title or "manifests/x"))


def _kind(document: dict[str, Any], title: str | None) -> str:
    """The folder that such files are in, or the name of the one file of its kind."""
    if title is not None:
        path = PurePosixPath(title)
        if path.name.startswith("Pulumi."):
            return "Pulumi.yaml" if path.name == "Pulumi.yaml" else "config"
        return path.parent.name if path.parent.name in _READERS else path.name
    if set(document) & {"head_group", "worker_groups", "address", "network_policy", "gcs_fault_tolerance"}:
        return "clusters"
    own = {"database": "backfills", "config": "config", "registries": "policy.yaml", "currency": "prices.yaml"}
    return next((kind for key, kind in own.items() if key in document), "manifests")


def _cluster(document: dict[str, Any], file: Path) -> None:
    assert parse_spec({"name": "x", **document}).warnings() == []


def _backfill(document: dict[str, Any], file: Path) -> None:
    BackfillSpec.parse(document)


def _manifest(document: dict[str, Any], file: Path) -> None:
    load_manifest(document, file.parent)


def _stack(document: dict[str, Any], file: Path) -> None:
    Settings.parse({name.removeprefix("infill:"): value for name, value in document["config"].items()})


def _policy(document: dict[str, Any], file: Path) -> None:
    Policy.parse(document)


def _prices(document: dict[str, Any], file: Path) -> None:
    PriceTable.parse(document)


_READERS: dict[str, Callable[[dict[str, Any], Path], None]] = {
    "backfills": _backfill,
    "clusters": _cluster,
    "manifests": _manifest,
    "config": _stack,
    "policy.yaml": _policy,
    "prices.yaml": _prices,
}
