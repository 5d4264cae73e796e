"""From a command line to a running node: open everything in a safe order, then drive.

The lock comes before the state, the state before the network: a second daemon, a damaged disk or
a wrong file ends the start before anyone was told anything.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import trio
from structlog.typing import FilteringBoundLogger

from ledger import BadEntry, decode_entry
from meshd import __version__
from meshd.api import open_sockets, serve_api
from meshd.clock import read_instant, read_moment
from meshd.cluster import Candidacy, K3sCluster
from meshd.config import Settings, derive, load_settings, secrets_of
from meshd.daemon._drive import INBOX_EVENTS_MAX, Driver
from meshd.daemon._facts import Source, watch_facts
from meshd.daemon._given import gather
from meshd.daemon._lookout import Lookout, refuse_expired_token, slow_disk_item
from meshd.daemon._mesh import mesh_of
from meshd.daemon._operator import Operator
from meshd.daemon._telling import Telling
from meshd.daemon._view import View
from meshd.errors import MeshdError
from meshd.events import Event, Health
from meshd.identity import (
    Identity,
    hardware_identifiers,
    keep_identity,
    load_identity,
    machine_fingerprint,
    narrow_key,
    new_identity,
    node_name_of,
    set_aside_if_cloned,
)
from meshd.machine import read_node_ip
from meshd.metrics import Tally
from meshd.node import Node
from meshd.observe import DaemonLog, open_log, shown_at_the_end
from meshd.ports import EventSink
from meshd.schema import Facts
from meshd.state_dir import locked_state_dir, volatile_reason
from meshd.storage import SqliteStore
from roles import ClusterPlan

HEALTH_INTERVAL_S = 2.0
EXIT_FINE = 0

Looks = Mapping[str, Callable[[], tuple[Health, ...]]]
"""What looks for something wrong, by the name of the source."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """Everything a start has opened and checked before it speaks to anyone."""

    settings: Settings
    state_dir: Path
    identity: Identity
    store: SqliteStore
    candidacy: Candidacy
    fingerprint: tuple[str, ...]
    health: tuple[Health, ...]
    may_vote: bool
    is_new: bool  # It had no identity before.
    log: FilteringBoundLogger
    daemon_log: DaemonLog
    tally: Tally


def run_daemon(*, config: Sequence[Path], state_dir: Path, run_dir: Path) -> int:
    """Run until SIGTERM or SIGINT; k3s runs on afterwards.

    Args:
        config: cloud-config files or folders; empty: the default folders.
        state_dir: holds the identity, the votes and the database; must survive a power cut.
        run_dir: holds the local API's sockets.

    Returns:
        The exit code; errors for the operator were printed on stderr.
    """
    tally = Tally(started_at=read_moment().at)
    try:
        settings = load_settings(config or None, os.environ)
        log, daemon_log = open_log(settings.log_level, os.environ, clock=read_instant)
        daemon_log.hide(*secrets_of(settings))
        with locked_state_dir(state_dir):
            opened = _open(settings, state_dir, log, daemon_log, tally)
            try:
                trio.run(_serve, opened, state_dir, run_dir, open_sockets(run_dir))
            finally:
                opened.store.close()
    except MeshdError as error:
        return _report(error)
    except ExceptionGroup as group:  # From a nursery.
        found, bugs = group.split(MeshdError)
        if found is None or bugs is not None:
            raise
        return max(_report(error) for error in _leaves(found))
    return EXIT_FINE


def _leaves(group: ExceptionGroup[MeshdError]) -> Iterator[MeshdError]:
    for error in group.exceptions:
        if isinstance(error, ExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


def _report(error: MeshdError) -> int:
    # The log may not be open yet, and this is for the person who started the daemon.
    print(shown_at_the_end(error, os.environ), file=sys.stderr)  # noqa: T201
    return error.exit_code


def _open(
    settings: Settings,
    state_dir: Path,
    log: FilteringBoundLogger,
    daemon_log: DaemonLog,
    tally: Tally,
) -> Opened:
    """Open and check everything that lies on this machine."""
    health = []
    for finding in settings.findings:
        place = f"{finding.origin}: " if finding.origin is not None else ""
        message = f"{place}{finding.message}"
        health.append(_warning(finding.code, message, finding.fix))
    identifiers = hardware_identifiers(os.environ)
    cloned = set_aside_if_cloned(state_dir, identifiers)
    if cloned is not None:
        fix = "nothing needs doing; delete the folder when nobody misses it"
        health.append(_warning("MESH-2013", cloned, fix))
    opened_to_others = narrow_key(state_dir)
    if opened_to_others is not None:
        fix = "if somebody untrusted was on this machine, move the state directory away: it then "
        fix += "joins as a new node"
        health.append(_warning("MESH-2031", opened_to_others, fix))
    is_new = load_identity(state_dir) is None
    if is_new:
        refuse_expired_token(settings.network, wall_ms=read_moment().wall_ms)
    identity, store = _open_state(state_dir, settings.network.network_id)
    volatile = volatile_reason(state_dir, Path("/proc/self/mounts").read_text(encoding="utf-8"))
    if volatile is not None:
        message = f"this node does not vote: {state_dir} does not survive a power cut ({volatile})"
        fix = "name a directory on a real disk with --state-dir"
        health.append(Health(code="MESH-2007", severity="error", message=message, fix=fix))
    daemon_log.name_node(identity.node_id)
    candidacy = Candidacy(state_dir)
    daemon_log.hide(identity.private_key.private_bytes_raw(), *candidacy.secrets().tokens)
    key = derive(settings.network.secret, "meshd fingerprint v1")
    return Opened(
        settings=settings,
        state_dir=state_dir,
        identity=identity,
        candidacy=candidacy,
        fingerprint=machine_fingerprint(key, identifiers),
        health=tuple(health),
        may_vote=volatile is None and settings.network.capability == "vote",
        is_new=is_new,
        log=log,
        daemon_log=daemon_log,
        tally=tally,
        store=store,
    )


def _open_state(state_dir: Path, network: str) -> tuple[Identity, SqliteStore]:
    """Return the identity and its database, made in the order that never loses a vote.

    The database is durable before the key exists: a key without a database has lost its votes.
    """
    path = state_dir / "meshd.db"
    identity = load_identity(state_dir)
    if identity is not None:
        return identity, SqliteStore.open(path, owner=identity.node_id, network=network)
    identity = new_identity()
    store = SqliteStore.create(path, owner=identity.node_id, network=network)
    keep_identity(state_dir, identity)
    return identity, store


def _warning(code: str, message: str, fix: str) -> Health:
    return Health(code=code, severity="warning", message=message, fix=fix)


async def _serve(
    opened: Opened, state_dir: Path, run_dir: Path, sockets: Sequence[socket.socket]
) -> None:
    """Run all parts until a signal comes or one of them fails."""
    settings, identity = opened.settings, opened.identity
    mesh = mesh_of(settings, identity, opened.store, opened.log)
    cluster = _new_cluster(opened, state_dir, run_dir)
    lookout = Lookout(
        settings=settings, cluster=cluster, node=identity.node_id, is_new=opened.is_new
    )
    events, inbox = trio.open_memory_channel[Event](INBOX_EVENTS_MAX)
    driver: Driver[Node] | None = None
    source = Source(
        settings=settings,
        identity=identity,
        candidacy=opened.candidacy,
        fingerprint=opened.fingerprint,
        may_vote=opened.may_vote,
    )

    def plan() -> ClusterPlan | None:
        return driver.node.standing.plan if driver is not None else None

    def blocked() -> str | None:
        return lookout.blocked(plan())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(_stop_on_signal, nursery.cancel_scope, opened.log)
        nursery.start_soon(lookout.watch_vip, plan)
        addresses = await nursery.start(mesh.run, events)
        opened.tally.reached("listening", read_moment().at)
        opened.log.info(
            "listening",
            text=f"this is {socket.gethostname()}",
            version=__version__,
            network=settings.network.network_id,
            addresses=list(addresses),
        )
        driver = Driver(
            build=partial(_build_node, opened),
            facts=source.read(addresses, blocked()),
            mesh=mesh,
            cluster=cluster,
            store=opened.store,
            log=opened.log,
            read_moment=read_moment,
            tally=opened.tally,
            inbox=inbox,
            sealed=events,
        )
        driver.situation.set_health("start", opened.health)
        nursery.start_soon(driver.run)
        nursery.start_soon(cluster.run, events)
        keep_facts = partial(watch_facts, log=opened.log, hide=opened.daemon_log.hide)
        nursery.start_soon(keep_facts, source, blocked, driver, mesh, events)
        looks: Looks = {
            "mesh": lambda: mesh.health(formed=driver.node.standing.formed),
            "machine": lambda: lookout.health(plan()),
        }
        nursery.start_soon(_watch_health, opened, looks, driver, events)
        view = View(
            driver,
            opened.store,
            read_moment=read_moment,
            tally=opened.tally,
            read_given=partial(gather, settings, mesh),
            admin_kubeconfig=cluster.handout.file,
        )
        operator = Operator(driver, cluster, read_moment=read_moment)
        nursery.start_soon(serve_api, view, operator, sockets)


def _new_cluster(opened: Opened, state_dir: Path, run_dir: Path) -> K3sCluster:
    settings, identity = opened.settings, opened.identity
    return K3sCluster(
        settings=settings,
        node_id=identity.node_id,
        node_name=_node_name(identity),
        node_ip=partial(read_node_ip, wanted=settings.interface, vip=settings.vip),
        state_dir=state_dir,
        run_dir=run_dir,
        secrets=opened.candidacy.secrets,
        sealing_key=identity.sealing_key,
        clock=read_moment,
        hide=opened.daemon_log.hide,
    )


def _node_name(identity: Identity) -> str:
    return node_name_of(socket.gethostname(), identity.signer.public_key)


def _build_node(opened: Opened, facts: Facts) -> Node:
    """Return the node that the disk says this is."""
    saved = opened.store.load()
    network_id = opened.settings.network.network_id
    entries = []
    for encoded in saved.entries:
        try:
            entries.append(decode_entry(encoded, network_id))
        except BadEntry as error:
            # Not a vote: the others have it, and anti-entropy brings it back. If it is our own and
            # the cluster is not formed, its return ends our voting: the disk is not to be trusted.
            opened.log.warning("damaged_entry_dropped", reason=str(error))
    return Node(
        network_id=network_id,
        signer=opened.identity.signer,
        bounds=opened.settings.bounds,
        facts=facts,
        vip=opened.settings.vip,
        rng=random.Random(os.urandom(16)),  # noqa: S311  # Jitter and choices, no secrets.
        now=read_moment(),
        entries=entries,
        votes=saved.votes,
    )


async def _watch_health(
    opened: Opened, looks: Looks, driver: Driver[Node], events: EventSink
) -> None:
    """Tell the node what is wrong around it, when that changes; each look is a source.

    The log is told what lasts in the same turn: a timer of its own would cost more than it does.
    """
    told: dict[str, tuple[Health, ...]] = dict.fromkeys((*looks, "disk"), ())
    telling = Telling()
    while True:
        for source, look in looks.items():
            found = look()
            if found != told[source]:
                await events.send(driver.situation.set_health(source, found))
                told[source] = found
        slow = slow_disk_item(opened.store.slow_s, opened.state_dir)
        if slow and not told["disk"]:
            driver.tell_in_between("disk", slow)
        elif told["disk"] and not slow:
            await events.send(driver.situation.set_health("disk", ()))
        told["disk"] = slow
        for line in telling.lines(driver.node.waiting_for, driver.node.health, read_instant()):
            getattr(opened.log, line.level)(line.event, **line.fields)
        opened.daemon_log.flush()
        due = trio.current_time() + HEALTH_INTERVAL_S
        await trio.sleep_until(due)
        opened.tally.lag.note(trio.current_time() - due, read_instant())


async def _stop_on_signal(scope: trio.CancelScope, log: FilteringBoundLogger) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for number in signals:
            log.info("stopping", signal=signal.Signals(number).name)
            scope.cancel()
