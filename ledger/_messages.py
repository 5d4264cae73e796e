"""What replicas say to one another: a version byte, then one msgpack array, at most 256 KiB.

An exchange: `Root`; the one whose root differs answers `Digests`; each side pulls what the other
was seen to have with `Pull`, answered by `Bulk` frames, each asked for with `More`. `Push` is news.
Fields may be appended in a later version; a decoder ignores those that it does not know.
"""

from __future__ import annotations

import msgspec

from ledger._limits import FRAME_MAX_BYTES

SALT_BYTES = 8

_VERSION = b"\x01"


class BadFrame(ValueError):
    """The bytes are no frame of a version spoken here."""


class _Message(msgspec.Struct, frozen=True, array_like=True):
    """Base of all messages: an array that starts with the message's number."""


class Root(_Message, frozen=True, tag=1):
    """The sender's root, 32 bytes: an invitation to say what differs."""

    root: bytes


class Digests(_Message, frozen=True, tag=2):
    """12 bytes for each author that the sender knows, see `ledger._reconcile`.

    Args:
        salt: 8 random bytes, which make prepared collisions of short digests worthless.
        full: whether these are all authors; if not, they are those the receiver lacks or has
            otherwise, and no answer in kind is expected.
        items: 4 bytes of the author's key and 8 of a salted digest of its registers, repeated.
    """

    salt: bytes
    full: bool
    items: bytes


class Pull(_Message, frozen=True, tag=3):
    """What the sender holds of some authors: a request for whatever is newer.

    Args:
        salt: for the short digests of entries.
        authors: (author's key, 32 bytes, or its first 4 to get everything; what is held as
            (key, seq, 4 bytes of the entry's salted digest)).
    """

    salt: bytes
    authors: tuple[tuple[bytes, tuple[tuple[str, int, bytes], ...]], ...]


class Bulk(_Message, frozen=True, tag=4):
    """Encoded entries that were pulled; `more` are waiting to be asked for."""

    entries: tuple[bytes, ...]
    more: bool


class More(_Message, frozen=True, tag=5):
    """Asks for the next `Bulk`."""


class Push(_Message, frozen=True, tag=6):
    """Encoded entries that were new to the sender."""

    entries: tuple[bytes, ...]


Message = Root | Digests | Pull | Bulk | More | Push

_decoder = msgspec.msgpack.Decoder[Message](Message)
_encoder = msgspec.msgpack.Encoder()


def encode_frame(message: Message) -> bytes:
    """Return the bytes of a message; the sender keeps it within 256 KiB."""
    frame = _VERSION + _encoder.encode(message)
    assert len(frame) <= FRAME_MAX_BYTES
    return frame


def decode_frame(frame: bytes) -> Message:
    """Return the message; entries inside it are still encoded.

    Raises:
        BadFrame: too large, of another version, or malformed.
    """
    if len(frame) > FRAME_MAX_BYTES:
        raise BadFrame(f"a frame of {len(frame)} bytes, the limit is {FRAME_MAX_BYTES}")
    if frame[:1] != _VERSION:
        raise BadFrame(f"a frame of version {frame[:1].hex() or 'none'}, spoken is 01")
    try:
        message: Message = _decoder.decode(memoryview(frame)[1:])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadFrame(f"a malformed frame: {error}") from error
    match message:
        case Root(root) if len(root) != 32:
            raise BadFrame("a root of the wrong length")
        case Digests(salt, _, items) if len(salt) != SALT_BYTES or len(items) % 12 != 0:
            raise BadFrame("digests of the wrong length")
        case Pull(salt, authors) if len(salt) != SALT_BYTES or any(
            len(author) not in {4, 32} for author, _ in authors
        ):
            raise BadFrame("a pull with fields of the wrong length")
        case _:
            return message
