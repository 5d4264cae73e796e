"""The token handshake: the first and, until it passes, only thing spoken on a connection.

The dialer says a nonce, the listener answers with its own, the dialer proves first, then the
listener (keys.Meeting says what a proof covers). A stranger learns nothing but that it is one.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from ledger import NodeId
from meshd.mesh.keys import NONCE_SIZE, PROOF_SIZE, Meeting, NetworkKeys
from meshd.mesh.wire import ByteStream

TIMEOUT_S = 4.0
REFUSAL = bytes(PROOF_SIZE)
"""In place of the listener's proof. A connection that merely ends may have been too slow."""


class NotLetIn(Exception):
    """The handshake ended without a link; the text says why."""


class TokenRefused(NotLetIn):
    """The other end does not hold a key of this network's token, or says that we do not."""


async def read_exactly(stream: ByteStream, size: int) -> bytes:
    """Return `size` bytes.

    Raises:
        EOFError: the stream ended before.
    """
    held = b""
    while len(held) < size:
        more = await stream.read(size - len(held))
        if not more:
            raise EOFError
        held += more
    return held


async def prove_as_dialer(
    stream: ByteStream, *, own: NodeId, peer: NodeId, keys: Sequence[NetworkKeys]
) -> None:
    """Prove this node's token to `peer` and have it prove its own.

    Raises:
        TokenRefused: one of the two proofs was not accepted.
        EOFError: the connection ended first.
    """
    nonce = secrets.token_bytes(NONCE_SIZE)
    await stream.write(nonce)
    meeting = Meeting(
        dialer=own,
        listener=peer,
        dialer_nonce=nonce,
        listener_nonce=await read_exactly(stream, NONCE_SIZE),
    )
    await stream.write(meeting.proof(keys[0], "dialer"))
    answer = await read_exactly(stream, PROOF_SIZE)
    if answer == REFUSAL:
        raise TokenRefused("it says that our token's proof is wrong")
    if meeting.proven_by(keys, "listener", answer) is None:
        raise TokenRefused("its proof is not made with our token")


async def check_as_listener(
    stream: ByteStream, *, own: NodeId, peer: NodeId, keys: Sequence[NetworkKeys]
) -> bytes:
    """Have the dialer prove its token; return our own proof, made with the key it used.

    The caller sends it once it is ready for what the dialer does next.

    Raises:
        TokenRefused: the proof is wrong, and the dialer was told so.
    """
    dialer_nonce = await read_exactly(stream, NONCE_SIZE)
    nonce = secrets.token_bytes(NONCE_SIZE)
    await stream.write(nonce)
    meeting = Meeting(dialer=peer, listener=own, dialer_nonce=dialer_nonce, listener_nonce=nonce)
    proof = await read_exactly(stream, PROOF_SIZE)
    used = meeting.proven_by(keys, "dialer", proof)
    if used is None:
        await stream.write(REFUSAL)
        raise TokenRefused("its proof is not made with our token")
    return meeting.proof(used, "listener")
