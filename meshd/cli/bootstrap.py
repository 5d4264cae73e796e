"""`meshd bootstrap status`: how far the start of the cluster is, as this node knows it."""

from __future__ import annotations

from pathlib import Path

import click

from meshd.cli.client import Client
from meshd.cli.explain import print_explanation
from meshd.cli.output import output_option, run_dir_option


@click.group()
def bootstrap() -> None:
    """See how the cluster is started."""


@bootstrap.command()
@output_option("text", "json", "yaml")
@run_dir_option
def status(output: str, run_dir: Path) -> None:
    """Show every slot and vote, the lease and earlier generations; `!` marks what is not done."""
    print_explanation(Client(run_dir).get("/v1/explain/genesis"), output)
