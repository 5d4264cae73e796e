"""`meshd bootstrap`: how far the start of the cluster is, and the last resort after it."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import click

from meshd.cli.client import Client, Json
from meshd.cli.explain import print_explanation
from meshd.cli.output import output_option, run_dir_option, span
from meshd.errors import MeshdError, UsageError

_LOOK_S = 0.5
_READING_S = 600.0
_PATH = "/v1/bootstrap/reset"
_NO_VIP = (
    "nobody will reach it. It is the cluster's for good: put that subnet on the servers' cards "
    "again, or reach the API server at a server's own address"
)
_STAGES = {
    "asked": "k3s is being stopped",
    "stopped": "the database is being copied aside",
    "copied": "the copy is complete",
    "running": "k3s resets etcd's membership",
    "reset": "the membership is reset; k3s starts, and the Nodes of the dead are removed",
    "undoing": "it failed: the copy is being put back",
}


@click.group()
def bootstrap() -> None:
    """See how the cluster is started, and what was done when its servers were lost."""


@bootstrap.command(short_help="Show every slot and vote of the start.")
@output_option("text", "json", "yaml")
@run_dir_option
def status(output: str, run_dir: Path) -> None:
    """Show every slot and vote, the lease and earlier generations; `!` marks what is not done."""
    print_explanation(Client(run_dir).get("/v1/explain/genesis"), output)


@bootstrap.command(short_help="Make this server's database the only one: the last resort.")
@click.option(
    "--confirm-dead",
    "dead",
    metavar="NODE",
    multiple=True,
    help="A server that never runs again as it was; once for each that is not heard.",
)
@click.option(
    "--readdress",
    is_flag=True,
    help="The servers' addresses changed for good: those that are heard go on at their new ones.",
)
@click.option(
    "--from-snapshot",
    "snapshot",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Take the database from a k3s etcd snapshot on this machine: when no disk has one of use.",
)
@click.option("--cluster-id", metavar="ID", help="In place of typing it at the prompt.")
@click.option("--dry-run", is_flag=True, help="Show what would be done, or why it may not be.")
@run_dir_option
def reset(
    dead: tuple[str, ...],
    snapshot: Path | None,
    cluster_id: str | None,
    run_dir: Path,
    *,
    readdress: bool,
    dry_run: bool,
) -> None:
    """Make this server's database the only one, after etcd's majority is lost for good.

    The last resort: what only the dead servers had written is lost, and their seats are given up.
    Run it as root on one survivor. Nothing is done before the cluster's id is typed.
    """
    client = Client(run_dir)
    wanted: Json = {
        "confirm_dead": list(dead),
        "by": _who(),
        "readdress": readdress,
        "snapshot": None if snapshot is None else str(snapshot.absolute()),
    }
    # A snapshot is read whole before anything is done.
    timeout_s = None if snapshot is None else _READING_S
    shown = client.post(_PATH, wanted, timeout_s=timeout_s)
    _show(shown, snapshot)
    if dry_run:
        return
    if cluster_id is None:
        if not sys.stdin.isatty():
            raise UsageError(
                "MESH-4032",
                "the cluster's id must be typed, and this is no terminal",
                fix="give it as --cluster-id; `meshd bootstrap status` shows which it is",
            )
        cluster_id = click.prompt("\nType the cluster's id to go on", err=True)
    client.post(_PATH, wanted | {"cluster_id": str(cluster_id).strip()}, timeout_s=timeout_s)
    _follow(client)


def _who() -> str:
    return os.environ.get("SUDO_USER") or os.environ.get("LOGNAME") or "root"


def _show(shown: Json, snapshot: Path | None) -> None:
    size, written = shown["database_bytes"] / (1 << 20), span(shown["database_written_s_ago"])
    rejoin, dead = shown["rejoin"], shown["dead"]
    click.echo(f"reset of etcd's membership on {shown['node']}, cluster {shown['cluster_id']}:")
    if snapshot is None:
        told = f"{size:.1f} MiB, last written {written} ago; a copy of it is kept"
    else:
        told = f"restored from {snapshot.name} ({size:.1f} MiB), written {written} ago: what was "
        told += "written since is lost; a copy of what lies on the disk is kept"
    click.echo(f"  database     {told}")
    click.echo(f"  heard        {_listed(shown['alive'])}")
    click.echo(
        f"  given up     {_listed(dead)}" + (": what only they had written is lost" if dead else "")
    )
    if rejoin:
        click.echo(f"  joins again  {_listed(rejoin)}: the database there is set aside")
    _show_addresses(shown)
    servers = [shown["node"], *rejoin]
    few = "; it can lose none" if len(servers) < 3 else ""
    click.echo(f"  afterwards   control plane {_listed(servers)}{few}")


def _show_addresses(shown: Json) -> None:
    """Show all of them if one changes: one that wrongly stays must be seen before it is decided."""
    if all(was == now for _, was, now in shown["addresses"]):
        return
    for name, was, now in shown["addresses"]:
        told = f"{was}, as before" if was == now else f"{was} before, {now} from now on"
        click.echo(f"  address      {name}: {told}")
    if shown["vip_problem"] is not None:
        click.echo(f"  WARNING      {shown['vip_problem']} of the cluster: {_NO_VIP}")


def _listed(names: list[str]) -> str:
    return ", ".join(names) or "nobody"


def _follow(client: Client) -> None:
    """Show how far it is until it is over; it goes on without us."""
    told = ""
    while True:
        progress = client.get(_PATH)
        stage = progress["stage"]
        if stage is None:
            break
        if stage != told:
            click.echo(f"  {_STAGES.get(stage, stage)}")
            told = stage
        time.sleep(_LOOK_S)
    last = progress["last"]
    if last["outcome"] == "overtaken":
        raise MeshdError(
            "MESH-4028",
            f"this reset holds no more: {last['why']}",
            fix="`meshd bootstrap status` shows which one does; this node joins it by itself",
        )
    if last["outcome"] != "done":
        raise MeshdError(
            "MESH-4028",
            f"etcd's membership was not reset: {last['why']}",
            fix="k3s runs on with the database as it was; mend what is named and try again",
        )
    click.echo(f"done: epoch {last['epoch']}; `meshd status` shows who is back")
