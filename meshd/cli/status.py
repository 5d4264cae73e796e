"""`meshd status`: the cluster as this node sees it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from meshd.cli.client import Client
from meshd.cli.output import (
    cell,
    output_option,
    paint,
    print_object,
    run_dir_option,
    span,
    state_colour,
    table,
    wants_colour,
)

if TYPE_CHECKING:
    from meshd.cli.client import Json


@click.command()
@output_option("table", "wide", "json", "yaml")
@click.option("-w", "--watch", is_flag=True, help="Show it again whenever it changes.")
@click.option("--ledger", "with_ledger", is_flag=True, help="List the ledger's entries, too.")
@run_dir_option
def status(output: str, run_dir: Path, *, watch: bool, with_ledger: bool) -> int:
    """Show the cluster as this node sees it.

    Exits 0 exactly when the cluster is formed and no health item is an error.
    """
    client = Client(run_dir)
    if watch:
        from meshd.cli.watch import watch as watch_status

        watch_status(
            lambda: _read(client, with_ledger=with_ledger),
            lambda content: _shown(content, output),
            output,
        )
    content = _read(client, with_ledger=with_ledger)
    if output in {"table", "wide"}:
        click.echo(_shown(content, output))
    else:
        print_object(content, output)
    return 0 if is_healthy(content) else 1


def is_healthy(content: Json) -> bool:
    """Whether the cluster is formed and nothing is an error."""
    formed: bool = content["genesis"]["phase"] == "formed"
    return formed and all(item["severity"] != "error" for item in content["health"])


def _read(client: Client, *, with_ledger: bool) -> Json:
    content = client.get("/v1/status")
    if with_ledger:
        content["ledger_entries"] = client.get("/v1/ledger")["entries"]
    return content


def _shown(content: Json, output: str) -> str:
    """Return the whole picture as text: what matters first, trouble last."""
    parts = [_summary(content), _nodes(content, wide=output == "wide")]
    if "ledger_entries" in content:
        from meshd.cli.ledger import entries_table

        parts.append(entries_table(content["ledger_entries"], wide=output == "wide"))
    if content["health"]:
        parts.append(_health(content))
    return "\n\n".join(parts)


def _summary(content: Json) -> str:
    network, node, cluster = content["network"], content["node"], content["cluster"]
    lines = [
        ("network", f"{cell(network['id'])}   {_bounds(network)}"),
        ("node", _node(node)),
        ("phase", _phases(content)),
    ]
    if node["waiting_for"]:
        lines.append(("waiting", cell(node["waiting_for"])))
    ready = f"control plane {cluster['control_plane_ready']}/{network['control_plane']} ready"
    if cluster["nodes_ready"] is not None:
        ready += f", {cluster['nodes_ready']} nodes ready"
    endpoint = cell(cluster["endpoint"]) if cluster["endpoint"] else "no endpoint yet"
    k3s = f"   {cell(cluster['k3s_version'])}" if cluster.get("k3s_version") else ""
    lines.append(("cluster", f"{endpoint}   {ready}{k3s}"))
    lines.append(("vip", _vip(content["vip"])))
    ledger = content["ledger"]
    rejected = f"   {ledger['rejected']} rejected" if ledger["rejected"] else ""
    lines.append(
        (
            "ledger",
            f"{ledger['entries']} entries   root {cell(ledger['root'])[:12]}{rejected}",
        )
    )
    return "\n".join(f"{name:<9}{text}" for name, text in lines)


def _bounds(network: Json) -> str:
    if network["nodes_max"] is None:
        known = f"{network['quorum']} must agree, more if more voters become known"
        return f"{known}   {cell(network['bound'])}: best effort (docs/genesis.md)"
    most = f"up to {network['nodes_max']} machines vote, {network['quorum']} must agree"
    return f"{most}   {cell(network['bound'])}"


def _node(node: Json) -> str:
    role = cell(node["role"]) if node["role"] else "role undecided"
    initialiser = " (initialiser)" if node.get("initialiser") else ""
    return f"{cell(node['name'])}   {role}{initialiser}   up {span(node['uptime_s'])}"


def _phases(content: Json) -> str:
    coloured = wants_colour(sys.stdout)
    phase, genesis = cell(content["node"]["phase"]), cell(content["genesis"]["phase"])
    shown = paint(phase, state_colour(phase), coloured=coloured)
    decided = paint(genesis, state_colour(genesis), coloured=coloured)
    return f"{shown}   genesis {decided}, generation {content['genesis']['generation']}"


def _vip(vip: Json | None) -> str:
    if not vip or not vip["address"]:
        return "none configured"
    if vip["holder"]:
        return f"{cell(vip['address'])} held by {cell(vip['holder'])}"
    return f"{cell(vip['address'])} held by nobody yet"


def _nodes(content: Json, *, wide: bool) -> str:
    head = ["NODE", "ROLE", "STATE", "PATH", "RTT", "IP", "K3S"]
    if wide:
        head += ["ID", "WAITING FOR"]
    rows = []
    for node in sorted(content["nodes"], key=lambda node: (node["name"], node["id"])):
        mark = " *" if node["path"] == "self" else ""
        path = f"relay {node['relay']}" if node["path"] == "relay" else node["path"]
        rtt = None if node["rtt_ms"] is None else f"{node['rtt_ms']:.1f}ms"
        row = [f"{node['name']}{mark}", node["role"], node["state"], path, rtt]
        gone = node["state"] in ("failed", "left")  # What it said last may be true no more.
        row += [node["node_ip"], f"was {node['k3s']}" if gone else node["k3s"]]
        rows.append([*row, node["id"], node["waiting_for"]] if wide else row)
    return table(head, rows)


def _health(content: Json) -> str:
    coloured = wants_colour(sys.stdout)
    lines = []
    for item in content["health"]:
        severity = cell(item["severity"])
        label = paint(severity, state_colour(severity), coloured=coloured)
        lines.append(f"# {label}[{cell(item['code'])}]: {cell(item['message'])}")
        lines.append(f"#   fix: {cell(item['fix'])}")
    return "\n".join(lines)
