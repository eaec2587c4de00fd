"""A new folder of clusters and prices: what `infill clusters init` writes."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from infra.errors import BadSpec

STACKS = ("dev", "gpu", "eks")
PRICES = "prices.yaml"

_PROJECT = """\
name: infill
description: Ray clusters on Kubernetes, declared by the files in clusters
runtime: python   # the one on PATH: activate the environment that has infill[kubernetes]
backend:
  url: file://.   # the state is a folder .pulumi beside this file; any other backend does as well
"""
_PROGRAM = """\
from stacks.program import declare

declare("clusters")
"""


def write_project(folder: str | Path) -> list[Path]:
    """Write a Pulumi project with the stacks dev, gpu and eks, and a price table to fill in.

    Returns:
        The files written.

    Raises:
        BadSpec: one of them is there already; nothing is written then.
    """
    place, here = Path(folder), files("stacks")
    contents = {"Pulumi.yaml": _PROJECT, "__main__.py": _PROGRAM, PRICES: here.joinpath(PRICES).read_text()}
    for stack in STACKS:
        contents[f"Pulumi.{stack}.yaml"] = here.joinpath(f"Pulumi.{stack}.yaml").read_text()
        contents[f"clusters/{stack}.yaml"] = here.joinpath("clusters", f"{stack}.yaml").read_text()
    there = [name for name in contents if (place / name).exists()]
    if there:
        raise BadSpec(f"{place / there[0]} is there already; give an empty folder")
    (place / "clusters").mkdir(parents=True, exist_ok=True)
    for name, text in contents.items():
        (place / name).write_text(text)
    return [place / name for name in contents]
