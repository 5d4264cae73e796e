"""The libp2p side of the mesh: a swarm that secures connections and opens streams, and no more.

TCP, Noise and Yamux only. Of libp2p's host, dialer, listener, identify, ping and resource manager
nothing runs (patches.py says why), so what a stranger can talk to is what stands here: until a
connection is proven one stream of the token protocol, afterwards one stream for each channel.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

import trio

from ledger import NodeId
from meshd.mesh import patches
from meshd.mesh._libp2p import (
    ID,
    NOISE_ID,
    TCP,
    YAMUX_ID,
    ConnectionConfig,
    ISecureConn,
    Multiselect,
    MultiselectClient,
    MultiselectCommunicator,
    NetStream,
    NoiseTransport,
    RetryConfig,
    Swarm,
    SwarmConn,
    TProtocol,
    background_trio_service,
    new_ed25519,
    new_swarm,
    new_x25519,
)
from meshd.mesh.muxer import QuietYamux, SocketConnection, SwiftStream
from meshd.mesh.wire import TOKEN_PROTOCOL

NEGOTIATION_TIMEOUT_S = 4
CONNECTIONS_MAX = 4096


class OwnAddress(Exception):
    """The address that was dialled is this node's own."""


class Door:
    """What may come in over one connection, and what did."""

    def __init__(self, *, dialled: bool) -> None:
        self._allowed = set() if dialled else {TOKEN_PROTOCOL}
        self._arrive, self.arrivals = trio.open_memory_channel[tuple[str, SwiftStream]](4)

    def open(self, *protocols: str) -> None:
        """Let one stream of each of `protocols` in, from now on, and no other."""
        self._allowed = set(protocols)

    async def receive(self, stream: NetStream) -> bool:
        """Negotiate a protocol on a new stream and pass it on; False if it is not wanted."""
        if not self._allowed:
            return False
        offered = Multiselect(dict.fromkeys(map(TProtocol, sorted(self._allowed))))
        protocol, _ = await offered.negotiate(
            MultiselectCommunicator(stream), NEGOTIATION_TIMEOUT_S
        )
        if protocol not in self._allowed:
            return False  # Another stream took its place meanwhile.
        self._allowed.discard(protocol)
        self._arrive.send_nowait((str(protocol), SwiftStream(stream.muxed_stream)))
        return True


class Connection(trio.abc.AsyncResource):
    """A connection that Noise authenticated: `peer` has the key of its name.

    Args:
        host: whose it is.
        conn: libp2p's view of it.
        socket: the TCP connection below, or None if another connection carries it.
    """

    def __init__(self, host: MeshHost, conn: SwarmConn, socket: trio.SocketStream | None) -> None:
        self._conn = conn
        self._socket = socket
        self.peer = NodeId(str(conn.muxed_conn.peer_id))
        self.door = host.door_of(conn)

    async def open_stream(self, protocol: str) -> SwiftStream:
        """Open a stream of `protocol` on this very connection."""
        stream = await self._conn.new_stream()
        await MultiselectClient().select_one_of(
            [TProtocol(protocol)], MultiselectCommunicator(stream), NEGOTIATION_TIMEOUT_S
        )
        return SwiftStream(stream.muxed_stream)

    async def expect(self, *protocols: str) -> dict[str, SwiftStream]:
        """Wait until the other end opened a stream of each of `protocols`.

        Raises:
            EOFError: the connection ended first.
        """
        streams: dict[str, SwiftStream] = {}
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._cancel_when_closed, nursery.cancel_scope)
            while len(streams) < len(protocols):
                protocol, stream = await self.door.arrivals.receive()
                streams[protocol] = stream
            nursery.cancel_scope.cancel()
        if len(streams) < len(protocols):
            raise EOFError
        return streams

    async def _cancel_when_closed(self, scope: trio.CancelScope) -> None:
        await self.wait_closed()
        scope.cancel()

    async def aclose(self) -> None:
        """Close it at once; what was written before still goes out. libp2p tidies up after."""
        if self._socket is not None:
            await trio.aclose_forcefully(self._socket)
        else:
            await self._conn.close()

    async def wait_closed(self) -> None:
        """Wait until libp2p saw it end."""
        await self._conn.event_closed.wait()


