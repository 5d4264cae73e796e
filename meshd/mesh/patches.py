"""What is wrong in py-libp2p 0.8.1 as far as meshd meets it, and what is done about each.

B1  An inbound slot is kept until the swarm stops: after 250 connections in its life it takes
    none. Answer: `host.MeshHost` secures accepted connections itself; `Swarm.listen` is not used.
B2  Of several connections the one with most streams is used, dead or not.
    Answer: `choice.supersedes`; every stream is opened on a connection that was chosen.
B3  A peer that falls silent is never noticed. Answer: `sockets.tune`, and `heartbeat`.
B4  One address a peer, 250 ms at least, nothing for 60 s after a failure. Answer: `dialer.dial`.
B5  Plaintext is accepted unless told otherwise. Answer: `host.new_quiet_swarm` names Noise alone.
B10 SO_REUSEPORT hides that a port is taken. Answer: `sockets.open_listeners`.
B11 Its resource manager has a rule against connections while the machine's memory is 90 % full
    (which 0.8.1 sets up but does not consult), and limits of its own.
    Answer: `host.new_quiet_swarm` has no resource manager; the limits are in `admission`.
B12 It dials every peer it ever heard of, each 30 s. Answer: `QuietAutoConnector`.
B14 A window update frame for each read and a ping each 30 s double the idle traffic.
    Answer: `batch_window_updates` and `muxer.QuietYamux`.
B15 It logs the ends of connections on the root logger. Answer: `quieten_root_logger`.
B16 A frame takes a lock at each layer and three reads: 9 task switches each way, most of an idle
    node's processor time. Answer: `muxer`.

What replaces or relies on private code does so for one release; `check_release` compares the
source of that code before anything else happens.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType

import trio

from meshd.errors import MeshdError
from meshd.mesh._libp2p import (
    LOGGER,
    AutoConnector,
    MuxerMultistream,
    RawConnection,
    SecureSession,
    SecurityMultistream,
    Swarm,
    SwarmConn,
    TrioTCPStream,
    Yamux,
    YamuxStream,
    swarm_connection,
)
from meshd.mesh.muxer import give_credit

RELEASE = "0.8.1"

STOCK_WINDOW_UPDATE = YamuxStream._auto_tune_and_send_window_update  # noqa: SLF001
RELIED_ON: Mapping[str, tuple[Callable[..., object], str]] = MappingProxyType(
    {
        "Swarm.add_conn": (Swarm.add_conn, "d469d71b3ed1f4df"),
        "Swarm.run": (Swarm.run, "15ac9440b4fed110"),
        "SwarmConn._handle_muxed_stream": (SwarmConn._handle_muxed_stream, "fb51f8a3e37c9800"),  # noqa: SLF001
        "AutoConnector.maybe_connect": (AutoConnector.maybe_connect, "018fac95eafc2413"),
        "MuxerMultistream.select_transport": (
            MuxerMultistream.select_transport,
            "0b8cb6f78cda7ae4",
        ),
        "RawConnection.__init__": (RawConnection.__init__, "89beb8adac60eaa6"),
        "SecureSession.read": (SecureSession.read, "eeba14a89cf12325"),
        "SecureSession.write": (SecureSession.write, "0298b065574caeda"),
        "SecurityMultistream.secure_inbound": (
            SecurityMultistream.secure_inbound,
            "3b1816b52dfab1bb",
        ),
        "SecurityMultistream.secure_outbound": (
            SecurityMultistream.secure_outbound,
            "039685d2adca8ed6",
        ),
        "TrioTCPStream.get_remote_address": (TrioTCPStream.get_remote_address, "2238d30600e5c1e0"),
        "Yamux._measure_rtt_loop": (Yamux._measure_rtt_loop, "86222ce6e35836fd"),  # noqa: SLF001
        "Yamux.__init__": (Yamux.__init__, "3b11a2a71ca444ca"),
        "Yamux._cleanup_on_error": (Yamux._cleanup_on_error, "4fed61a999a34989"),  # noqa: SLF001
        "Yamux._finalize_stream_locked": (Yamux._finalize_stream_locked, "95b60e92421133b4"),  # noqa: SLF001
        "Yamux._write_frame": (Yamux._write_frame, "16ff969cdd0d2b1b"),  # noqa: SLF001
        "Yamux.close": (Yamux.close, "d80b27e69ccd1b89"),
        "Yamux.handle_incoming": (Yamux.handle_incoming, "ad15ff6943feac20"),
        "Yamux.open_stream": (Yamux.open_stream, "f3e0ef79ec21d0cb"),
        "Yamux.start": (Yamux.start, "bd1a114758a61e42"),
        "YamuxStream.__init__": (YamuxStream.__init__, "ab24c0709285d573"),
        "YamuxStream._auto_tune_and_send_window_update": (STOCK_WINDOW_UPDATE, "6ebcbd822fe7f996"),
    }
)
"""Functions and the start of their sources' SHA-256."""


def source_hash(function: Callable[..., object]) -> str:
    """Return 16 hex digits of the SHA-256 of a function's source."""
    return hashlib.sha256(inspect.getsource(function).encode()).hexdigest()[:16]


def check_release(
    found: str | None = None,
    relied_on: Mapping[str, tuple[Callable[..., object], str]] = RELIED_ON,
) -> None:
    """Refuse to run on any other py-libp2p than the one that the patches were written for.

    Raises:
        MeshdError: another release is installed, or this one was changed.
    """
    found = importlib.metadata.version("libp2p") if found is None else found
    changed = [
        name for name, (function, known) in relied_on.items() if source_hash(function) != known
    ]
    if found == RELEASE and not changed:
        return
    what = f"libp2p {found}" + (f" with another {', '.join(changed)}" if changed else "")
    raise MeshdError(
        "MESH-3004",
        f"the installed py-libp2p is not the one that meshd works with: {what}",
        cause=f"meshd replaces private code of libp2p {RELEASE}, which other code may not stand",
        fix=f"install libp2p=={RELEASE}, for example with `make setup` or from requirements.lock",
    )


class QuietAutoConnector(AutoConnector):
    """Connects to nobody. A watermark of 0 is not enough: the aim is half the high one (B12)."""

    async def maybe_connect(self) -> None:
        return

    async def run_background_task(self, nursery: trio.Nursery) -> None:
        """Start none."""


def batch_window_updates() -> None:
    """B14: answer not every read with a frame of its own."""
    YamuxStream._auto_tune_and_send_window_update = give_credit  # noqa: SLF001


def quieten_root_logger() -> None:
    """B15: have the ends of connections logged where the rest of libp2p logs."""
    swarm_connection.logging = LOGGER


def apply() -> None:
    """Check the release, then put the two patches that change libp2p itself in place.

    Raises:
        MeshdError: see `check_release`.
    """
    check_release()
    batch_window_updates()
    quieten_root_logger()
