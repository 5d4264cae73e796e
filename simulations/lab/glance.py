"""All nodes at a glance: what each daemon says, and what is on each node's interface."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

from meshd.cli.client import TIMEOUT_S, Client
from meshd.errors import MeshdError
from simulations.lab import network
from simulations.lab.inside import init_of, run_dir
from simulations.lab.laboratory import Laboratory
from simulations.lab.places import NodePlaces

Json = dict[str, Any]
State = Literal["up", "down", "silent"]

_ASKED_AT_ONCE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Glance:
    """One node.

    Args:
        state: `silent` is a node that runs and whose daemon does not answer.
        has_vip: whether the VIP is on its interface, whatever anybody says.
        side: of the last cut; 0 is where all begin.
        status: the daemon's Status object.
        problem: why there is none.
    """

    name: str
    address: str
    state: State
    has_vip: bool
    side: int
    status: Json | None
    problem: str | None

    @property
    def sees(self) -> frozenset[str]:
        """Return the names of the machines that this one sees alive, itself included."""
        nodes = self.status["nodes"] if self.status is not None else []
        return frozenset(machine_of(node["name"]) for node in nodes if node["state"] == "alive")


def machine_of(name: str) -> str:
    """Return the laboratory's name of a node, which has a suffix once a machine was wiped.

    Its old identity and the new one have the same host name, so their nodes are told apart.
    """
    return name.partition("-")[0]


def look(laboratory: Laboratory, *, timeout_s: float = TIMEOUT_S) -> tuple[Glance, ...]:
    """Ask all nodes at once, and wait so long for each."""
    sides = {node.name: node.side for node in laboratory.known.nodes}
    vip = laboratory.known.vip

    def one(node: NodePlaces) -> Glance:
        return _glance(node, side=sides[node.name], vip=vip, timeout_s=timeout_s)

    with ThreadPoolExecutor(max_workers=_ASKED_AT_ONCE) as pool:
        return tuple(pool.map(one, laboratory.nodes()))


def _glance(node: NodePlaces, *, side: int, vip: str | None, timeout_s: float) -> Glance:
    init = init_of(node)
    status, problem = None, None
    state: State = "down"
    if init is not None:
        try:
            status, state = Client(run_dir(init), timeout_s=timeout_s).get("/v1/status"), "up"
        except MeshdError:
            problem, state = last_error(node) or "its daemon does not answer yet", "silent"
    return Glance(
        name=node.name,
        address=node.address,
        state=state,
        has_vip=init is not None and vip is not None and vip in network.addresses(node),
        side=side,
        status=status,
        problem=problem,
    )


def last_error(node: NodePlaces) -> str | None:
    """Return what the daemon printed when it ended with an error, as one line; None if nothing."""
    lines = tail(node, 40)
    starts = [number for number, line in enumerate(lines) if line.startswith("error[")]
    if not starts:
        return None
    return " ".join(line.strip() for line in lines[starts[-1] : starts[-1] + 3])


def tail(node: NodePlaces, lines_max: int) -> list[str]:
    """Return the last lines of a node's log."""
    try:
        text = node.log.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    return text.splitlines()[-lines_max:]


def as_json(laboratory: Laboratory, glances: Sequence[Glance]) -> Json:
    """Return the object of `meshd demo status -o json`."""
    return {
        "api_version": "meshd/v1",
        "kind": "LabStatus",
        "lab": laboratory.places.lab,
        "k3s": {"version": laboratory.known.k3s_version, "standin": laboratory.known.standin},
        "vip": laboratory.known.vip,
        "nodes": [
            {
                "name": one.name,
                "address": one.address,
                "state": one.state,
                "has_vip": one.has_vip,
                "side": one.side,
                "problem": one.problem,
                "status": one.status,
            }
            for one in glances
        ],
    }


def as_table(laboratory: Laboratory, glances: Sequence[Glance]) -> str:
    """Return a line for each node, for people."""
    running = sum(one.state != "down" for one in glances)
    rows: list[tuple[str, ...]] = [
        ("NODE", "STATE", "ADDRESS", "ROLE", "PHASE", "K3S", "VIP", "SEES", "WAITING FOR")
    ]
    rows += [_row(one, running) for one in glances]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    lines = [f"laboratory {laboratory.places.lab}, k3s: {laboratory.known.k3s_version}"]
    for row in rows:
        padded = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        lines.append("  ".join([*padded, row[-1]]).rstrip())
    return "\n".join(lines)


def _row(one: Glance, running: int) -> tuple[str, ...]:
    vip = "here" if one.has_vip else "-"
    state = one.state if one.side == 0 or one.state == "down" else f"{one.state}, cut off"
    if one.status is None:
        return (one.name, state, one.address, "-", "-", "-", vip, "-", one.problem or "")
    own = one.status["node"]
    k3s = next((node["k3s"] for node in one.status["nodes"] if node["id"] == own["id"]), "-")
    role = own["role"] or "undecided"
    return (
        one.name,
        state,
        one.address,
        f"{role}, first" if own["initialiser"] else role,
        own["phase"],
        k3s,
        vip,
        f"{len(one.sees)}/{running}",
        own["waiting_for"] or "",
    )
