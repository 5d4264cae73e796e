"""What this node says about itself, kept true: its machine, its addresses, its candidate secrets.

Invariant: new secrets are on the disk, hidden from the log and in the cluster's hands before anyone
is told of them.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import trio

from meshd import __version__
from meshd.cluster import Candidacy
from meshd.config import Settings
from meshd.daemon._drive import Driver, Log
from meshd.daemon._vip import interface_for_vip
from meshd.errors import MeshdError
from meshd.events import FactsObserved, Health
from meshd.identity import Identity, node_name_of
from meshd.machine import cpu_count, memory_mib, read_node_address
from meshd.node import Node
from meshd.ports import EventSink, Mesh
from meshd.schema import Facts

FACTS_INTERVAL_S = 5.0  # Between looks at the node address, beside those the mesh asks for.


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a node's facts come from."""

    settings: Settings
    identity: Identity
    candidacy: Candidacy
    fingerprint: tuple[str, ...]
    may_vote: bool

    def read(self, addresses: Sequence[str], blocked: str | None) -> Facts:
        """Return what this machine says about itself now."""
        settings, bounds = self.settings, self.settings.bounds
        secrets = self.candidacy.secrets()
        found = read_node_address(wanted=settings.interface, vip=settings.vip)
        return Facts(
            name=socket.gethostname(),
            node_name=node_name_of(socket.gethostname(), self.identity.signer.public_key),
            node_ip=None if found is None else found.ip,
            addresses=tuple(addresses),
            sealing_key=self.identity.sealing_key.public_key().public_bytes_raw(),
            memory_mib=memory_mib(),
            cpus=cpu_count(),
            role_wish=settings.role,
            may_vote=self.may_vote,
            bound=bounds.bound,
            nodes_max=bounds.nodes_max,
            quorum=bounds.quorum,
            control_plane=bounds.control_plane,
            settings_hash=settings.settings_hash(),
            settings=settings.unusual_settings(),
            ca_hash=secrets.ca_hash,
            token_commitment=secrets.token_commitment,
            fingerprint=self.fingerprint,
            vip=settings.vip,
            vip_interface=interface_for_vip(settings.kubevip, found),
            software=f"meshd {__version__}",
            fuse=True,  # Of meshd.holder, beside every k3s that it starts.
            blocked=blocked,
        )


async def watch_facts(
    source: Source,
    blocked: Callable[[], str | None],
    driver: Driver[Node],
    mesh: Mesh,
    events: EventSink,
    *,
    log: Log,
    hide: Callable[[str], None],
) -> None:
    """Tell the node when its addresses change, as netlink says or a look now and then.

    Each look also replaces secrets that an abandoned plan named.
    """
    told = driver.situation.facts
    addresses = told.addresses
    refused: tuple[Health, ...] = ()
    while True:
        found = await _renew(source.candidacy, driver.node, log=log, hide=hide)
        if found != refused:
            refused = found
            await events.send(driver.situation.set_health("secrets", refused))
        facts = source.read(addresses, blocked())
        if facts != told:
            await events.send(FactsObserved(facts))
            told = facts
        with trio.move_on_after(FACTS_INTERVAL_S):
            addresses = await mesh.addresses_changed()


async def _renew(
    candidacy: Candidacy, node: Node, *, log: Log, hide: Callable[[str], None]
) -> tuple[Health, ...]:
    """Make new secrets if those that are there are spent; return what stands in the way."""
    spent = node.genesis.state.spent
    if candidacy.secrets().ca_hash not in spent:
        return ()
    try:
        await trio.to_thread.run_sync(candidacy.renew, spent)
    except MeshdError as error:
        return (Health(code=error.code, severity="error", message=error.what, fix=error.fix),)
    for token in candidacy.secrets().tokens:
        hide(token)
    log.info("secrets_renewed", reason="an abandoned plan named those that were here")
    return ()
