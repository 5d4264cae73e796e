"""The verbs of `meshd demo`."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from dataclasses import replace
from pathlib import Path

import click

from meshd.errors import MeshdError, UsageError
from simulations.lab import bench as measurements
from simulations.lab import chaos as faults
from simulations.lab import formation, glance, inside, laboratory, tour
from simulations.lab.laboratory import Laboratory, Wanted
from simulations.lab.places import Places
from simulations.lab.progress import Checklist
from simulations.lab.recorder import audit as audit_clusters
from simulations.lab.recorder import resets

INTERRUPTED = 130


def _places(default: str = "demo") -> Places:
    """Return the places of the laboratory that MESHD_LAB names."""
    lab = os.environ.get("MESHD_LAB", default)
    if not re.fullmatch(r"[a-z0-9]{1,16}", lab):
        raise UsageError(
            "MESH-8016",
            f"MESHD_LAB={lab!r} is no name for a laboratory",
            fix="1 to 16 small letters and digits",
        )
    return Places(lab)


def _shape(command: click.Command) -> click.Command:
    """Give a command the options of a laboratory's shape."""
    for option in (
        click.Option(["--nodes"], type=int, default=5, show_default=True, help="Machines."),
        click.Option(
            ["--control-plane"], type=int, default=3, show_default=True, help="Of them servers."
        ),
        click.Option(
            ["--k3s"], type=click.Path(path_type=Path), metavar="PATH", envvar="MESHD_K3S_BIN",
            help="A real k3s in place of the stand-in.",
        ),
        click.Option(
            ["--images"], type=click.Path(path_type=Path), metavar="DIR",
            envvar="MESHD_K3S_IMAGES",
            help="Image archives for it: a pause image, kube-vip. Default: images/ beside it.",
        ),
        click.Option(["--nat"], type=int, metavar="K", help="Machines behind NAT (not built yet)."),
        click.Option(
            ["--exec", "programs"], is_flag=True,
            help="Start every daemon as a program of its own, not as a fork of one import.",
        ),
    ):  # fmt: skip
        command.params.append(option)
    return command


def _wanted(
    *,
    nodes: int,
    control_plane: int,
    nat: int | None,
    programs: bool,
    k3s: Path | None,
    images: Path | None,
    agents: bool = True,
    config: Path | None = None,
    boots: bool = True,
    ipv6: bool = False,
) -> Wanted:
    if nat:
        raise UsageError(
            "MESH-8012",
            "--nat is not built yet: all machines of the laboratory are on one LAN",
            fix="leave it out",
        )
    return Wanted(
        nodes=nodes,
        control_plane=control_plane,
        k3s=k3s,
        images=images,
        agents=agents,
        config=config,
        forks=not programs,
        boots=boots,
        ipv6=ipv6,
    )


@click.group(invoke_without_command=True)
@click.option("--limit", type=float, metavar="SECONDS", help="The longest that any step may take.")
@click.pass_context
def demo(
    context: click.Context,
    *,
    nodes: int,
    control_plane: int,
    nat: int | None,
    k3s: Path | None,
    images: Path | None,
    limit: float | None,
    programs: bool,
) -> int:
    """Real daemons on this machine, in network namespaces. Without a verb: the tour.

    The tour forms a cluster, kills the holder of its address, shows that it works on, and removes
    everything. MESHD_LAB names the laboratory [default: demo].
    """
    if context.invoked_subcommand is not None:
        return 0
    wanted = _wanted(
        nodes=nodes,
        control_plane=control_plane,
        nat=nat,
        k3s=k3s,
        images=images,
        programs=programs,
    )
    return tour.run(_places(), wanted, os.environ, Checklist(limit_s=limit))


_shape(demo)


@demo.command()
@click.option("--no-agents", is_flag=True, help="Real servers that run no pods: no VIP, no Nodes.")
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A cloud-config for every node, in place of the generated one.",
)
@click.option("--ipv6", is_flag=True, help="A LAN without IPv4.")
@click.option("--stopped", is_flag=True, help="Leave the machines off; `start` boots them.")
@click.option("--wait", is_flag=True, help="Wait until the cluster is complete.")
def up(
    *,
    nodes: int,
    control_plane: int,
    nat: int | None,
    k3s: Path | None,
    images: Path | None,
    config: Path | None,
    no_agents: bool,
    programs: bool,
    ipv6: bool,
    stopped: bool,
    wait: bool,
) -> int:
    """Bring a laboratory up and leave it running."""
    wanted = _wanted(
        nodes=nodes,
        control_plane=control_plane,
        nat=nat,
        k3s=k3s,
        images=images,
        agents=not no_agents,
        programs=programs,
        config=config,
        boots=not stopped,
        ipv6=ipv6,
    )
    checklist = Checklist()
    built = Laboratory.up(_places(), wanted, os.environ)
    tour.announce(built, wanted, checklist)
    if stopped:
        return 0
    failed = tour.wait_for_daemons(built, checklist)
    if wait and not failed:
        tour.wait_for_cluster(built, checklist)
    checklist.say(
        "look: meshd demo status | meshd demo exec n1 -- meshd status | meshd demo down removes it"
    )
    return 1 if failed else 0


