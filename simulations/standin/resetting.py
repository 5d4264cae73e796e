"""`k3s server --cluster-reset`: this server becomes the only member of etcd, with what it holds.

As k3s does (pkg/etcd/etcd.go, Reset and Restore): a snapshot takes the database's place first, if
one is named; the flag is on disk before anything is changed, so that it
proves no success; etcd listens on the loopback meanwhile; the member gets a new name and, if this
machine has another address than before, that one. Then the program ends, with exit code 0.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from pathlib import Path
from typing import NoReturn

from simulations.standin.etcd import CLIENT_PORT, Etcd, EtcdError, EtcdProcess
from simulations.standin.layout import write
from simulations.standin.log import Exit, fatal, log, shutdown
from simulations.standin.membership import Seat, take_seat
from simulations.standin.options import Options

_POLL_S = 0.25
_DONE = (
    "Managed etcd cluster membership has been reset, restart without --cluster-reset flag now."
    " Backup and delete ${datadir}/server/db on each peer etcd server and rejoin the nodes"
)


def refuse_reset(options: Options) -> None:
    """Raise Exit where k3s refuses."""
    if options.server is not None:
        raise fatal(
            "cannot perform cluster-reset while server URL is set - remove server from"
            " configuration before resetting"
        )
    flag = options.layout.reset_flag
    if flag.exists() and options.restore_path is None:
        raise fatal(
            "Managed etcd cluster membership was previously reset, please remove the cluster-reset"
            " flag and start k3s normally. If you need to perform another cluster reset, you must"
            f" first manually delete the file at {flag}"
        )


async def reset_membership(options: Options, address: str) -> NoReturn:
    """Forget all other members; raises Exit at the end of it."""
    layout = options.layout
    if options.restore_path is not None:
        await _restore(options, options.restore_path, address)
    seat = take_seat(layout, options.node_name, address, anew=True)
    write(layout.reset_flag, b"")
    log("info", "Starting etcd for new cluster, cluster-reset=true")
    process = await EtcdProcess.start(
        layout,
        name=seat.member_name,
        address=seat.address,
        cluster=seat.cluster_part,
        new=True,
        arguments=options.etcd_args,
        reset=True,
    )
    try:
        await asyncio.wait(
            [
                asyncio.ensure_future(process.ended()),
                alone := asyncio.ensure_future(_until_alone(options, seat)),
            ],
            return_when=asyncio.FIRST_COMPLETED,
        )
        if not alone.done():
            alone.cancel()
            raise Exit(1, "fatal", "etcd exited during the reset")
        raise shutdown(_DONE)
    finally:
        await process.stop()


async def _restore(options: Options, snapshot: Path, address: str) -> None:
    """Make a database of a snapshot; the one before is moved aside, if there is one.

    Compressed snapshots are not imitated.
    """
    folder = options.layout.etcd
    _move_aside(folder, snapshot)
    seat = Seat(node_name=options.node_name, member_name="restored", address=address)
    child = await asyncio.create_subprocess_exec(
        "etcdctl",
        "snapshot",
        "restore",
        str(snapshot),
        f"--name={seat.member_name}",
        f"--data-dir={folder}",
        f"--initial-cluster={seat.cluster_part}",
        f"--initial-advertise-peer-urls={seat.peer_url}",
        env={"ETCDCTL_API": "3", "PATH": os.environ.get("PATH", "")},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await child.communicate()
    if child.returncode != 0:
        lines = said.decode(errors="replace").strip().splitlines() or ["etcdctl said nothing"]
        raise fatal(f"starting kubernetes: preparing server: {lines[-1]}")


def _move_aside(folder: Path, snapshot: Path) -> None:
    if not snapshot.is_file():
        raise fatal(f"etcd: snapshot path does not exist: {snapshot}")
    before = folder.with_name(f"etcd-old-{secrets.token_hex(4)}")  # k3s: the time, in seconds.
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.rename(before)
    log("info", f"Pre-restore etcd database moved to {before}")


async def _until_alone(options: Options, seat: Seat) -> None:
    etcd = Etcd(options.layout, [f"https://127.0.0.1:{CLIENT_PORT}"])
    try:
        while True:
            try:
                members = await etcd.members()
                if [(m.name, m.peer_urls) for m in members] == [
                    (seat.member_name, (seat.peer_url,))
                ]:
                    return
                if len(members) == 1:
                    await etcd.move(members[0].id, seat.peer_url)
            except EtcdError as error:
                log("info", f"Failed to test etcd connection: {error}")
            await asyncio.sleep(_POLL_S)
    finally:
        etcd.close()
