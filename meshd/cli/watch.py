"""`meshd status --watch`: the picture again on a terminal, what changed in lines elsewhere.

Figures that never rest - uptime, round trips, ages - are no change.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING

import click

from meshd.cli.output import cell, print_object
from meshd.errors import DaemonUnreachable

if TYPE_CHECKING:
    from meshd.cli.client import Json

WATCH_INTERVAL_S = 1.0

Read = Callable[[], "Json"]
Show = Callable[["Json"], str]


def watch(read: Read, show: Show, output: str) -> None:
    """Go on until Ctrl-C; a daemon that was there once is waited for.

    Raises:
        DaemonUnreachable: there was none at the beginning.
    """
    before: Json | None = None
    silent = False
    while True:
        try:
            content = read()
        except DaemonUnreachable as error:
            if before is None:
                raise
            if not silent:
                print(f"waiting: {error.what}", file=sys.stderr, flush=True)
            silent = True
        else:
            silent = False
            _print(before, content, show, output)
            sys.stdout.flush()
            before = content
        time.sleep(WATCH_INTERVAL_S)


def _print(before: Json | None, after: Json, show: Show, output: str) -> None:
    if output in {"table", "wide"}:
        _print_table(before, after, show)
    elif before is None or _lasting(before) != _lasting(after):
        if output == "json":
            click.echo(json.dumps(after, ensure_ascii=False))
        else:
            click.echo("---")
            print_object(after, output)


def _print_table(before: Json | None, after: Json, show: Show) -> None:
    if sys.stdout.isatty():
        # Line by line over the last picture, so that nothing flickers.
        lines = "".join(f"{line}\x1b[K\n" for line in show(after).splitlines())
        click.echo(f"\x1b[H{'' if before else chr(27) + '[2J'}{lines}\x1b[J", nl=False, color=True)
    elif before is None:
        click.echo(show(after))
    else:
        for line in changes(before, after):
            click.echo(line)


def changes(before: Json, after: Json) -> list[str]:
    """Return a line for each thing that changed, with the time of the newer answer."""
    old, new = _facts(before), _facts(after)
    when = datetime.fromtimestamp(after["at_ms"] / 1000).astimezone()
    lines = []
    for what in (*new, *(gone for gone in old if gone not in new)):
        was, now = old.get(what), new.get(what)
        if was != now:
            lines.append(f"{when:%Y-%m-%d %H:%M:%S}  {cell(what)}: {cell(was)} -> {cell(now)}")
    return lines


def _facts(content: Json) -> dict[str, object]:
    """Return what a person would call a change, by its name."""
    node, genesis, cluster = content["node"], content["genesis"], content["cluster"]
    facts: dict[str, object] = {
        "role": node["role"],
        "phase": node["phase"],
        "waiting for": node["waiting_for"],
        "genesis": genesis["phase"],
        "generation": genesis["generation"],
        "endpoint": cluster["endpoint"],
        "control plane ready": cluster["control_plane_ready"],
        "nodes ready": cluster["nodes_ready"],
        "vip held by": content["vip"]["holder"],
    }
    for one in content["nodes"]:
        name = one["name"]
        facts |= {f"{name} {key}": one[key] for key in ("role", "state", "path", "node_ip", "k3s")}
    for item in content["health"]:
        facts[f"{item['severity']}[{item['code']}] {item['message']}"] = "so"
    for entry in content.get("ledger_entries", ()):
        facts[f"entry {entry['key']} by {entry['name']}, seq"] = entry["seq"]
    return facts


def _lasting(content: Json) -> Json:
    """Return an answer without the figures that never rest."""
    still = {name: value for name, value in content.items() if name != "at_ms"}
    still["node"] = {**content["node"], "uptime_s": None}
    still["nodes"] = [{**node, "rtt_ms": None} for node in content["nodes"]]
    if "ledger_entries" in content:
        still["ledger_entries"] = [{**one, "age_s": None} for one in content["ledger_entries"]]
    return still
