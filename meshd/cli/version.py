"""`meshd version`."""

from __future__ import annotations

import click

import meshd


@click.command()
def version() -> None:
    """Show the version."""
    click.echo(f"meshd {meshd.__version__}")
