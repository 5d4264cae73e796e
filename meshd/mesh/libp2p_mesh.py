"""`meshd.ports.Mesh` over py-libp2p: listens, finds, dials, proves, and serves the links.

The invariant: a link exists only over a connection whose both ends proved the token, and nothing
but that proof is answered before.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Literal

import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ledger import Moment, NodeId
from meshd.config.multiaddress import TcpAddress
from meshd.config.schema import Network
from meshd.events import Channel, Health
from meshd.explain import Contact
from meshd.mesh.admission import Admission, DoorFull
from meshd.mesh.book import AddressBook, parse_addresses
from meshd.mesh.contacts import contacts
from meshd.mesh.dialer import DialFailed, OnlyOurselves, dial
from meshd.mesh.handshake import (
    TIMEOUT_S,
    NotLetIn,
    TokenRefused,
    check_as_listener,
    prove_as_dialer,
)
from meshd.mesh.host import Connection, MeshHost
from meshd.mesh.keys import derive_keys
from meshd.mesh.lan import LanBeacon
from meshd.mesh.links import Links
from meshd.mesh.neighbours import wanted_peers
from meshd.mesh.refusals import Refusals
from meshd.mesh.sockets import open_listeners, tune
from meshd.mesh.whereabouts import Whereabouts
from meshd.mesh.wire import (
    CHANNEL_OF_PROTOCOL,
    CONTROL_PROTOCOL,
    FRAME_SIZE_MAX_BYTES,
    GENESIS_PROTOCOL,
    TOKEN_PROTOCOL,
    ByteStream,
)
from meshd.ports import EventSink

Log = Callable[[str, str], None]
"""Takes what happened in snake_case, such as `token_refused`, and a sentence."""

DIALS_MAX = 16
GATHER_S = 0.1
"""How long one who was just heard of is not dialled: often more are heard of, and others chosen."""

POLITENESS_S = 1.0
"""When the node with the higher id dials, so that two seldom dial each other: on one machine with
30 daemons that start together a handshake takes up to a second."""

PRUNE_INTERVAL_S = 5.0


class LibP2PMesh:
    """This node's connections.

    Args:
        private_key: the node's identity; the peer id is its text form.
        network: the token's network; only nodes that hold the same secret are let in.
        listen: multiaddrs to listen on, such as `/ip4/0.0.0.0/tcp/7946`.
        read_moment: the time; neighbours tell one another what their wall clocks show.
        discovery: which ways of finding peers are used; `dht` is left out until it exists.
        seeds: multiaddrs to dial, with or without `/p2p/<id>`.
        remembered: addresses of peers from earlier lives.
        interface: if given, the only one whose addresses are published and that beacons use.
        not_ours: IP addresses never published though an interface may have them (the VIP).
        log: is told what an operator may want to read.
        beacon_port: UDP port of the LAN beacon.
    """

    def __init__(
        self,
        *,
        private_key: Ed25519PrivateKey,
        network: Network,
        listen: Sequence[str],
        read_moment: Callable[[], Moment],
        discovery: Sequence[Literal["lan", "seeds", "dht"]] = ("lan", "seeds"),
        seeds: Sequence[str] = (),
        remembered: Mapping[NodeId, Sequence[str]] | None = None,
        interface: str | None = None,
        not_ours: Sequence[str] = (),
        log: Log = lambda _kind, _text: None,
        beacon_port: int = 7946,
    ) -> None:
        self._host = MeshHost(private_key.private_bytes_raw())
        self.node_id = self._host.node_id
        self._keys = (derive_keys(network),)
        self._listen = tuple(listen)
        self._discovery = frozenset(discovery)
        self._log = log
        self._rng = random.Random()  # noqa: S311  (jitter and choice of neighbours, not secrets)
        self._links = Links(self.node_id, read_moment)
        self._book = AddressBook(self.node_id, self._rng)
        self._whereabouts = Whereabouts(interface=interface, not_ours=not_ours)
        self._admission = Admission()
        self._dials = trio.CapacityLimiter(DIALS_MAX)
        self._bell = trio.Event()
        self.refusals = Refusals()
        self._beacon = LanBeacon(
            own=self.node_id,
            keys=self._keys,
            port=beacon_port,
            whereabouts=self._whereabouts,
            heard=self._heard,
            linked=self._links.__contains__,
            alone=lambda: len(self._links) == 0,
            foreign=self._hear_foreign,
        )
        if "seeds" in self._discovery:
            for seed in (*network.seeds, *seeds):
                self._book.learn_seed(seed)
        for peer, addresses in sorted((remembered or {}).items()):
            self._book.learn(peer, parse_addresses(addresses), "an earlier life")

    async def run(
        self,
        events: EventSink,
        *,
        task_status: trio.TaskStatus[tuple[str, ...]] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """See `meshd.ports.Mesh.run`."""
        listeners = await open_listeners(self._listen)
        self._whereabouts.listen([listener.socket.getsockname()[:2] for listener in listeners])
        async with trio.open_nursery() as libp2p:
            try:
                await libp2p.start(self._host.run)
                async with trio.open_nursery() as nursery:
                    for listener in listeners:
                        nursery.start_soon(self._accept_forever, listener, events, nursery)
                    nursery.start_soon(self._whereabouts.follow)
                    nursery.start_soon(self._dial_forever, events, nursery)
                    nursery.start_soon(self._prune_forever)
                    if "lan" in self._discovery:
                        nursery.start_soon(self._beacon.run)
                    task_status.started(self._whereabouts.publish())
            finally:
                self._host.stop()
                for listener in listeners:
                    listener.socket.close()

    def send_nowait(self, peer: NodeId, channel: Channel, frame: bytes) -> None:
        """See `meshd.ports.Mesh.send_nowait`."""
        assert len(frame) <= FRAME_SIZE_MAX_BYTES
        if peer != self.node_id and not self._links.send_nowait(peer, channel, frame):
            self._bell.set()

    def learn(self, peer: NodeId, addresses: Sequence[str]) -> None:
        """See `meshd.ports.Mesh.learn`."""
        if self._book.learn(peer, parse_addresses(addresses), "the ledger"):
            self._dial_soon(peer)

    def punish(self, peer: NodeId) -> None:
        """See `meshd.ports.Mesh.punish`."""
        self._links.punish(peer)

    async def addresses_changed(self) -> tuple[str, ...]:
        """See `meshd.ports.Mesh.addresses_changed`; the first answer is `run`'s task status."""
        return await self._whereabouts.changed()

    def contacts(self) -> tuple[Contact, ...]:
        """Return what is known about reaching each peer."""
        return contacts(self._book, self._links)

    @property
    def deaf(self) -> str | None:
        """Why beacons cannot be heard, if so."""
        return self._beacon.trouble

    def health(self, *, formed: bool = False) -> tuple[Health, ...]:
        """Return what is wrong with the mesh, as far as an operator can mend it.

        Args:
            formed: the cluster is; then nobody needs to be found for it.
        """
        found = self.refusals.health(
            seeking=len(self._links) == 0 and not formed, now=trio.current_time()
        )
        if self._beacon.trouble is None:
            return found
        deaf = Health(
            code="MESH-3103",
            severity="warning",
            message=f"machines on this LAN cannot be heard: {self._beacon.trouble}",
            fix="free the port, or take `lan` out of p2p.meshd.discovery and name seeds",
        )
        return (*found, deaf)

    def _heard(self, peer: NodeId, places: list[TcpAddress]) -> bool:
        is_new = peer not in self._book
        self._book.learn(peer, places, "beacon")
        self._dial_soon(peer)
        return is_new

    def _dial_soon(self, peer: NodeId) -> None:
        delay = GATHER_S if self.node_id < peer else POLITENESS_S
        self._book.hurry(peer, trio.current_time(), delay_s=delay)
        self._bell.set()

    # Coming in.

    async def _accept_forever(
        self, listener: trio.SocketListener, events: EventSink, nursery: trio.Nursery
    ) -> None:
        async def welcome(stream: trio.SocketStream) -> None:
            await self._welcome(stream, events)

        await trio.serve_listeners(welcome, [listener], handler_nursery=nursery)

    async def _welcome(self, stream: trio.SocketStream, events: EventSink) -> None:
        try:
            host = str(stream.socket.getpeername()[0])
        except OSError:
            host = "0.0.0.0"  # noqa: S104  (a port scan: it is gone again, and will not get far)
        met = None
        with suppress(DoorFull):
            async with self._admission.place(host):
                with trio.move_on_after(TIMEOUT_S):
                    met = await self._meet_as_listener(stream, host)
        if met is None:
            await trio.aclose_forcefully(stream)
        else:
            connection, streams = met
            self.refusals.forgive([host])
            await self._serve(connection, streams, dialled=False, events=events)

    async def _meet_as_listener(
        self, stream: trio.SocketStream, host: str
    ) -> tuple[Connection, dict[Channel, ByteStream]] | None:
        try:
            tune(stream.socket)
            connection = await self._host.secure_accepted(stream)
            return connection, await self._check_token(connection)
        except NotLetIn as error:
            self._refuse([host], connection.peer, error)
        except Exception:  # noqa: BLE001
            # What a stranger sends reaches libp2p's, noise's and protobuf's parsers, which raise
            # whatever they like. It is the stranger's fault and ends this connection alone.
            self.refusals.count_garbage()
        return None

    async def _check_token(self, connection: Connection) -> dict[Channel, ByteStream]:
        if self._links.banned(connection.peer):
            raise NotLetIn("it broke the protocol too often")
        stream = (await connection.expect(TOKEN_PROTOCOL))[TOKEN_PROTOCOL]
        answer = await check_as_listener(
            stream, own=self.node_id, peer=connection.peer, keys=self._keys
        )
        connection.door.open(*CHANNEL_OF_PROTOCOL)
        await stream.write(answer)
        streams = await connection.expect(*CHANNEL_OF_PROTOCOL)
        return {CHANNEL_OF_PROTOCOL[name]: stream for name, stream in streams.items()}

    # Going out.

    async def _dial_forever(self, events: EventSink, nursery: trio.Nursery) -> None:
        while True:
            self._bell = trio.Event()
            now = trio.current_time()
            wanted = self._wanted()
            for key in self._book.due(wanted, now):
                if self._is_calling(key) and self._book.give_way(key, now + POLITENESS_S):
                    continue
                self._book.began(key, now)
                nursery.start_soon(self._dial_one, key, events)
            with trio.move_on_at(self._book.next_due(wanted)):
                await self._bell.wait()

    def _is_calling(self, key: str) -> bool:
        """Whether a peer that dials first has perhaps done so; its name is not known yet."""
        hosts = [address.host for address in self._book[key].addresses]
        return NodeId(key) < self.node_id and any(map(self._admission.greets, hosts))

    def _wanted(self) -> list[str]:
        wanted = self._neighbours()
        urgent = [*self._links.awaited(), *self._links.lost]
        unnamed = [key for key in self._book.unnamed() if self._book[key].node not in self._links]
        keys = dict.fromkeys([*urgent, *unnamed, *wanted])
        return [
            key for key in keys if key not in self._links and not self._links.banned(NodeId(key))
        ]

    def _neighbours(self) -> list[NodeId]:
        known, linked = self._book.peers(), self._links.peers
        failing = {peer for peer in known if peer not in linked and self._book.failing(peer)}
        return wanted_peers(self.node_id, known=known, failing=failing)

    async def _prune_forever(self) -> None:
        while True:
            await trio.sleep(PRUNE_INTERVAL_S)
            self._links.prune(set(self._neighbours()))

    async def _dial_one(self, key: str, events: EventSink) -> None:
        expected = None if key.startswith("/") else NodeId(key)
        async with self._dials:
            if expected is not None and expected in self._links:
                return self._book.reached(key, expected)  # It was faster.
            try:
                connection = await dial(self._host, self._book[key].addresses, expected)
            except OnlyOurselves:
                return self._book.forget(key)  # All nodes may be given the same seeds.
            except DialFailed as error:
                return await self._dial_failed(key, expected, events, str(error))
        try:
            if expected is None and connection.peer in self._links:
                # An address without a name led to somebody known.
                return self._book.reached(key, connection.peer)
            streams = await self._meet_as_dialer(key, connection)
            if streams is None:
                why = "it answered, but did not prove that it has this token"
                return await self._dial_failed(key, expected, events, why)
            self.refusals.forgive([address.host for address in self._book[key].addresses])
            self._book.reached(key, connection.peer)
            await self._serve(connection, streams, dialled=True, events=events)
        finally:
            with trio.CancelScope(shield=True):
                await connection.aclose()
        return None

    async def _dial_failed(
        self, key: str, peer: NodeId | None, events: EventSink, why: str
    ) -> None:
        self._book.failed(key, trio.current_time(), why)
        if peer is not None:
            await self._links.dial_failed(peer, events)
        self._bell.set()

    async def _meet_as_dialer(
        self, key: str, connection: Connection
    ) -> dict[Channel, ByteStream] | None:
        try:
            with trio.fail_after(TIMEOUT_S):
                return await self._prove_token(connection)
        except NotLetIn as error:
            hosts = [address.host for address in self._book[key].addresses]
            self._refuse(hosts, connection.peer, error)
        except Exception:  # noqa: BLE001
            # As for an accepted connection: whatever the other end sent, it is not one of us.
            self.refusals.count_garbage()
        return None

    async def _prove_token(self, connection: Connection) -> dict[Channel, ByteStream]:
        stream = await connection.open_stream(TOKEN_PROTOCOL)
        await prove_as_dialer(stream, own=self.node_id, peer=connection.peer, keys=self._keys)
        return {
            CHANNEL_OF_PROTOCOL[name]: await connection.open_stream(name)
            for name in (CONTROL_PROTOCOL, GENESIS_PROTOCOL)
        }

    async def _serve(
        self,
        connection: Connection,
        streams: dict[Channel, ByteStream],
        *,
        dialled: bool,
        events: EventSink,
    ) -> None:
        lost = await self._links.serve(
            connection.peer, streams, dialled=dialled, events=events, close=connection.aclose
        )
        self._bell.set()
        if lost:
            self._beacon.hasten()
        await self._links.await_return(connection.peer, events)

    def _refuse(self, hosts: Sequence[str], peer: NodeId, error: NotLetIn) -> None:
        is_first = self.refusals.add(
            hosts,
            peer,
            str(error),
            trio.current_time(),
            other_token=isinstance(error, TokenRefused),
        )
        if is_first:
            where = ", ".join(hosts)
            self._log("token_refused", f"no link with {where} ({peer}): {error}")

    def _hear_foreign(self, host: str) -> None:
        if self.refusals.hear_foreign(host, trio.current_time()):
            self._log(
                "other_network_near",
                f"a machine of another network shares this LAN, at {host}: the two do not mix",
            )
