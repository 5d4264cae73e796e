"""Lives of one daemon: its real state on a disk, and two peers in memory to found a cluster with.

Real are the opening of the state directory, the identity, the secrets, SQLite, the driver and the
nodes of all three. Time is simulated. What a node says or orders is written down just before it
happens, and so is what the peers keep; so whoever reads the record after a kill knows what others
may rely on, and can bring the peers back as if their power had gone at the same moment.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import trio
import trio.testing
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ledger import Instant, Moment, Signer, decode_entry
from meshd.config import encode_token, load_settings, new_token
from meshd.daemon import _start
from meshd.daemon._drive import Driver
from meshd.errors import MeshdError
from meshd.events import (
    Event,
)
from meshd.mesh.fake import FakeNetwork
from meshd.metrics import Tally
from meshd.node import Node
from meshd.observe import open_log
from meshd.ports import Store
from meshd.schema import Facts
from meshd.state_dir import locked_state_dir
from meshd.storage import SqliteStore
from tests.store.around import MemoryStore, Service, Site, WrittenLog, WrittenMesh
from tests.store.record import Ended, Kept, Loaded, Ordered, Record, Told

EPOCH_MS = 1_760_000_000_000
FORMED_WITHIN_S = 600.0
Role = Literal["initialiser", "server"]
"""What the plan makes of the real node: its memory decides how it ranks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Where a daemon lives, and as what.

    Args:
        folder: `state` in it is the state directory, `record` what happened.
        role: what the plan is to make of the real node.
        start_only: whether the life ends once everything is open.
        seed: of everything random in the life.
        examine: what is asked of the node before it lives on.
    """

    folder: Path
    role: Role = "initialiser"
    start_only: bool = False
    seed: int = 0
    examine: Callable[[Case, _start.Opened, Loaded], None] = lambda *_: None

    @property
    def state_dir(self) -> Path:
        return self.folder / "state"

    @property
    def record(self) -> Record:
        return Record(self.folder / "record")


def peer_signer(author: int) -> Signer:
    """Return the key of peer 1 or 2."""
    return Signer(Ed25519PrivateKey.from_private_bytes(bytes([100 + author]) * 32))


def write_config(folder: Path) -> None:
    """Write the cloud-config that all lives below `folder` read."""
    token = new_token(
        control_plane=3, nodes_max=None, seeds=(), random_bytes=random.Random(3).randbytes
    )
    text = f"#cloud-config\np2p:\n  network_token: {encode_token(token)}\n"
    (folder / "config.yaml").write_text(text)


class HereStore(SqliteStore):
    """Commits in the calling thread: simulated time would run away while another one works."""

    async def _transact(self, work: list[tuple[str, list[tuple[object, ...]]]]) -> None:
        await trio.lowlevel.checkpoint()
        self._transact_sync(work)


def moment() -> Moment:
    """Return the time of this life."""
    at = trio.current_time() if _in_trio() else 0.0
    return Moment(at=Instant(at), wall_ms=EPOCH_MS + round(at * 1000))


def _in_trio() -> bool:
    try:
        trio.lowlevel.current_trio_token()
    except RuntimeError:
        return False
    return True


@contextmanager
def opened(case: Case) -> Iterator[_start.Opened]:
    """Open the state as the daemon does, until the end of the block.

    Raises:
        MeshdError: as the daemon's start does.
    """
    settings = load_settings([case.folder.parent / "config.yaml"], {})
    environment = {"MESHD_FINGERPRINT": "the machine of the real node"}
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        log, daemon_log = open_log("error", environment, clock=lambda: 0.0, stream=nowhere)
        with locked_state_dir(case.state_dir):
            found = _start._open(settings, case.state_dir, log, daemon_log, Tally(started_at=0.0))
            try:
                yield found
            finally:
                found.store.close()


def facts_of(found: _start.Opened, author: int, role: Role) -> Facts:
    """Return what a node says of itself; the real one's memory makes it first or last."""
    settings, bounds = found.settings, found.settings.bounds
    real, secrets = author == 0, found.candidacy.secrets()
    return Facts(
        name=f"n{author}",
        node_name=f"n{author}-{author:08x}",
        node_ip=f"10.0.0.{10 + author}",
        addresses=(f"/ip4/10.0.0.{10 + author}/tcp/7946",),
        sealing_key=bytes([author]) * 32,
        memory_mib={"initialiser": 8192, "server": 2048}[role] if real else 4096,
        cpus=2,
        role_wish="auto",
        may_vote=True,
        bound=bounds.bound,
        nodes_max=bounds.nodes_max,
        quorum=bounds.quorum,
        control_plane=bounds.control_plane,
        settings_hash=settings.settings_hash(),
        ca_hash=secrets.ca_hash if real else f"{author:064x}",
        token_commitment=secrets.token_commitment if real else f"{author + 9:064x}",
        fingerprint=found.fingerprint if real else (f"machine of n{author}",),
        fuse=True,  # The plan is leased.
    )


