"""`meshd wait`: for scripts that go on when the cluster has come that far."""

from __future__ import annotations

import re
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One thing that is waited for; `label` completes "waiting for …"."""

    label: str
    missing: Missing


class Goal(click.ParamType[tuple[Step, ...]]):
    """Reads `--for` into the steps to it, each needing those before; the last is the goal."""

    name = "goal"

    def convert(
        self,
        value: str | tuple[Step, ...],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> tuple[Step, ...]:
        if not isinstance(value, str):
            return value
        if value in GOALS:
            return GOALS[value]
        count = re.fullmatch(r"nodes=([1-9]\d*)", value)
        if count is None:
            self.fail(f"{value!r} is none of {', '.join(GOALS)}, nodes=N", param, ctx)
        nodes = Step(label=f"{count[1]} nodes to be Ready", missing=_nodes(int(count[1])))
        return (*GOALS["formed"], nodes)

    def shell_complete(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's signature.
        param: click.Parameter,  # noqa: ARG002
        incomplete: str,
    ) -> list[CompletionItem]:
        words = (*GOALS, "nodes=")
        return [CompletionItem(word) for word in words if word.startswith(incomplete)]


def connected(content: Json) -> str | None:
    """Another node of this network is connected."""
    if any(_linked(node) for node in content["nodes"]):
        return None
    if content["network"]["nodes_max"] == 1:
        return "this network is of one machine: there is nobody to join"
    why = content["node"]["waiting_for"] or "no other node of this network is connected"
    mesh = [item for item in content["health"] if item["code"].startswith("MESH-31")]
    return why + "".join(f"; {item['message']} [{item['code']}]" for item in mesh)


def met(content: Json) -> str | None:
    """Another node is connected, unless one machine is the whole network."""
    return None if content["network"]["nodes_max"] == 1 else connected(content)


def joined(content: Json) -> str | None:
    """Connected to another node, and everything that it held is here."""
    if missing := connected(content):
        return missing
    if content["ledger"]["synchronised_with"]:
        return None
    names = ", ".join(node["name"] for node in content["nodes"] if _linked(node))
    return f"the exchange of ledgers with {names} is not complete"


def _linked(node: Json) -> bool:
    return bool(node["path"]) and node["path"] != "self" and node["state"] == "alive"


def formed(content: Json) -> str | None:
    """The cluster is decided for good."""
    if content["genesis"]["phase"] == "formed":
        return None
    why = content["node"]["waiting_for"]
    return f"genesis is {content['genesis']['phase']}" + (f": {why}" if why else "")


def planned(content: Json) -> str | None:
    """It is decided who starts the cluster."""
    return None if content["genesis"]["initialiser"] is not None else formed(content)


def role(content: Json) -> str | None:
    """This node knows what it is."""
    if content["node"]["role"] is not None:
        return None
    return content["node"]["waiting_for"] or "no role is decided for this node"


def configured(content: Json) -> str | None:
    """There is a virtual address to wait for."""
    if (content["vip"] or {}).get("address"):
        return None
    return "no virtual address is configured (kubevip.eip)"


def vip(content: Json) -> str | None:
    """The virtual address answers on 6443, asked from here."""
    if missing := configured(content):
        return missing
    address = content["vip"]["address"]
    try:
        socket.create_connection((address, KUBERNETES_PORT), timeout=2).close()
    except OSError as error:
        why = formed(content) or error.strerror or str(error)
        return f"{address} does not answer on {KUBERNETES_PORT}: {why}"
    return None


def control_plane(content: Json) -> str | None:
    """Every planned control-plane node is Ready in Kubernetes."""
    have, want = content["cluster"]["control_plane_ready"], content["network"]["control_plane"]
    return None if have >= want else f"{have} of {want} control-plane nodes are Ready"


def ready(content: Json) -> str | None:
    """The cluster is formed, and its control plane and this node are Ready in Kubernetes."""
    if missing := formed(content) or control_plane(content):
        return missing
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


_MET = Step(label="another node", missing=met)
_PLAN = Step(label="a plan", missing=planned)
_FORMED = Step(label="the cluster to form", missing=formed)
GOALS: dict[str, tuple[Step, ...]] = {
    "joined": (_MET, Step(label="its ledger", missing=joined)),
    "formed": (_MET, _PLAN, _FORMED),
    "role": (_MET, Step(label="this node's role", missing=role)),
    "vip": (
        Step(label="a virtual address in the configuration", missing=configured),
        *(_MET, _PLAN, _FORMED),
        Step(label="the virtual address to answer", missing=vip),
    ),
    "ready": (
        *(_MET, _PLAN, _FORMED),
        Step(label="the control plane to be Ready", missing=control_plane),
        Step(label="this node to be Ready", missing=ready),
    ),
}


class Progress:
    """Tells each step once when it is done, and the first that is not whenever its reason changes.

    The steps stand in the order in which one needs the other, so the first that is not done is the
    diagnosis.
    """

    def __init__(self, started: float) -> None:
        self._started = started
        self._told = ""
        self.done: dict[str, float] = {}  # Seconds after the start, by label.

    def waits(self, label: str, why: str) -> None:
        """Tell what is waited for, unless it was the last thing told."""
        line = f"waiting for {label}: {cell(why)}"
        if line != self._told:
            print(line, file=sys.stderr, flush=True)
            self._told = line

    def passed(self, label: str) -> None:
        """Tell that a step is done, once, if anything was waited for before."""
        if label in self.done:
            return
        self.done[label] = time.monotonic() - self._started
        if self._told:
            print(f"waiting for {label}: OK", file=sys.stderr, flush=True)


@click.command()
@click.option(
    "--for",
    "steps",
    type=Goal(),
    required=True,
    metavar="joined|formed|role|vip|ready|nodes=N",
    help="What to wait for.",
)
@click.option("--timeout", "timeout_s", type=DURATION, default="5m", show_default=True)
@run_dir_option
def wait(steps: tuple[Step, ...], timeout_s: float, run_dir: Path) -> None:
    """Wait until something is so; exit 5 with what is still missing.

    \b
    joined   connected and synchronised with another node
    formed   the cluster is decided for good (DONE)
    role     this node's role is decided
    vip      the virtual address answers on 6443
    ready    all planned control-plane nodes and this node are Ready in Kubernetes
    nodes=N  N nodes are Ready
    """
    client = Client(run_dir)
    started = heard = time.monotonic()
    progress = Progress(started)
    while True:
        label = "the daemon"
        try:
            content = client.get("/v1/status")
            heard = time.monotonic()
        except DaemonUnreachable as error:
            if time.monotonic() - heard >= min(UNREACHABLE_S, timeout_s):
                raise
            why: str | None = error.what
        else:
            progress.passed(label)
            label, why = _first_missing(steps, content, progress)
        if why is None:
            return
        if time.monotonic() - started >= timeout_s:
            raise _timed_out(timeout_s, label, why, progress)
        progress.waits(label, why)
        time.sleep(POLL_INTERVAL_S)


def _first_missing(
    steps: tuple[Step, ...], content: Json, progress: Progress
) -> tuple[str, str | None]:
    """Return the step after the last that is done, and why it is not; no reason at the end.

    Each step needs those before it, so what a later one shows was so once.
    """
    missing = [step.missing(content) for step in steps]
    reached = max((at for at, why in enumerate(missing, start=1) if why is None), default=0)
    for step in steps[:reached]:
        progress.passed(step.label)
    if reached == len(steps):
        return steps[-1].label, None
    return steps[reached].label, missing[reached]


def _timed_out(timeout_s: float, label: str, why: str, progress: Progress) -> TimedOut:
    passed = ", ".join(f"{done} after {span(at)}" for done, at in progress.done.items())
    return TimedOut(
        "MESH-7016",
        f"after {span(timeout_s)}, still waiting for {label}: {cell(why)}",
        cause=f"until then: {passed}" if passed else None,
        fix="`meshd explain join` and `meshd explain genesis` say more; --timeout waits longer",
    )