_shape(up)


@demo.command()
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table")
def status(output: str) -> None:
    """Show all nodes at a glance."""
    found = Laboratory.load(_places())
    glances = glance.look(found)
    if output == "json":
        click.echo(json.dumps(glance.as_json(found, glances), indent=1))
    else:
        click.echo(glance.as_table(found, glances))


@demo.command("exec", context_settings={"ignore_unknown_options": True})
@click.argument("node")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def execute(node: str, command: tuple[str, ...]) -> None:
    """Run a command inside a node: exec n2 -- meshd status."""
    found = Laboratory.load(_places())
    inside.become_command(found.node(node), found.known, command)


@demo.command()
@click.argument("node")
def kill(node: str) -> None:
    """SIGKILL all processes of a node; its disk stays."""
    ran = Laboratory.load(_places()).kill(node)
    click.echo(f"{node} is dead" if ran else f"{node} was down already")


@demo.command()
@click.argument("node")
def start(node: str) -> None:
    """Boot a node again with its disk."""
    booted = Laboratory.load(_places()).start(node)
    click.echo(f"{node} boots" if booted else f"{node} runs already")


@demo.command()
def add() -> None:
    """Boot one more machine with the same file."""
    click.echo(f"{Laboratory.load(_places()).add()} boots")


@demo.command()
@click.argument("nodes", nargs=-1, required=True, metavar="NODE…")
def cut(nodes: tuple[str, ...]) -> None:
    """Separate the named nodes from the rest."""
    Laboratory.load(_places()).cut(nodes)
    click.echo(f"{' '.join(nodes)}: cut off from the rest")


@demo.command()
def heal() -> None:
    """Undo all cuts."""
    apart = Laboratory.load(_places()).heal()
    click.echo(f"{' '.join(apart)}: back" if apart else "nothing was cut off")


@demo.command()
@click.argument("node")
def wipe(node: str) -> None:
    """Erase a stopped node's disk."""
    Laboratory.load(_places()).wipe(node)
    click.echo(f"the disk of {node} is empty")


@demo.command()
def audit() -> int:
    """Print a line for each cluster that ever came up, as itself says, and for each reset."""
    places = Laboratory.load(_places()).places
    clusters = audit_clusters(places)
    for line in (*map(str, clusters), *resets(places)):
        click.echo(line)
    generations = [one.generation for one in clusters]
    return 1 if len(set(generations)) < len(generations) else 0


@demo.command()
@click.option("--quick", is_flag=True, help="Few samples at 3 nodes: to see that it works.")
@click.option("--nodes", "sizes", type=int, multiple=True, help="Instead of 3, 10 and 30.")
@click.option(
    "--part",
    "parts",
    type=click.Choice(measurements.PARTS),
    multiple=True,
    help="Only this; may be repeated.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=Path("build/bench.json"),
    show_default=True,
)
@click.option(
    "--k3s",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Instead, how long a real k3s takes to form, with meshd and with its own commands.",
)
@click.option("--runs", type=int, default=3, show_default=True, help="With --k3s: of each kind.")
def bench(
    *,
    output: Path,
    sizes: tuple[int, ...],
    parts: tuple[measurements.Part, ...],
    quick: bool,
    k3s: Path | None,
    runs: int,
) -> int:
    """Measure the mesh beside its targets; prints a table, writes JSON."""
    if k3s is not None:
        images = os.environ.get("MESHD_K3S_IMAGES")
        wanted = Wanted(nodes=4, k3s=k3s, images=Path(images) if images else None, boots=False)
        return formation.run(_places(), wanted, runs, output)
    effort = measurements.QUICK if quick else measurements.Effort()
    if sizes:
        effort = replace(effort, sizes=sizes)
    if parts:
        effort = replace(effort, parts=parts)
    return measurements.run(_places(), effort, output)


@demo.command()
@click.option("--cycles", type=click.IntRange(min=1), default=100, show_default=True)
@click.option("--seed", type=int, default=1, show_default=True, help="Of the first cycle.")
def chaos(*, cycles: int, seed: int) -> int:
    """Form clusters while machines are killed, frozen, cut off and wiped; ends with 1 on a failure.

    Each cycle is a laboratory of its own, called chaos unless MESHD_LAB names it.
    """
    return faults.run(_places("chaos"), cycles, seed, os.environ, Checklist())


@demo.command()
def down() -> None:
    """Remove everything."""
    places = _places()
    removed = laboratory.down(places)
    click.echo(
        f"the laboratory {places.lab} is gone"
        if removed
        else f"there is no laboratory {places.lab}: nothing to remove"
    )


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def main() -> int:
    """Run the command line and return the exit code; errors are shown on stderr."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)  # So that these clean up as Ctrl-C does.
    try:
        code = demo.main(prog_name="meshd demo", standalone_mode=False)
    except click.UsageError as error:
        error.show()
        return UsageError.exit_code
    except MeshdError as error:
        print(error.render(), file=sys.stderr)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    return code if isinstance(code, int) else 0
