"""The three functions of the demo."""

from __future__ import annotations

import ast
import hashlib
from dataclasses import dataclass

from runner import udf


@udf
def filename_len(filename: str) -> int:
    """Length of a file's name."""
    return len(filename)


@udf
def sha256(content: bytes) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


@dataclass
class Names:
    """What a Python file defines at its top level, and the modules it imports anywhere."""

    functions: list[str]
    classes: list[str]
    imports: list[str]


@udf(on_error="skip")
def names(text: str) -> Names:
    """Names that a Python source defines and imports. Files that do not parse are skipped, and stay NULL."""
    tree = ast.parse(text)
    functions = [node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    classes = [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
    imported: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported.add(node.module)
    return Names(functions, classes, sorted(imported))
