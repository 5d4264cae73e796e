"""Text that tells when it was mistyped, and where.

The alphabet is bech32's (BIP-173: no 1, b, i or o in the data part), the checksum the long one of
codex32 (BIP-93): a BCH code of designed distance 9 over up to 1023 characters, so any 8 wrong
characters are noticed whatever the length, and a single one is found again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

ALPHABET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
CHECKSUM_CHARACTERS = 15
CODE_CHARACTERS_MAX = 1023

_GENERATOR = (
    0x3D59D273535EA62D897,
    0x7A9BECB6361C6C51507,
    0x543F9B7E6C38D8A2A0E,
    0x0C577EAECCF1990D13C,
    0x1887F74F8DC71B10651,
)
_TARGET = 0x43381E570BF4798AB26
_VALUES = {character: value for value, character in enumerate(ALPHABET)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """Where a text went wrong: `place` counts its characters from 1; `what` is a sentence."""

    place: int
    what: str


def polymod(values: Sequence[int], residue: int = 1) -> int:
    """Return the 75-bit residue of 5-bit `values` (BIP-93, `ms32_long_polymod`)."""
    for value in values:
        top = residue >> 70
        residue = (residue & (1 << 70) - 1) << 5 ^ value
        for bit, generator in enumerate(_GENERATOR):
            if top >> bit & 1:
                residue ^= generator
    return residue


def encode(prefix: str, content: bytes) -> str:
    """Return `prefix`, `1`, and `content` with its checksum, in lower case.

    Raises:
        ValueError: `content` is longer than the code protects.
    """
    values = to_fives(content)
    if _start_length(prefix) + len(values) + CHECKSUM_CHARACTERS > CODE_CHARACTERS_MAX:
        raise ValueError(f"{len(content)} bytes do not fit into {CODE_CHARACTERS_MAX} characters")
    rest = polymod([*values, *[0] * CHECKSUM_CHARACTERS], _start(prefix)) ^ _TARGET
    checksum = [rest >> 5 * (CHECKSUM_CHARACTERS - 1 - n) & 31 for n in range(CHECKSUM_CHARACTERS)]
    return prefix + "1" + "".join(ALPHABET[value] for value in (*values, *checksum))


def decode(prefix: str, text: str) -> bytes | Mistake:
    """Return the content of `text`, which starts with `prefix` and `1`, or where it is wrong.

    Case does not matter. A `Mistake` names the first place that explains the damage; when more
    than one character is wrong there may be no telling, and the place is 0.
    """
    begin = len(prefix) + 1
    body = text.lower()[begin:]
    strange = [index for index, character in enumerate(body) if character not in _VALUES]
    values = [_VALUES.get(character, 0) for character in body]
    if len(values) <= CHECKSUM_CHARACTERS:
        return Mistake(place=len(text), what="the text ends too early")
    if _start_length(prefix) + len(values) > CODE_CHARACTERS_MAX:
        return Mistake(place=len(text), what="the text is longer than any token")
    syndrome = polymod(values, _start(prefix)) ^ _TARGET
    if strange or syndrome:
        return _locate(_start(prefix), values, strange, syndrome, begin + 1)
    content = from_fives(values[:-CHECKSUM_CHARACTERS])
    if content is None:
        return Mistake(place=len(text), what="the last bits are not padding")
    return content


def _locate(
    start: int, values: list[int], strange: list[int], syndrome: int, first: int
) -> Mistake:
    """Name the one change that would make the text right; `first` is the place of `values[0]`."""
    if len(strange) > 1:
        return Mistake(
            place=strange[0] + first,
            what="this character and others later are not used in tokens",
        )
    errors = _single_errors(len(values))
    for index in strange or range(len(values)):
        for error, effect in enumerate(errors[index]):
            if effect == syndrome:
                right = ALPHABET[values[index] ^ error]
                return Mistake(place=index + first, what=f"probably meant to be {right!r}")
    if strange:
        return Mistake(place=strange[0] + first, what="this character is not used in tokens")
    for index, (left, right_value) in enumerate(pairwise(values)):
        error = left ^ right_value
        if error and errors[index][error] ^ errors[index + 1][error] == syndrome:
            return Mistake(place=index + first, what="this character and the next are swapped")
    return _locate_length(start, values, first)


def _locate_length(start: int, values: list[int], first: int) -> Mistake:
    """Find one character too many, or one too few.

    Leaving out index + 1 in place of index changes the shortened text in one place only, so each
    residue follows from the one before; the same holds for a zero put in.
    """
    errors = _single_errors(len(values) - 1)
    residue = polymod(values[1:], start)
    for index in range(len(values)):
        if residue == _TARGET:
            return Mistake(place=index + first, what="this character is one too many")
        if index + 1 < len(values):
            residue ^= errors[index][values[index] ^ values[index + 1]]
    errors = _single_errors(len(values) + 1)
    residue = polymod([0, *values], start)
    for index in range(len(values) + 1):
        if residue ^ _TARGET in errors[index]:
            return Mistake(place=index + first, what="a character is missing here")
        if index < len(values):
            residue ^= errors[index][values[index]] ^ errors[index + 1][values[index]]
    return Mistake(place=0, what="more than one character is wrong")


@lru_cache(maxsize=4)
def _single_errors(length: int) -> tuple[tuple[int, ...], ...]:
    """For each index, what adding the error values 0 to 31 there does to the residue.

    The residue is linear in the values, so one table answers for every text of this length.
    """
    columns: list[tuple[int, ...]] = []
    effects = tuple(range(32))
    for _ in range(length):
        columns.append(effects)
        effects = tuple(polymod([0], effect) for effect in effects)
    return tuple(reversed(columns))


def _start(prefix: str) -> int:
    """Return the residue after the prefix, expanded as in BIP-173."""
    high = [ord(character) >> 5 for character in prefix]
    low = [ord(character) & 31 for character in prefix]
    return polymod([*high, 0, *low])


def _start_length(prefix: str) -> int:
    return 2 * len(prefix) + 1


def to_fives(content: bytes) -> list[int]:
    """Return `content` in groups of 5 bits, padded with zero bits."""
    padding = -len(content) * 8 % 5
    number = int.from_bytes(content, "big") << padding
    count = (len(content) * 8 + padding) // 5
    return [number >> 5 * (count - 1 - index) & 31 for index in range(count)]


def from_fives(values: Sequence[int]) -> bytes | None:
    """Return the bytes of 5-bit groups, or None if what is left over is not fewer than 5 zeros."""
    number = 0
    for value in values:
        number = number << 5 | value
    left_over = len(values) * 5 % 8
    if left_over >= 5 or number & ((1 << left_over) - 1):
        return None
    return (number >> left_over).to_bytes(len(values) * 5 // 8, "big")
