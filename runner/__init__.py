"""Infill's job runner: computed columns of Lance tables, backfilled on Ray.

>>> import runner
>>> @runner.udf
... def filename_len(filename: str) -> int:
...     return len(filename)
>>> table = runner.connect("data/db").open_table("images")
>>> table.add_columns({"filename_len": filename_len})
>>> table.backfill("filename_len")
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

# Lance warns on each commit that DataReplacement may still change; the version of pylance is pinned, so it says nothing new.
os.environ.setdefault("LANCE_LOG", "warn,lance_table::transaction::manifest_build=error")

if TYPE_CHECKING:
    from runner.backfill.policy import ErrorPolicy
    from runner.connection import Connection, connect
    from runner.context import Context
    from runner.estimate import Estimate
    from runner.estimating import SampleSize
    from runner.exit_mode import ExitMode
    from runner.functions import UDF, udf
    from runner.jobs import Job
    from runner.manifests.builder import GenevaManifest, ManifestFactory
    from runner.manifests.manifest import Manifest
    from runner.model_files import model_files
    from runner.result import BackfillResult
    from runner.table import Table

_HOMES = {
    "BackfillResult": "runner.result",
    "Connection": "runner.connection",
    "Context": "runner.context",
    "ErrorPolicy": "runner.backfill.policy",
    "Estimate": "runner.estimate",
    "ExitMode": "runner.exit_mode",
    "GenevaManifest": "runner.manifests.builder",
    "Job": "runner.jobs",
    "Manifest": "runner.manifests.manifest",
    "ManifestFactory": "runner.manifests.builder",
    "SampleSize": "runner.estimating",
    "Table": "runner.table",
    "UDF": "runner.functions",
    "connect": "runner.connection",
    "model_files": "runner.model_files",
    "udf": "runner.functions",
}

__all__ = [
    "UDF",
    "BackfillResult",
    "Connection",
    "Context",
    "ErrorPolicy",
    "Estimate",
    "ExitMode",
    "GenevaManifest",
    "Job",
    "Manifest",
    "ManifestFactory",
    "SampleSize",
    "Table",
    "connect",
    "model_files",
    "udf",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that ``import runner`` stays quick."""
    if name not in _HOMES:
        raise AttributeError(f"module 'runner' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
