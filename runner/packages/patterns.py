"""Patterns as of .gitignore, matched one path at a time as git does: a folder's own match decides whether it is entered.

pathspec turns a pattern into a regular expression that also matches everything below a folder; what git says of one path
follows from where the match ends.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from runner.errors import BadInput

# What pathspec looks for anywhere, as what it means of a whole path.
_SHORT = {"(?P<ps_d>/)": r"^.*(?P<ps_d>/)\Z", "/": r"^[^/]+/"}


class Match(NamedTuple):
    """What the last matching pattern says: `ignored`, or brought back; `label` names the pattern."""

    ignored: bool
    label: str


class _Rule(NamedTuple):
    regex: re.Pattern[str]
    ignores: bool
    label: str
    parts: tuple[str, ...]  # of a pattern that begins at its folder: what it is made of


@dataclass(frozen=True)
class Patterns:
    """The patterns of one file, or of one argument.

    Attributes:
        cut: characters of a path that lie above the patterns' folder.
        above: what a path begins with for patterns of a folder above the root.
    """

    rules: tuple[_Rule, ...]
    any: re.Pattern[str]
    cut: int = 0
    above: str = ""

    def match(self, path: str) -> Match | None:
        """What the patterns say of a path, which ends with ``/`` where it is a folder."""
        path = self.above + path[self.cut :]
        if not self.any.match(path):
            return None
        for rule in self.rules:
            found = rule.regex.match(path)
            if found and _is_whole(found, path):
                return Match(rule.ignores, rule.label)
        return None

    def reach_into(self, folder: str) -> bool:
        """Whether a pattern brings back something below an ignored folder, which it names from its beginning on."""
        parts = folder[self.cut :].rstrip("/").split("/")
        return any(not rule.ignores and _begins_with(rule.parts, parts) for rule in self.rules)


def compiled(lines: Iterable[tuple[str, str]], *, cut: int = 0, above: str = "", strict: bool = False) -> Patterns | None:
    """Patterns from ``(label, line)``; None where no line holds one.

    Args:
        strict: refuse lines that are no pattern; git passes over them.
    """
    rules = [rule for label, line in lines if (rule := _rule(label, line, strict))]
    if not rules:
        return None
    texts = dict.fromkeys(rule.regex.pattern.replace("(?P<ps_d>", "(?:") for rule in rules)
    return Patterns(tuple(reversed(rules)), re.compile("|".join(f"(?:{text})" for text in texts), re.DOTALL), cut, above)


def read_lines(file: Path, name: str) -> list[tuple[str, str]]:
    """The lines of a file of patterns, each labelled with the file's name and its number."""
    try:
        text = file.read_text("utf-8-sig", "surrogateescape")
    except IsADirectoryError:
        return []
    except OSError as exc:
        raise BadInput(f"cannot read {file}: {exc.strerror}") from exc
    return [(f"{name}:{number}", line) for number, line in enumerate(text.split("\n"), 1)]


def _rule(label: str, line: str, strict: bool) -> _Rule | None:
    from pathspec import GitIgnoreSpec

    line = line.removesuffix("\r")
    if line.endswith("/**/"):  # any folder below, which pathspec takes for the folder itself
        line += "*/"
    try:
        patterns = list(GitIgnoreSpec.from_lines([line]).patterns)
    except ValueError as exc:
        if strict:
            raise BadInput(f"{label}: {line!r} is no pattern as of .gitignore: {exc}") from exc
        return None
    regex, ignores = (patterns[0].regex, patterns[0].include) if patterns else (None, None)
    if regex is None or ignores is None:
        return None
    text = _SHORT.get(regex.pattern, regex.pattern)
    text = text.removesuffix("$)") + r"\Z)" if text.endswith("|$)") else text
    return _Rule(re.compile(text, re.DOTALL), ignores, label, _anchored_parts(line))


def _anchored_parts(line: str) -> tuple[str, ...]:
    parts = tuple(line.strip().removeprefix("!").strip("/").split("/"))
    return parts if len(parts) > 1 else ()


def _is_whole(found: re.Match[str], path: str) -> bool:
    """Whether a pattern matched the path itself, and not only a folder that it lies in."""
    if "ps_d" in found.re.groupindex:
        slash = found.start("ps_d")
        return slash in (-1, len(path) - 1)
    return found.end() < len(path) or found.re.pattern == "."


def _begins_with(pattern: Sequence[str], folder: Sequence[str]) -> bool:
    if "**" in pattern[: len(folder)]:
        return True
    return len(pattern) > len(folder) and all(map(fnmatch.fnmatchcase, folder, pattern))
