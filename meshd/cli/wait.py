"""`meshd wait`: for scripts that go on when the cluster has come that far."""

from __future__ import annotations

import re
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from meshd.cli.client import Client
from meshd.cli.duration import DURATION
from meshd.cli.output import cell, run_dir_option, span
from meshd.errors import DaemonUnreachable, TimedOut

if TYPE_CHECKING:
    from meshd.cli.client import Json

POLL_INTERVAL_S = 0.5
UNREACHABLE_S = 10.0
"""So long a daemon may be starting; after that its absence is the answer."""
KUBERNETES_PORT = 6443

Missing = Callable[["Json"], str | None]
"""Returns what is still missing, or None when there is nothing left to wait for."""


class Goal(click.ParamType[Missing]):
    """Reads `--for`."""

    name = "goal"

    def convert(
        self, value: str | Missing, param: click.Parameter | None, ctx: click.Context | None
    ) -> Missing:
        if not isinstance(value, str):
            return value
        if value in GOALS:
            return GOALS[value]
        count = re.fullmatch(r"nodes=([1-9]\d*)", value)
        if count is None:
            self.fail(f"{value!r} is none of {', '.join(GOALS)}, nodes=N", param, ctx)
        return _nodes(int(count[1]))


def joined(content: Json) -> str | None:
    """Connected to another node, and its facts have arrived."""
    others = [node for node in content["nodes"] if node["path"] != "self"]
    if any(node["path"] and node["state"] == "alive" and node["node_ip"] for node in others):
        return None
    return content["node"]["waiting_for"] or "no other node of this network is connected"


def formed(content: Json) -> str | None:
    """The cluster is decided for good."""
    if content["genesis"]["phase"] == "formed":
        return None
    why = content["node"]["waiting_for"]
    return f"genesis is {content['genesis']['phase']}" + (f": {why}" if why else "")


def role(content: Json) -> str | None:
    """This node knows what it is."""
    if content["node"]["role"] is not None:
        return None
    return content["node"]["waiting_for"] or "no role is decided for this node"


def vip(content: Json) -> str | None:
    """The virtual address answers on 6443, asked from here."""
    address = (content["vip"] or {}).get("address")
    if not address:
        return "no virtual address is configured (kubevip.eip)"
    try:
        socket.create_connection((address, KUBERNETES_PORT), timeout=2).close()
    except OSError as error:
        why = formed(content) or error.strerror or str(error)
        return f"{address} does not answer on {KUBERNETES_PORT}: {why}"
    return None


def ready(content: Json) -> str | None:
    """Every planned control-plane node and this node are Ready in Kubernetes."""
    if not_formed := formed(content):
        return not_formed
    have, want = content["cluster"]["control_plane_ready"], content["network"]["control_plane"]
    if have < want:
        return f"{have} of {want} control-plane nodes are Ready"
    own = next((node for node in content["nodes"] if node["path"] == "self"), None)
    if content["node"]["role"] != "none" and (own is None or own["k3s"] != "ready"):
        state = own["k3s"] if own else "unknown"
        why = own["waiting_for"] if own else None
        return f"k3s on this node is {state}" + (f": {why}" if why else "")
    return None


def _nodes(count: int) -> Missing:
    def enough(content: Json) -> str | None:
        have = content["cluster"]["nodes_ready"] or 0
        return None if have >= count else f"{have} of {count} nodes are Ready"

    return enough


GOALS: dict[str, Missing] = {
    "joined": joined,
    "formed": formed,
    "role": role,
    "vip": vip,
    "ready": ready,
}


@click.command()
@click.option(
    "--for",
    "missing",
    type=Goal(),
    required=True,
    metavar="joined|formed|role|vip|ready|nodes=N",
    help="What to wait for.",
)
@click.option("--timeout", "timeout_s", type=DURATION, default="5m", show_default=True)
@run_dir_option
def wait(missing: Missing, timeout_s: float, run_dir: Path) -> None:
    """Wait until something is so; exit 5 with what is still missing."""
    client = Client(run_dir)
    started = heard = time.monotonic()
    shown = ""
    while True:
        try:
            why = missing(client.get("/v1/status"))
            heard = time.monotonic()
        except DaemonUnreachable as error:
            if time.monotonic() - heard >= min(UNREACHABLE_S, timeout_s):
                raise
            why = error.what
        if why is None:
            return
        why = cell(why)
        if time.monotonic() - started >= timeout_s:
            raise TimedOut(
                "MESH-7016",
                f"after {span(timeout_s)}: {why}",
                fix="`meshd status` shows more; --timeout waits longer",
            )
        if why != shown:
            print(f"waiting: {why}", file=sys.stderr, flush=True)
            shown = why
        time.sleep(POLL_INTERVAL_S)