def peers_of(record: Record) -> list[MemoryStore]:
    """Return the peers' disks as the record has them."""
    stores = [MemoryStore(author, record) for author in (1, 2)]
    for line in record.read():
        if isinstance(line, Kept):
            stores[line.author - 1].take(line.entries, line.votes)
    return stores


def clusters_in(record: Record) -> dict[str, set[str]]:
    """Return who is a member of which cluster of k3s after what was ordered."""
    members: dict[str, set[str]] = {}
    for line in record.read():
        if isinstance(line, Ordered) and line.cluster_id is not None:
            if line.seat == "initialiser":
                members.setdefault(line.cluster_id, set())
            if line.seat in ("initialiser", "server") and line.cluster_id in members:
                members[line.cluster_id].add(f"n{line.author}-{line.author:08x}")
    return members


def live(case: Case) -> int:
    """Live one life of the daemon; return the exit code: 0 if it came to its end.

    2: its start was refused with an error for the operator; 3: no cluster in time.
    """
    # This process is only for this life.
    os.urandom = random.Random(case.seed).randbytes
    vars(_start).update(read_moment=moment, SqliteStore=HereStore)
    try:
        with opened(case) as found:
            saved = found.store.load()
            loaded = Loaded(found.identity.node_id, saved.entries, saved.votes)
            case.record.write(loaded)
            case.examine(case, found, loaded)
            if case.start_only:
                return 0
            clock = trio.testing.MockClock(autojump_threshold=0)
            return 0 if trio.run(_found_a_cluster, case, found, clock=clock) else 3
    except MeshdError as error:
        case.record.write(Told("refused", error.code))
        return 2


async def _found_a_cluster(case: Case, found: _start.Opened) -> bool:
    record = case.record
    site = Site(record, clusters_in(record))
    network = FakeNetwork()
    drivers: list[Driver[Node]] = []
    async with trio.open_nursery() as nursery:
        stores: list[Store] = [found.store, *peers_of(record)]
        for author, store in enumerate(stores):
            facts = facts_of(found, author, case.role)
            build: Callable[[Facts], Node] = partial(_start._build_node, found)
            signer = found.identity.signer
            if author:
                assert isinstance(store, MemoryStore)
                signer = peer_signer(author)
                build = partial(_build_peer, found, store)
            events, inbox = trio.open_memory_channel[Event](1024)
            mesh = WrittenMesh(signer.node_id, network)
            mesh.author, mesh.record = author, record
            assert facts.node_ip is not None
            service = Service(author, facts.node_name, facts.node_ip, site, events)
            site.services.append(service)
            drivers.append(
                Driver(
                    build=build,
                    facts=facts,
                    mesh=mesh,
                    cluster=service,
                    store=store,
                    log=WrittenLog(record),
                    read_moment=moment,
                    tally=Tally(started_at=0.0),
                    inbox=inbox,
                    sealed=events,
                )
            )
            await nursery.start(mesh.run, events)
        for driver in drivers:
            nursery.start_soon(driver.run)
        for cluster_id in site.members:
            site.changed(cluster_id)
        with trio.move_on_after(FORMED_WITHIN_S):
            while not all(driver.node.standing.formed for driver in drivers):  # noqa: ASYNC110
                await trio.sleep(1)  # Simulated: it costs nothing.
        nursery.cancel_scope.cancel()
    formed = all(driver.node.standing.formed for driver in drivers)
    record.write(Ended(formed, tuple(driver.node.waiting_for for driver in drivers)))
    return formed


def _build_peer(found: _start.Opened, store: MemoryStore, facts: Facts) -> Node:
    network_id = found.settings.network.network_id
    return Node(
        network_id=network_id,
        signer=peer_signer(store.author),
        bounds=found.settings.bounds,
        facts=facts,
        vip=None,
        rng=random.Random(store.author),
        now=moment(),
        entries=[decode_entry(encoded, network_id) for encoded in store.entries.values()],
        votes=store.votes.items(),
    )
