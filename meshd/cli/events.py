"""`meshd events`: the history that the daemon keeps."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from meshd.cli.client import Client
from meshd.cli.duration import DURATION
from meshd.cli.output import cell, output_option, print_object, run_dir_option
from meshd.errors import DaemonUnreachable

if TYPE_CHECKING:
    from meshd.cli.client import Json


KIND_WIDTH = 14
"""As wide as the longest kind: `voting_resumed`, `cluster_formed`."""


@click.command()
@click.option("-f", "--follow", is_flag=True, help="Go on as things happen.")
@click.option(
    "--since",
    "since_s",
    type=DURATION,
    metavar="10m",
    help="Only those of the last 10m, 1h30m, 90s.",
)
@output_option("table", "json")
@run_dir_option
def events(since_s: float | None, output: str, run_dir: Path, *, follow: bool) -> None:
    """Show what happened on this node, with causes; as JSON lines with -f -o json.

    The daemon keeps the last 10 000 lines, also over restarts, and this shows the newest 1000.
    """
    client = Client(run_dir)
    content = client.get("/v1/events")
    found = content["events"]
    last = found[-1]["number"] if found else 0
    if since_s is not None:
        earliest_ms = (datetime.now(tz=UTC).timestamp() - since_s) * 1000
        found = [event for event in found if event["wall_ms"] >= earliest_ms]
    if output == "json" and not follow:
        print_object({**content, "events": found}, output)
        return
    for event in found:
        click.echo(_line(event, output))
    if not follow:
        return
    sys.stdout.flush()
    for event in client.follow("/v1/events", after=str(last)):
        click.echo(_line(event, output))
        sys.stdout.flush()
    raise DaemonUnreachable(
        "MESH-7019",
        "the daemon ended, and so did its events",
        fix="once it runs again, `meshd events -f --since 10m` goes on",
    )


def _line(event: Json, output: str) -> str:
    """Return an event as one line."""
    if output == "json":
        return json.dumps(event, ensure_ascii=False)
    when = datetime.fromtimestamp(event["wall_ms"] / 1000, tz=UTC).astimezone()
    return f"{when:%Y-%m-%d %H:%M:%S}  {cell(event['kind']):<{KIND_WIDTH}}  {cell(event['text'])}"