def new_quiet_swarm(seed: bytes) -> Swarm:
    """Return a swarm that does nothing of its own accord and speaks Noise and Yamux only.

    Args:
        seed: the 32 bytes of the node's Ed25519 private key.
    """
    keys = new_ed25519(seed=seed)
    swarm = new_swarm(
        key_pair=keys,
        # B5: whatever is not named here, plaintext above all, would be accepted.
        sec_opt={NOISE_ID: NoiseTransport(keys, noise_privkey=new_x25519().private_key)},
        muxer_opt={TProtocol(YAMUX_ID): QuietYamux},
        transports=[TCP()],
        connection_config=ConnectionConfig(
            max_connections=CONNECTIONS_MAX,
            min_connections=0,
            low_watermark=0,
            high_watermark=CONNECTIONS_MAX,
            max_connections_per_peer=CONNECTIONS_MAX,  # meshd chooses which one stays.
        ),
        retry_config=RetryConfig(max_retries=0),
    )
    swarm.auto_connector = patches.QuietAutoConnector(swarm)
    # B11: its rules know the whole machine's memory, which on a busy k3s node is always full.
    swarm.set_resource_manager(None)
    return swarm


class MeshHost:
    """One node's libp2p identity.

    Raises:
        MeshdError: another py-libp2p is installed than this was written for.
    """

    def __init__(self, seed: bytes) -> None:
        patches.apply()
        self._swarm = new_quiet_swarm(seed)
        self._swarm.set_stream_handler(self._receive_stream)
        self._doors: WeakKeyDictionary[SwarmConn, Door] = WeakKeyDictionary()
        self._stopping = trio.Event()
        self.node_id = NodeId(str(self._swarm.get_peer_id()))

    @property
    def connections(self) -> int:
        """How many connections there are, proven or not."""
        return len(self._swarm.get_connections())

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run libp2p's tasks until `stop`, even while the caller is being cancelled.

        So farewells still find a connection to go out on.
        """
        with trio.CancelScope(shield=True):
            async with background_trio_service(self._swarm):
                await self._swarm.event_background_nursery_created.wait()
                task_status.started()
                await self._stopping.wait()

    def stop(self) -> None:
        """Have `run` end."""
        self._stopping.set()

    def door_of(self, conn: SwarmConn) -> Door:
        """Return the connection's door; streams may arrive before anyone else asks for it."""
        door = self._doors.get(conn)
        if door is None:
            door = self._doors[conn] = Door(dialled=conn.muxed_conn.is_initiator)
        return door

    async def secure_dialled(
        self, stream: trio.SocketStream, expected: NodeId | None
    ) -> Connection:
        """Make a connection out of a TCP connection that this node opened.

        Args:
            stream: closed if this fails.
            expected: who must be at the other end; None takes whoever it is.

        Raises:
            OwnAddress: this node itself answered.
            Exception: any; the other end may send what it likes.
        """
        raw = SocketConnection(stream, initiator=True)
        wanted = None if expected is None else ID.from_base58(expected)
        try:
            # The upgrader's own wrapper cannot dial a peer whose name is not known.
            security = self._swarm.upgrader.security_multistream
            return await self._add(await security.secure_outbound(raw, wanted), stream)
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise

    async def secure_accepted(self, stream: trio.SocketStream) -> Connection:
        """Make a connection out of a TCP connection that another opened.

        Args:
            stream: closed if this fails.

        Raises:
            Exception: any; the other end may send what it likes.
        """
        raw = SocketConnection(stream, initiator=False)
        try:
            security = self._swarm.upgrader.security_multistream
            return await self._add(await security.secure_inbound(raw), stream)
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise

    async def _add(self, secured: ISecureConn, stream: trio.SocketStream) -> Connection:
        peer = secured.get_remote_peer()
        if peer == self._swarm.get_peer_id():
            raise OwnAddress
        # B14: the upgrader makes libp2p's own Yamux, whatever `muxer_opt` says.
        yamux = await self._swarm.upgrader.muxer_multistream.select_transport(secured)
        muxed = yamux(secured, peer)
        direction = "outbound" if secured.is_initiator else "inbound"
        return Connection(self, await self._swarm.add_conn(muxed, direction=direction), stream)

    async def _receive_stream(self, stream: NetStream) -> None:
        try:
            accepted = await self.door_of(stream.swarm_conn).receive(stream)
        except Exception:  # noqa: BLE001
            # Negotiation reads what a stranger sent and raises what it likes; an error that left
            # this method would end libp2p's service, and with it every connection.
            accepted = False
        if not accepted:
            await stream.reset()
