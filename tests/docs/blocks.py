"""The code blocks of a Markdown file.

A block is checked by what its info string says: the language, and ``title="..."``, the file that it is. One that cannot be has a
comment before it with the reason: ``<!-- not run: ... -->``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]

_EXCUSE = re.compile(r"<!-- not run: (.+?) -->\s*")
_TITLE = re.compile(r'\btitle="([^"]+)"')


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        line: of its first line of text, from 1.
        title: the file that it is, relative to the folder that the page's commands run in.
        excuse: why it is not checked.
    """

    line: int
    language: str
    title: str | None
    text: str
    excuse: str | None


def blocks_of(text: str) -> list[Block]:
    """All blocks of a page, in order; an indented one has the language ``""``."""
    tokens = MarkdownIt("commonmark").parse(text)
    return [_block(token, before) for before, token in zip([None, *tokens], tokens, strict=False) if _is_code(token)]


def commands_in_text(text: str) -> list[str]:
    """The command lines that prose names: ``python -m runner ...`` in backticks, where it is no pattern of one."""
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    inline = [child.content for token in tokens for child in token.children or () if child.type == "code_inline"]
    return [code for code in inline if re.match(r"(python -m runner|infill) \w", code) and not re.search(r"\.\.\.|\w\|\w", code)]


def _is_code(token: Token) -> bool:
    return token.type in ("fence", "code_block")


def _block(token: Token, before: Token | None) -> Block:
    language, _, rest = token.info.strip().partition(" ")
    title = _TITLE.search(rest)
    excuse = _EXCUSE.fullmatch(before.content) if before is not None and before.type == "html_block" else None
    assert token.map is not None
    return Block(token.map[0] + 2, language, title and title[1], token.content, excuse and excuse[1])
