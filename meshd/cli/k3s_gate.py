"""`meshd k3s-gate`: what every start of k3s has to pass. `ExecStartPre` of k3s' unit calls it."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from meshd.cli.client import Client, Json
from meshd.cli.output import run_dir_option
from meshd.cli.state_dir import state_dir_option
from meshd.errors import MeshdError, NotPermitted, UsageError

if TYPE_CHECKING:
    from meshd.cluster.gate import Permit

ASKING_S = 10.0
"""How long the daemon may take to answer, and from then on to reach another node; after that the
disk, and what the daemon knows, decide."""

_LOOK_S = 0.25


@click.command(name="k3s-gate")
@click.option(
    "--unit", metavar="NAME", help="Read k3s' command line from this systemd unit, such as k3s."
)
@click.option("--has-fuse", is_flag=True, hidden=True, help="Of meshd's own supervisor.")
@state_dir_option
@run_dir_option
@click.argument("argv", nargs=-1, metavar="[-- K3S ARGUMENT…]")
def k3s_gate(
    unit: str | None, state_dir: Path, run_dir: Path, argv: tuple[str, ...], *, has_fuse: bool
) -> None:
    """Exit 0 only if k3s may start on this node now, as the command line K3S ARGUMENT….

    Exit 4, with the reason, if not; exit 2 if it was called wrongly. Any other exit code: meshd
    itself is broken.
    """
    from meshd.cluster.gate import permit_file, read_permit, refusal

    words = argv if unit is None else _command_line(unit)
    if not words:
        raise UsageError(
            "MESH-5030",
            "the gate was not told how k3s is started",
            fix="call it as `meshd k3s-gate -- /usr/local/bin/k3s server …`, or with --unit k3s",
        )
    try:
        permit = read_permit(state_dir)
        if permit is None and permit_file(state_dir).exists():
            raise MeshdError(  # Not a refusal: an update of meshd keeps no formed k3s down.
                "MESH-5034",
                f"{permit_file(state_dir)} is not one that this version of meshd reads",
                fix="restart meshd, which writes it again; k3s of a formed cluster starts all the "
                "same",
            )
        newest, epoch = None, None
        if permit is not None:
            newest, epoch = _newest(run_dir, permit)
        why = refusal(
            permit,
            argv=words,
            environment=os.environ,
            state_dir=state_dir,
            newest_generation=newest,
            newest_epoch=epoch,
            has_fuse=has_fuse,
        )
    except OSError as error:
        where = f" at {error.filename}" if error.filename else ""
        raise MeshdError(
            "MESH-5033",
            f"whether k3s may start cannot be told: {error.strerror or error}{where}",
            fix="mend that file or its disk; k3s of a formed cluster starts all the same",
        ) from error
    if why is not None:
        raise NotPermitted(
            "MESH-5031",
            f"k3s is not started: {why}",
            fix="`meshd status` and `meshd explain join` say more; k3s is tried again by itself",
        )


def _newest(run_dir: Path, permit: Permit) -> tuple[int, int] | tuple[None, None]:
    """Return the generation and the epoch that the daemon knows, or None twice.

    Once it holds all that another node held, or after a while: a whole cluster is powered on in any
    order. A unit's k3s may come up before the daemon, which is waited for if the disk alone would
    let a database start that may be of before a reset; a broken meshd keeps no formed k3s down.
    """
    has_database = permit.seat != "worker"
    deadline = time.monotonic() + ASKING_S
    known: tuple[int, int] | None = None
    while True:
        try:
            status: Json = Client(run_dir).get("/v1/status")
        except MeshdError:
            is_awaited = permit.formed and has_database
            if not is_awaited or time.monotonic() >= deadline:
                return known or (None, None)
        else:
            if known is None:
                deadline = time.monotonic() + ASKING_S  # It may have begun this very moment.
            genesis = status["genesis"]
            known = int(genesis["generation"]), int(genesis.get("epoch", 0))
            if _has_heard(status, has_database=has_database) or time.monotonic() >= deadline:
                return known
        time.sleep(_LOOK_S)


def _has_heard(status: Json, *, has_database: bool) -> bool:
    """Whether the daemon knows what another node knows, or there is no other."""
    others = [node["path"] for node in status["nodes"] if node["path"] != "self"]
    # Only a database can be of before a reset whose record is still on its way here.
    heard = any(others) and (status["ledger"]["synchronised_with"] or not has_database)
    return bool(heard) or not others


def _command_line(unit: str) -> tuple[str, ...]:
    """Return the words of a unit's ExecStart as systemd has merged them from all drop-ins.

    Raises:
        MeshdError: systemd does not tell.
        NotPermitted: it knows of none.
    """
    import shlex

    name = unit if "." in unit else f"{unit}.service"
    command = ["systemctl", "show", "--property=ExecStart", "--value", name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=ASKING_S)
    except (OSError, subprocess.SubprocessError) as error:
        raise MeshdError(
            "MESH-5032",
            f"systemd does not say how {name} starts k3s: {error}",
            fix="see `systemctl status` of that unit",
        ) from error
    # { path=/usr/local/bin/k3s ; argv[]=/usr/local/bin/k3s server --x ; ignore_errors=no ; … }
    _, _, rest = done.stdout.partition("argv[]=")
    words = tuple(shlex.split(rest.partition(" ; ")[0]))
    if not words:
        raise NotPermitted(  # meshd is not broken: k3s is not started by what nobody could check.
            "MESH-5035",
            f"systemd knows no unit {name} that starts anything",
            fix="name the unit that starts k3s; `systemctl cat` shows it",
        )
    return words
