"""Readers of single values: each turns a tree into a typed value or says what would do."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Callable, Iterable
from ipaddress import ip_address, ip_network
from typing import TypeVar

from meshd.config.multiaddress import parse_tcp_address
from meshd.config.schema import Origin
from meshd.config.tree import Scalar, Sequence, Table, Tree

T = TypeVar("T")

_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")


class Unfit(Exception):
    """A value does not do: `what` it is, what would do (`fix`), and where, inside a list."""

    def __init__(self, what: str, fix: str, origin: Origin | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.fix = fix
        self.origin = origin


def text(tree: Tree) -> str:
    """Return a single value as the text that stands in the file."""
    return _scalar(tree, "write one line of text").text


def flag(tree: Tree) -> bool:
    """Return true or false. YAML 1.1's yes and on are words (yaml.org, spec 1.2)."""
    scalar = _scalar(tree, "write true or false")
    if not isinstance(scalar.value, bool):
        raise Unfit(_found(scalar), "write true or false, without quotes")
    return scalar.value


def count(least: int, most: int) -> Callable[[Tree], int]:
    """Return a reader of whole numbers from `least` to `most`."""

    def read(tree: Tree) -> int:
        fix = f"write a whole number from {least} to {most}"
        scalar = _scalar(tree, fix)
        if isinstance(scalar.value, bool) or not isinstance(scalar.value, int):
            raise Unfit(_found(scalar), fix + ", without quotes")
        if not least <= scalar.value <= most:
            raise Unfit(_found(scalar), fix)
        return scalar.value

    return read


def choice(words: dict[str, T]) -> Callable[[Tree], T]:
    """Return a reader of one of `words`, which stand for the dictionary's values."""

    def read(tree: Tree) -> T:
        shown = ", ".join(word for word in words if word)
        scalar = _scalar(tree, f"write one of {shown}")
        if scalar.text not in words:
            near = did_you_mean(scalar.text, words)
            raise Unfit(_found(scalar), f"write one of {shown}{near}")
        return words[scalar.text]

    return read


def duration_s(tree: Tree) -> int:
    """Return seconds of a duration such as 90s, 10m or 1h30m."""
    scalar = _scalar(tree, "write a duration such as 10m")
    match = _DURATION.fullmatch(scalar.text)
    if not scalar.text or match is None:
        raise Unfit(_found(scalar), "write a duration such as 90s, 10m or 1h30m")
    hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return hours * 3600 + minutes * 60 + seconds


def address(tree: Tree) -> str:
    """Return an IPv4 or IPv6 address in its canonical form."""
    scalar = _scalar(tree, "write an address such as 10.0.0.50")
    try:
        return str(ip_address(scalar.text))
    except ValueError:
        raise Unfit(
            _found(scalar), "write an address such as 10.0.0.50, no name, no mask"
        ) from None


def network(tree: Tree) -> str:
    """Return an address range in its canonical form."""
    scalar = _scalar(tree, "write a range such as 10.1.0.0/16")
    try:
        return str(ip_network(scalar.text))
    except ValueError as error:
        raise Unfit(f"{_found(scalar)} ({error})", "write a range such as 10.1.0.0/16") from None


def multiaddr(tree: Tree) -> str:
    """Return a TCP multiaddr in its canonical form."""
    scalar = _scalar(tree, "write an address such as /ip4/10.0.0.11/tcp/7946")
    try:
        return str(parse_tcp_address(scalar.text))
    except ValueError as error:
        raise Unfit(
            f"{_found(scalar)}: {error}", "write an address such as /ip4/10.0.0.11/tcp/7946"
        ) from None


def list_of(read_item: Callable[[Tree], T]) -> Callable[[Tree], tuple[T, ...]]:
    """Return a reader of lists of what `read_item` reads."""

    def read(tree: Tree) -> tuple[T, ...]:
        if not isinstance(tree, Sequence):
            raise Unfit(_found(tree), "write a list: [ … ], or one item per line after `- `")
        return tuple(_placed(read_item, item) for item in tree.items)

    return read


def command_words(tree: Tree) -> tuple[str, ...]:
    """Return the words of a list whose items are flags, values, or both, quoted as for a shell.

    So Kairos passes them on: in the command line of a unit, which is split again
    (kairos-io/provider-kairos, internal/role/p2p/k3s.go).
    """
    return tuple(word for words in list_of(_words)(tree) for word in words)


def text_table(tree: Tree) -> tuple[tuple[str, str], ...]:
    """Return a mapping of text to text, sorted by key."""
    if not isinstance(tree, Table):
        raise Unfit(_found(tree), "write a mapping: KEY: VALUE, one per line")
    return tuple(sorted((key, _placed(text, value)) for key, value in tree.entries.items()))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` if one of the words in `known` is near, else nothing."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _words(tree: Tree) -> list[str]:
    line = text(tree)
    try:
        return shlex.split(line)
    except ValueError as error:
        raise Unfit(
            f"has an item that cannot be split into words ({error})", "close the quotation"
        ) from None


def _placed(read: Callable[[Tree], T], tree: Tree) -> T:
    """Read a part of a value, and name that part's own place if it does not do."""
    try:
        return read(tree)
    except Unfit as unfit:
        raise Unfit(unfit.what, unfit.fix, unfit.origin or tree.origin) from None


def _scalar(tree: Tree, fix: str) -> Scalar:
    if not isinstance(tree, Scalar) or tree.value is None:
        raise Unfit(_found(tree), fix)
    return tree


def _found(tree: Tree) -> str:
    if isinstance(tree, Table):
        return "is a mapping"
    if isinstance(tree, Sequence):
        return "is a list"
    return "is empty" if tree.value is None else f"is {tree.text!r}"
