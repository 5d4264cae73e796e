"""`meshd config`: what the cloud-config files say, and where; a new one; their schema."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from meshd.cli.output import print_object
from meshd.errors import ConfigError

if TYPE_CHECKING:
    from meshd.config import Finding

F = TypeVar("F", bound=Callable[..., object])


@click.group()
def config() -> None:
    """Check, show and write the configuration."""


@config.command(short_help="Show every error of the files.")
@click.argument("files", nargs=-1, type=click.Path(path_type=Path), metavar="[FILE…]")
@click.option(
    "--format", "form", type=click.Choice(["text", "json", "github"]), default="text",
    show_default=True, help="text: FILE:LINE:COL: message. github: annotations of a workflow.",
)  # fmt: skip
def validate(files: tuple[Path, ...], form: str) -> int:
    """Show every error of FILE… as FILE:LINE:COL: message; exit 6 if there are any.

    The files, folders, or `-` for stdin, are merged in this order, as the daemon would. Without
    FILE: everything that the daemon reads on this machine, kernel command line and environment too.
    """
    from meshd.config.load import MISSING_CODE, STRICT_CODES, read_configuration

    found = read_configuration(files or None, os.environ, files_only=bool(files))
    # Of single files the token may be in another, or in the file that MESHD_TOKEN_FILE names.
    lenient = {MISSING_CODE} if files else set()
    errors = [item for item in found.errors if item.code not in lenient]
    errors += [item for item in found.findings if item.code in STRICT_CODES]
    warnings = [item for item in found.errors if item.code in lenient]
    warnings += [item for item in found.findings if item.code not in STRICT_CODES]
    if form == "json":
        print_object(_report(found.sources.names, errors, warnings), "json")
    elif form == "github":
        for word, items in (("error", errors), ("warning", warnings)):
            for item in items:
                click.echo(_workflow_command(word, item))
    else:
        for item in errors:
            click.echo(f"{item.located} [{item.code}]; {item.fix}")
        for item in warnings:
            click.echo(f"warning: {item.located} [{item.code}]; {item.fix}", err=True)
    if errors:
        return ConfigError.exit_code
    print(f"{', '.join(found.sources.names) or 'nothing was read'}: fine", file=sys.stderr)
    return 0


def _report(
    names: Sequence[str], errors: Sequence[Finding], warnings: Sequence[Finding]
) -> dict[str, object]:
    return {
        "api_version": "meshd/v1",
        "kind": "ConfigValidation",
        "valid": not errors,
        "sources": list(names),
        "errors": [_described(item) for item in errors],
        "warnings": [_described(item) for item in warnings],
    }


def _described(item: Finding) -> dict[str, object]:
    origin = item.origin
    in_file = origin is not None and origin.path is not None
    return {
        "code": item.code,
        "origin": None if origin is None else origin.place,
        "file": str(origin.path) if origin is not None and in_file else None,
        "line": origin.line if origin is not None and in_file else None,
        "column": origin.column if origin is not None and in_file else None,
        "message": item.message,
        "fix": item.fix,
    }


def _workflow_command(word: str, item: Finding) -> str:
    """Return a line that GitHub shows beside the place (docs.github.com, workflow commands)."""
    place = ""
    if item.origin is not None and item.origin.path is not None:
        file = _escaped(str(item.origin.path)).replace(":", "%3A").replace(",", "%2C")
        place = f"file={file},line={item.origin.line},col={item.origin.column},"
    return f"::{word} {place}title={item.code}::{_escaped(f'{item.message}; {item.fix}')}"


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _config_option(command: F) -> F:
    return click.option(
        "--config",
        "paths",
        metavar="PATH",
        multiple=True,
        type=click.Path(path_type=Path),
        help="Cloud-config file or folder; may be repeated. Replaces the default folders.",
    )(command)


@config.command(short_help="Show the merged configuration, without secrets.")
@_config_option
@click.option("--origin", is_flag=True, help="Say where every value is from, built-in ones too.")
def show(paths: tuple[Path, ...], *, origin: bool) -> int:
    """Show the merged configuration, meshd's sections only, without secrets."""
    import yaml

    from meshd.config.load import read_configuration
    from meshd.config.redact import built_in, flat, redacted
    from meshd.config.tree import plain

    found = read_configuration(paths or None, os.environ)
    for name in found.sources.names or ("nothing was read",):
        click.echo(f"# {name}")
    content = redacted(found.sources.content)
    if origin:
        for path, value, place in (*flat(content), *built_in(found.checked)):
            click.echo(f"{path}: {value}  # {place}")
    elif content.entries:
        click.echo(yaml.safe_dump(plain(content), sort_keys=False, allow_unicode=True), nl=False)
    for item in found.errors:
        click.echo(f"{item.located} [{item.code}]; {item.fix}", err=True)
    return ConfigError.exit_code if found.errors else 0


@config.command(short_help="Print the JSON Schema of the files.")
def schema() -> None:
    """Print the JSON Schema of the files, for editors and other checkers."""
    from meshd.config.json_schema import json_schema

    click.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))


@config.command()
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE|-")
@click.option(
    "--token-file", metavar="FILE|-",
    help="Take the token from here.  [default: a new one]",
)  # fmt: skip
@click.option("--control-plane", type=int, help="Control-plane machines.  [default: 3]")
@click.option(
    "--nodes", type=int, metavar="N",
    help="The most machines that will ever get this token with the right to vote.  "
    "[default: 2 x control plane - 1; for a control plane of 1 it must be given]",
)  # fmt: skip
@click.option("--vip", metavar="ADDRESS", help="A free address for the control plane.")
def init(
    file: Path,
    token_file: str | None,
    control_plane: int | None,
    nodes: int | None,
    vip: str | None,
) -> None:
    """Write a cloud-config that is ready to use to FILE, or to stdout.

    FILE has a token in it: mode 0600. A file that exists is not overwritten.
    """
    from meshd.cli.token import given_token
    from meshd.config.draft import draft, write_draft

    given = None if token_file is None else given_token(token_file)
    text = draft(
        token=given, control_plane=control_plane, nodes_max=nodes, vip=vip,
        random_bytes=os.urandom,
    )  # fmt: skip
    if file == Path("-"):
        click.echo(text, nl=False)
        return
    beside = write_draft(text, file)
    click.echo(
        f"{file} (0600: it holds the token) and {beside} (for editors). Copy {file.name} to "
        f"/etc/meshd/config.d/ or /oem/ on every machine. Check: meshd config validate {file}",
        err=True,
    )
