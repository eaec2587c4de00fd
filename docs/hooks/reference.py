"""Reference pages that are made from what the code says of itself: the command line, and the schemas of files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Schema = Mapping[str, Any]


# The command line


def command_line() -> str:
    """A page with every command of `infill`: usage, arguments, options with their defaults."""
    import typer

    from runner.cli import app

    root = typer.main.get_command(app)
    intro, _, codes = (root.help or "").partition("\n")
    head = f"""# Command line

`infill` and `python -m runner` are the same. {intro.strip()} This page is made from the program itself; `--help` prints the same.

{codes.strip()}
"""
    return "\n".join([head, *_commands(root, ())])


def _commands(group: Any, path: tuple[str, ...]) -> Iterator[str]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield f"\n## {name}\n\n{_text(command.help)}\n"
            yield from _commands(command, (*path, name))
        else:
            yield from _command(command, (*path, name))


def _command(command: Any, path: tuple[str, ...]) -> Iterator[str]:
    import typer

    context = typer.Context(command)
    given = sorted(command.params, key=lambda param: param.param_type_name != "argument")
    usage = " ".join(["infill", *path, *(_shown(param, context) for param in given if param.required)])
    optional = "" if all(param.required for param in given) else " [OPTIONS]"
    yield f"\n{'#' * (len(path) + 1)} {' '.join(path)}\n\n{_text(command.help)}\n"
    yield f"```text\n{usage}{optional}\n```\n"
    if given:
        yield "| argument or option | default | meaning |\n| --- | --- | --- |"
        yield from (f"| `{_shown(param, context)}` | {_default(param)} | {_escaped(_text(param.help))} |" for param in given)
        yield ""


def _shown(param: Any, context: Any) -> str:
    """An argument's metavar, or an option with its value's."""
    if param.param_type_name == "argument":
        return str(param.metavar or param.name.upper())
    return param.opts[0] if param.is_flag else f"{param.opts[0]} {param.metavar or param.display_type(context)}"


def _default(param: Any) -> str:
    if param.required:
        return "required"
    value = getattr(param.default, "value", param.default)
    return "" if value in (None, False, ()) or callable(value) else f"`{value}`"


# Schemas


def fields(schema: Schema, title: str, intro: str) -> str:
    """A page with a table of fields for each object of a JSON Schema, those of the file first.

    Args:
        schema: of an object, or of any of several (``anyOf``).
        intro: what the file is.
    """
    named = dict(schema.get("$defs", {}))
    roots = [_reference(one) or "" for one in schema.get("anyOf", [])]
    parts = [f"# {title}\n\n{intro}\n"]
    if not roots:
        parts.append(_table(schema))
    for name in [*roots, *sorted(set(named) - set(roots))]:
        parts.append(f"## {name}\n\n{_text(named[name].get('description', ''))}\n\n{_table(named[name])}")
    return "\n".join(parts)


def _table(schema: Schema) -> str:
    if "enum" in schema:
        return "One of " + ", ".join(f"`{value}`" for value in schema["enum"]) + ".\n"
    rows = ["| field | type | default | meaning |", "| --- | --- | --- | --- |"]
    for name, field in schema.get("properties", {}).items():
        default = "required" if name in schema.get("required", ()) else _literal(field.get("default"))
        rows.append(f"| `{name}` | {_type(field)} | {default} | {_escaped(_text(field.get('description', '')))} |")
    return "\n".join(rows) + "\n"


def _type(field: Schema) -> str:
    if name := _reference(field):
        return f"[{name}](#{name.lower()})"
    if "anyOf" in field:
        return " or ".join(dict.fromkeys(_type(one) for one in field["anyOf"] if one.get("type") != "null"))
    if "const" in field or "enum" in field:
        return ", ".join(f"`{value}`" for value in field.get("enum", [field.get("const")]))
    kind = field.get("type", "anything")
    if kind == "array":
        return f"list of {_type(field.get('items', {}))}"
    if kind == "object":
        values = field.get("additionalProperties")
        return f"mapping to {_type(values)}" if isinstance(values, Mapping) else "mapping"
    return " or ".join(kind) if isinstance(kind, list) else kind


def _reference(field: Schema) -> str | None:
    return field["$ref"].rpartition("/")[2] if "$ref" in field else None


def _literal(value: Any) -> str:
    if value is None:
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _text(text: str | None) -> str:
    """A docstring or help text, each paragraph on a line of its own; `::`-like double backticks as Markdown has them."""
    paragraphs = (text or "").replace("``", "`").strip().split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("\n\n", " ")
