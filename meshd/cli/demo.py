"""`meshd demo`: hands over to the laboratory, which is a program of its own."""

from __future__ import annotations

import os
import sys

import click


@click.command(
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def demo(arguments: tuple[str, ...]) -> None:
    """Run real daemons in a laboratory on this machine (needs root, leaves nothing behind)."""
    os.execv(  # noqa: S606 - No shell: the arguments stay what they are.
        sys.executable, [sys.executable, "-m", "simulations.lab", *arguments]
    )
