"""age's X25519 keys: public ones as `age1…`, private ones in a file of `age-keygen`'s form.

Only the keys are age's; what is sealed to them is HPKE (meshd.sealing). Both are bech32 (BIP-173)
of 32 bytes (C2SP, age.md, "The X25519 recipient type").
"""

from __future__ import annotations

from collections.abc import Sequence

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from meshd.config.checksum import ALPHABET, from_fives, to_fives

PUBLIC = "age"
PRIVATE = "AGE-SECRET-KEY-"

_GENERATOR = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_CHECKSUM_CHARACTERS = 6
_KEY_BYTES = 32


def read_public_key(text: str) -> bytes:
    """Return the 32 bytes of `age1…`.

    Raises:
        ValueError: a sentence that says what is wrong and holds no secret.
    """
    if looks_private(text):
        raise ValueError("it is a private key: make a new one, this one is known now")
    return _decode(text, PUBLIC)


def read_private_keys(text: str) -> list[X25519PrivateKey]:
    """Return the keys in a file's text: one on a line, comments begin with `#`.

    Raises:
        ValueError: a sentence that says what is wrong and holds no secret.
    """
    keys = []
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        if stripped.lower().startswith("age1"):
            raise ValueError(f"line {number} is a public key")
        try:
            raw = _decode(stripped, PRIVATE)
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from None
        keys.append(X25519PrivateKey.from_private_bytes(raw))
    if not keys:
        raise ValueError("it holds no key")
    return keys


def write_private_key(key: X25519PrivateKey) -> str:
    """Return `AGE-SECRET-KEY-1…`."""
    return _encode(PRIVATE, key.private_bytes_raw()).upper()


def write_public_key(key: X25519PrivateKey) -> str:
    """Return the `age1…` that belongs to a private key."""
    return _encode(PUBLIC, key.public_key().public_bytes_raw())


def looks_private(text: str) -> bool:
    """Whether this is a private key, or part of one."""
    return text.strip().upper().startswith("AGE-SECRET")


def _encode(prefix: str, content: bytes) -> str:
    values = to_fives(content)
    low = prefix.lower()
    rest = _polymod([*_expanded(low), *values, *[0] * _CHECKSUM_CHARACTERS]) ^ 1
    count = _CHECKSUM_CHARACTERS
    checksum = [rest >> 5 * (count - 1 - n) & 31 for n in range(count)]
    return f"{low}1" + "".join(ALPHABET[value] for value in (*values, *checksum))


def _decode(text: str, prefix: str) -> bytes:
    low, head = text.lower(), f"{prefix.lower()}1"
    if text not in {low, text.upper()}:
        raise ValueError("it mixes small and capital letters")
    if not low.startswith(head):
        raise ValueError(f"it does not begin with {prefix}1")
    values = [ALPHABET.find(letter) for letter in low[len(head) :]]
    if -1 in values:
        place = len(head) + values.index(-1) + 1
        raise ValueError(f"its character {place} is not used in keys")
    if _polymod([*_expanded(prefix.lower()), *values]) != 1:
        raise ValueError("it is mistyped or cut: its checksum does not fit")
    content = from_fives(values[:-_CHECKSUM_CHARACTERS])
    if content is None or len(content) != _KEY_BYTES:
        raise ValueError(f"it does not hold {_KEY_BYTES} bytes")
    return content


def _polymod(values: Sequence[int]) -> int:
    """Return BIP-173's `bech32_polymod`."""
    residue = 1
    for value in values:
        top = residue >> 25
        residue = (residue & 0x1FFFFFF) << 5 ^ value
        for bit, generator in enumerate(_GENERATOR):
            if top >> bit & 1:
                residue ^= generator
    return residue


def _expanded(prefix: str) -> list[int]:
    return [*(ord(one) >> 5 for one in prefix), 0, *(ord(one) & 31 for one in prefix)]
