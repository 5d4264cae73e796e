"""Imports py-libp2p, quietly, and gives the rest of `meshd.mesh` the few names it uses.

Import this module before any other of libp2p: it puts the stand-in for `fastecdsa` in place,
checks the release, and keeps libp2p's log lines (errors for every failed dial) off stderr.
"""

from __future__ import annotations

import logging
import warnings

from meshd.mesh import _fastecdsa

_fastecdsa.install()
with warnings.catch_warnings():
    # Some of its 59 dependencies warn about their own future on newer Pythons; the release is
    # pinned, so there is nothing to do about it here.
    warnings.simplefilter("ignore")
    from libp2p import new_swarm
    from libp2p.abc import IMuxedConn, IRawConnection, ISecureConn
    from libp2p.crypto.ed25519 import create_new_key_pair as new_ed25519
    from libp2p.crypto.x25519 import create_new_key_pair as new_x25519
    from libp2p.custom_types import TProtocol
    from libp2p.io.exceptions import ConnectionClosedError
    from libp2p.io.trio import TrioTCPStream
    from libp2p.network.auto_connector import AutoConnector
    from libp2p.network.config import ConnectionConfig, RetryConfig
    from libp2p.network.connection import swarm_connection
    from libp2p.network.connection.raw_connection import RawConnection
    from libp2p.network.connection.swarm_connection import SwarmConn
    from libp2p.network.stream.net_stream import NetStream
    from libp2p.network.swarm import Swarm
    from libp2p.peer.id import ID
    from libp2p.protocol_muxer.multiselect import Multiselect
    from libp2p.protocol_muxer.multiselect_client import MultiselectClient
    from libp2p.protocol_muxer.multiselect_communicator import MultiselectCommunicator
    from libp2p.security.noise.transport import PROTOCOL_ID as NOISE_ID
    from libp2p.security.noise.transport import Transport as NoiseTransport
    from libp2p.security.secure_session import SecureSession
    from libp2p.security.security_multistream import SecurityMultistream
    from libp2p.stream_muxer.muxer_multistream import MuxerMultistream
    from libp2p.stream_muxer.yamux.yamux import DEFAULT_WINDOW_SIZE, Yamux, YamuxStream
    from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX_ID
    from libp2p.tools.anyio_service import background_trio_service
    from libp2p.transport.tcp.tcp import TCP

LOGGER = logging.getLogger("libp2p")
LOGGER.setLevel(logging.CRITICAL + 1)

__all__ = [
    "DEFAULT_WINDOW_SIZE",
    "ID",
    "LOGGER",
    "NOISE_ID",
    "TCP",
    "YAMUX_ID",
    "AutoConnector",
    "ConnectionClosedError",
    "ConnectionConfig",
    "IMuxedConn",
    "IRawConnection",
    "ISecureConn",
    "Multiselect",
    "MultiselectClient",
    "MultiselectCommunicator",
    "MuxerMultistream",
    "NetStream",
    "NoiseTransport",
    "RawConnection",
    "RetryConfig",
    "SecureSession",
    "SecurityMultistream",
    "Swarm",
    "SwarmConn",
    "TProtocol",
    "TrioTCPStream",
    "Yamux",
    "YamuxStream",
    "background_trio_service",
    "new_ed25519",
    "new_swarm",
    "new_x25519",
    "swarm_connection",
]
