"""Node names for the shell's completion, from the local API, within 200 ms."""

from __future__ import annotations

from pathlib import Path

import click
from click.shell_completion import CompletionItem

from meshd.cli.client import Client
from meshd.errors import MeshdError

BUDGET_S = 0.2


def complete_nodes(
    ctx: click.Context,
    param: click.Parameter,  # noqa: ARG001 - click's signature.
    incomplete: str,
) -> list[CompletionItem]:
    """Return the names of known nodes that begin with `incomplete`; none if no daemon answers."""
    run_dir = ctx.params.get("run_dir") or Path("/run/meshd")
    try:
        content = Client(run_dir, timeout_s=BUDGET_S).get("/v1/status")
    except MeshdError:
        return []
    names = sorted({str(node["name"]) for node in content["nodes"]})
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]
