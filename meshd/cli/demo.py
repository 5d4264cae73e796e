"""`meshd demo`: hands over to the laboratory, which is a program of its own."""

from __future__ import annotations

import os
import sys

import click


class Verbatim(click.Command):
    """Takes every argument as it stands, `--` and `--help` included."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.params["arguments"] = tuple(args)
        return []


@click.command(cls=Verbatim, add_help_option=False)
def demo(arguments: tuple[str, ...]) -> None:
    """Run real daemons in a laboratory on this machine (needs root, leaves nothing behind)."""
    os.execv(  # noqa: S606 - No shell: the arguments stay what they are.
        sys.executable, [sys.executable, "-m", "simulations.lab", *arguments]
    )
