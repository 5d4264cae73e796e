"""Names and keys that follow from a secret. A label is used for one purpose only."""

from __future__ import annotations

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

# Exactly 64, in an order that never changes: a token keeps its word by number.
_WORDS_TEXT = """
oak ash elm fir yew birch cedar maple pine beech alder aspen larch hazel holly willow
rowan lime plum pear apple cherry olive fig palm teak ebony laurel myrtle poplar spruce acacia
fox owl elk hare lynx otter badger heron crane swan wren robin finch lark raven falcon
trout salmon pike perch whale seal bear wolf bison moose ibex camel zebra gecko newt toad
"""
WORDS = tuple(_WORDS_TEXT.split())


def network_id_from(content: bytes) -> str:
    """Return the name of 5 bytes, such as `oak-7f3a9c12`; the first one selects a word."""
    return f"{WORDS[content[0] % 64]}-{content[1:5].hex()}"


def derive(secret: bytes, label: str) -> bytes:
    """Return 32 bytes for one purpose (HKDF-SHA256, RFC 5869, no salt, `label` as info)."""
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=label.encode()).derive(secret)
