"""`meshd config validate` and `show`: what the cloud-config files say, and where."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from meshd.errors import ConfigError


@click.group()
def config() -> None:
    """Check and show the configuration."""


@config.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE…")
def validate(files: tuple[Path, ...]) -> int:
    """Show every error of FILE…, which are merged in this order, as FILE:LINE:COL: message."""
    from meshd.config.load import MISSING_CODE, STRICT_CODES, located, read_configuration

    try:
        configuration = read_configuration(files, os.environ)
    except ConfigError as error:
        if error.code != MISSING_CODE:
            click.echo(f"{error.what} [{error.code}]; {error.fix}")
            return ConfigError.exit_code
        click.echo(f"warning: {error.what} [{error.code}]", err=True)
        return 0
    wrong = [item for item in configuration.findings if item.code in STRICT_CODES]
    for item in (*configuration.errors, *wrong):
        click.echo(f"{located(item)} [{item.code}]; {item.fix}")
    for item in configuration.findings:
        if item not in wrong:
            click.echo(f"warning: {located(item)} [{item.code}]; {item.fix}", err=True)
    if configuration.errors or wrong:
        return ConfigError.exit_code
    print(f"{', '.join(map(str, files))}: fine", file=sys.stderr)
    return 0


@config.command()
@click.option(
    "--config", "paths", metavar="PATH", multiple=True, type=click.Path(path_type=Path),
    help="Cloud-config file or folder; replaces the default folders.",
)  # fmt: skip
@click.option("--origin", is_flag=True, help="Say for every value which file and line it is from.")
def show(paths: tuple[Path, ...], *, origin: bool) -> None:
    """Show the merged configuration, meshd's sections only, without secrets."""
    import yaml

    from meshd.config.redact import flat, redacted
    from meshd.config.sources import read_sources
    from meshd.config.tree import plain

    sources = read_sources(paths or None)
    for file in sources.files:
        click.echo(f"# {file}")
    content = redacted(sources.content)
    if origin:
        for path, value, place in flat(content):
            click.echo(f"{path}: {value}  # {place}")
    elif content.entries:
        click.echo(yaml.safe_dump(plain(content), sort_keys=False, allow_unicode=True), nl=False)
