"""A new folder of clusters, backfills and prices: what `infill clusters init` writes."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from infra.errors import BadSpec

STACKS = ("dev", "gpu", "eks")
BACKFILLS = ("words",)

_PROJECT = """\
name: infill
description: Ray clusters and backfills on Kubernetes, declared by the files in clusters and backfills
runtime: python   # the one on PATH: activate the environment that has infill[kubernetes]
backend:
  url: file://.   # the state is a folder .pulumi beside this file; any other backend does as well
"""
_REQUIREMENTS = """\
infill[kubernetes,policy]
"""
_IGNORED = """\
.pulumi/
__pycache__/
venv/
"""
_PROGRAM = """\
from stacks.program import declare

declare("clusters", "backfills")
"""


def write_project(folder: str | Path) -> list[Path]:
    """Write a Pulumi project with the stacks dev, gpu and eks, a policy, a workflow for GitHub Actions, a price table to fill
    in, and an example of a backfill that none of the stacks declares.

    GitHub reads workflows at the top of a repository only: this one works as it is where the folder is that.

    Returns:
        The files written.

    Raises:
        BadSpec: one of them is there already; nothing is written then.
    """
    place, here = Path(folder), files("stacks")
    contents = {"Pulumi.yaml": _PROJECT, "__main__.py": _PROGRAM, "requirements.txt": _REQUIREMENTS, ".gitignore": _IGNORED}
    contents[".github/workflows/clusters.yaml"] = here.joinpath("workflow.yaml").read_text()
    for file in ("policy.yaml", "prices.yaml", "policy_pack/PulumiPolicy.yaml", "policy_pack/__main__.py"):
        contents[file] = here.joinpath(*file.split("/")).read_text()
    for stack in STACKS:
        contents[f"Pulumi.{stack}.yaml"] = here.joinpath(f"Pulumi.{stack}.yaml").read_text()
        contents[f"clusters/{stack}.yaml"] = here.joinpath("clusters", f"{stack}.yaml").read_text()
    contents |= {f"backfills/{name}.yaml": here.joinpath("backfills", f"{name}.yaml").read_text() for name in BACKFILLS}
    there = [name for name in contents if (place / name).exists()]
    if there:
        raise BadSpec(f"{place / there[0]} is there already; give an empty folder")
    for name, text in contents.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text)
    return [place / name for name in contents]
