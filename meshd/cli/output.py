"""What commands print: tables, JSON, YAML, and colour where a person looks.

Names and messages come from other machines; control characters in them are never printed.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO, TypeVar

import click

if TYPE_CHECKING:
    from meshd.cli.client import Json

F = TypeVar("F", bound=Callable[..., object])

_COLOURS = {"red": 31, "green": 32, "yellow": 33, "bold": 1}
_RULES = {
    **dict.fromkeys(("failed", "halted", "error"), "red"),
    **dict.fromkeys(("suspect", "waiting", "starting", "joining", "warning"), "yellow"),
    **dict.fromkeys(("alive", "ready", "steady", "formed"), "green"),
}


def run_dir_option(command: F) -> F:
    """Give a command `--run-dir`."""
    return click.option(
        "--run-dir",
        metavar="DIR",
        type=click.Path(path_type=Path),
        default=Path("/run/meshd"),
        show_default=True,
        envvar="MESHD_RUN_DIR",
        help="Where the daemon's sockets are.",
    )(command)


def output_option(*kinds: str) -> Callable[[F], F]:
    """Give a command `-o`; the first kind is the default."""
    return click.option(
        "-o",
        "--output",
        type=click.Choice(kinds),
        default=kinds[0],
        show_default=True,
        help="Form of the output.",
    )


def print_object(content: Json, output: str) -> None:
    """Print one object of the API as JSON or YAML."""
    if output == "yaml":
        import yaml

        click.echo(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), nl=False)
    else:
        click.echo(json.dumps(content, indent=2, ensure_ascii=False))


def table(head: Sequence[str], rows: Sequence[Sequence[object]], out: TextIO | None = None) -> str:
    """Return aligned lines; None and empty cells become `-`. State words get their colour."""
    cells = [[cell(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]
    coloured = wants_colour(out or sys.stdout)
    lines = ["  ".join(f"{name:<{width}}" for name, width in zip(head, widths, strict=True))]
    for row in cells:
        padded = (
            paint(f"{value:<{width}}", _RULES.get(value), coloured=coloured)
            for value, width in zip(row, widths, strict=True)
        )
        lines.append("  ".join(padded))
    return "\n".join(line.rstrip() for line in lines)


def cell(value: object) -> str:
    """Return a value as one printable word or sentence; `-` for nothing."""
    if value is None or value == "":
        return "-"
    return "".join(char if char.isprintable() else "?" for char in str(value))


def state_colour(word: str) -> str | None:
    """Return the colour of a state word such as `steady` or `halted-lost-memory`."""
    return _RULES.get(word.partition("-")[0])


def paint(text: str, colour: str | None, *, coloured: bool) -> str:
    """Return `text` in an ANSI colour, or as it is."""
    if not coloured or colour is None:
        return text
    return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m"


def wants_colour(out: TextIO) -> bool:
    """Whether to colour: only on a terminal, and not with NO_COLOR (no-color.org)."""
    return out.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def span(seconds: float) -> str:
    """Return a duration in its two largest units, such as `3h12m` or `41s`."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02}h"
