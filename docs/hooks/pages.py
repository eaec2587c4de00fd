"""Pages that the site has and `docs/` has not, and links to them: mkdocs calls `on_files` and `on_page_markdown` when it builds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from reference import command_line, fields

ROOT = Path(__file__).resolve().parents[2]
CLUSTER = """\
One cluster, a YAML file in `clusters/` or of `infill clusters define`; see [Clusters](../clusters.md). `infill clusters schema`
prints this as JSON Schema, for an editor. `kind` is `kuberay` unless it says otherwise.
"""
MANIFEST = """\
What workers have, a YAML file in `manifests/` or of `infill manifests define`; see [Manifests](../manifests.md). In place of
`pip` or `conda` a file may name `requirements_path`, `lock_path` (a uv.lock or pylock.toml) or `conda_environment_path`, which are
read when it is defined.
"""
BACKFILL = """\
A backfill that `pulumi up` declares, a YAML file in `backfills/`; see [Backfills in git](../backfills.md).
"""
POLICY = """\
What clusters may be, `policy.yaml` beside the folder of clusters; see [Policies](../policy.md). `infill policy schema` prints
this as JSON Schema.
"""
PRICES = """\
What things cost, `prices.yaml`; see [Operations](../operations.md#prices). `infill clusters schema prices` prints this as JSON
Schema.
"""
STACK = """\
What `Pulumi.<stack>.yaml` may set for the program in `stacks/`, each key as `infill:<key>`; see [Clusters](../clusters.md#stacks).
"""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the README as the front page, the figures of bench/, and the reference that is made from code."""
    for name, text in _pages().items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Links out of `docs/`, as a reader of the repository follows them, to the pages that the site has."""
    return markdown.replace("](../README.md", "](index.md").replace("](../bench/", "](bench/")


def _pages() -> dict[str, str]:
    return {
        "index.md": _readme(),
        **{f"bench/{file.name}": file.read_text() for file in ROOT.glob("bench/*.md")},
        "reference/command-line.md": command_line(),
        **{f"reference/{name}.md": text for name, text in _files().items()},
    }


def _readme() -> str:
    """The README with its links as the site has them."""
    return re.sub(r"\]\(docs/", "](", (ROOT / "README.md").read_text())


def _files() -> dict[str, str]:
    from infra import backfill_files, policy, prices
    from infra.files import json_schema
    from runner.manifests.manifest import Manifest
    from stacks.settings import Settings

    def schema(model: Any) -> dict[str, Any]:
        return dict(model.model_json_schema())

    return {
        "cluster-file": fields(json_schema(), "Cluster file", CLUSTER),
        "manifest-file": fields(schema(Manifest), "Manifest file", MANIFEST),
        "backfill-file": fields(backfill_files.json_schema(), "Backfill file", BACKFILL),
        "policy-file": fields(policy.json_schema(), "Policy file", POLICY),
        "price-table": fields(prices.json_schema(), "Price table", PRICES),
        "stack-config": fields(schema(Settings), "Stack config", STACK),
    }
