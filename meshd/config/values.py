"""Readers of single values: each turns a tree into a typed value or says what would do.

A reader also says, for JSON Schema and for people, what it accepts.
"""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Generic, TypeVar

from meshd.config.age import looks_private, read_public_key
from meshd.config.multiaddress import parse_tcp_address
from meshd.config.schema import Origin
from meshd.config.tree import Scalar, Sequence, Table, Tree, plain

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

HIDDEN = "(hidden)"

_SECRET_ARGUMENT = re.compile(r"(--?[a-z0-9-]*(?:token|endpoint|key|secret)[a-z0-9-]*)[= ]\S+")
_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")
_INTERFACE = re.compile(r"[^/\s]{1,15}")  # Linux, net/core/dev.c: dev_valid_name.
_YAML_1_1 = {
    **dict.fromkeys(("y", "yes", "on"), "true"),
    **dict.fromkeys(("n", "no", "off"), "false"),
}


class Unfit(Exception):
    """A value does not do: `what` it is, what would do (`fix`), and where, inside a list."""

    def __init__(self, what: str, fix: str, origin: Origin | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.fix = fix
        self.origin = origin


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader(Generic[T_co]):
    """Reads values of one type.

    Args:
        read: returns the value, or raises `Unfit`.
        words: what may be written, for people, such as `true or false`.
        schema: the same as JSON Schema.
        blank: whether an empty text means that nothing is set, as in Kairos' examples.
    """

    read: Callable[[Tree], T_co]
    words: str
    schema: Mapping[str, object] = field(default_factory=dict)
    blank: bool = False

    def __call__(self, tree: Tree) -> T_co:
        return self.read(tree)


def _text(tree: Tree) -> str:
    return _scalar(tree, "write one line of text").text


def _flag(tree: Tree) -> bool:
    scalar = _scalar(tree, "write true or false")
    if isinstance(scalar.value, bool):
        return scalar.value
    meant = _YAML_1_1.get(scalar.text.lower())
    if meant is not None:
        raise Unfit(f"{_found(scalar)}, which is a word in YAML 1.2", f"write {meant}")
    if scalar.text.lower() in {"true", "false"}:
        raise Unfit(
            f"{_found(scalar)} in quotes, which is text",
            f"write {scalar.text.lower()}, without quotes",
        )
    raise Unfit(_found(scalar), "write true or false")


def count(least: int, most: int) -> Reader[int]:
    """Return a reader of whole numbers from `least` to `most`."""
    fix = f"write a whole number from {least} to {most}"

    def read(tree: Tree) -> int:
        scalar = _scalar(tree, fix)
        if isinstance(scalar.value, str) and scalar.text.isascii() and scalar.text.isdigit():
            raise Unfit(
                f"{_found(scalar)} in quotes, which is text", f"write {scalar.text}, without quotes"
            )
        if isinstance(scalar.value, bool) or not isinstance(scalar.value, int):
            raise Unfit(_found(scalar), fix)
        if scalar.text.lstrip("+-").startswith("0") and len(scalar.text) > 1:
            # `010` is ten in YAML 1.2, and eight to Go's reader and so to Kairos.
            raise Unfit(
                f"{_found(scalar)}, which readers of YAML understand differently",
                f"write {scalar.value}, if that is meant",
            )
        if not least <= scalar.value <= most:
            raise Unfit(_found(scalar), fix)
        return scalar.value

    return Reader(
        read=read,
        words=f"a number, {least} to {most}" if least < most else str(least),
        schema={"type": "integer", "minimum": least, "maximum": most},
    )


def choice(words: dict[str, T]) -> Reader[T]:
    """Return a reader of one of `words`, which stand for the dictionary's values."""
    shown = ", ".join(word for word in words if word)

    def read(tree: Tree) -> T:
        scalar = _scalar(tree, f"write one of {shown}")
        if scalar.text not in words:
            near = did_you_mean(scalar.text, words)
            raise Unfit(_found(scalar), f"write one of {shown}{near}")
        return words[scalar.text]

    return Reader(
        read=read,
        words=f"one of {shown}",
        schema={"type": "string", "enum": [*filter(None, words), ""]},
        blank=True,
    )


def _interface(tree: Tree) -> str:
    fix = "write the name of a network interface such as eth0"
    scalar = _scalar(tree, fix)
    # Kairos' JSON Schema says boolean, its code says text: a name is meant.
    if isinstance(scalar.value, bool) or not _INTERFACE.fullmatch(scalar.text):
        raise Unfit(_found(scalar), fix)
    return scalar.text


def _duration_s(tree: Tree) -> int:
    scalar = _scalar(tree, "write a duration such as 10m")
    match = _DURATION.fullmatch(scalar.text)
    if not scalar.text or match is None:
        raise Unfit(_found(scalar), "write a duration such as 90s, 10m or 1h30m")
    hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return hours * 3600 + minutes * 60 + seconds


def _address(tree: Tree) -> str:
    scalar = _scalar(tree, "write an address such as 10.0.0.50")
    try:
        return str(ip_address(scalar.text))
    except ValueError:
        raise Unfit(
            _found(scalar), "write an address such as 10.0.0.50, no name, no mask"
        ) from None


def _network(tree: Tree) -> str:
    scalar = _scalar(tree, "write a range such as 10.1.0.0/16")
    try:
        return str(ip_network(scalar.text))
    except ValueError as error:
        raise Unfit(f"{_found(scalar)} ({error})", "write a range such as 10.1.0.0/16") from None


def _multiaddr(tree: Tree) -> str:
    scalar = _scalar(tree, "write an address such as /ip4/10.0.0.11/tcp/7946")
    try:
        return str(parse_tcp_address(scalar.text))
    except ValueError as error:
        raise Unfit(
            f"{_found(scalar)}: {error}", "write an address such as /ip4/10.0.0.11/tcp/7946"
        ) from None


def _admin(tree: Tree) -> str:
    fix = "write a public key as `meshd admin-key new` or `age-keygen` prints it: age1…"
    scalar = _scalar(tree, fix)
    try:
        read_public_key(scalar.text)
    except ValueError as error:
        # A private key is not shown, not even where it does not belong.
        found = "is no public key" if looks_private(scalar.text) else _found(scalar)
        raise Unfit(f"{found}: {error}", fix) from None
    return scalar.text.lower()


def list_of(read_item: Reader[T]) -> Reader[tuple[T, ...]]:
    """Return a reader of lists of what `read_item` reads."""

    def read(tree: Tree) -> tuple[T, ...]:
        if not isinstance(tree, Sequence):
            raise Unfit(_found(tree), "write a list: [ … ], or one item per line after `- `")
        return tuple(_placed(read_item.read, item) for item in tree.items)

    return Reader(
        read=read,
        words=f"a list, each item {read_item.words}",
        schema={"type": "array", "items": read_item.schema},
    )


def _text_table(tree: Tree) -> tuple[tuple[str, str], ...]:
    if not isinstance(tree, Table):
        raise Unfit(_found(tree), "write a mapping: KEY: VALUE, one per line")
    return tuple(sorted((key, _placed(_text, value)) for key, value in tree.entries.items()))


def without_secrets(line: str) -> str:
    """Return a text with the values of arguments such as `--agent-token` hidden."""
    return _SECRET_ARGUMENT.sub(rf"\1={HIDDEN}", line)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` if one of the words in `known` is near, else nothing."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _words(tree: Tree) -> list[str]:
    line = _text(tree)
    try:
        return shlex.split(line)
    except ValueError as error:
        raise Unfit(
            f"has an item that cannot be split into words ({error})", "close the quotation"
        ) from None


def _command_words(tree: Tree) -> tuple[str, ...]:
    return tuple(word for words in _WORD_LISTS(tree) for word in words)


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
    return "is empty" if tree.value is None else f"is {without_secrets(tree.text)!r}"


_SCALAR_TEXT: Mapping[str, object] = {"type": ["string", "number", "boolean"]}

text = Reader(read=_text, words="text", schema=_SCALAR_TEXT, blank=True)
"""A single value as the text that stands in the file."""

flag = Reader(read=_flag, words="true or false", schema={"type": "boolean"})
"""True or false. YAML 1.1's yes and on are words (yaml.org, spec 1.2)."""

interface = Reader(
    read=_interface,
    words="the name of a network interface",
    schema={"type": "string", "pattern": r"^[^/\s]{0,15}$"},
    blank=True,
)
"""The name of a network interface."""

duration_s = Reader(
    read=_duration_s,
    words="a duration such as 90s, 10m or 1h30m",
    schema={"type": "string", "pattern": "^(?=.)([0-9]+h)?([0-9]+m)?([0-9]+s)?$"},
)
"""Seconds of a duration."""

address = Reader(
    read=_address,
    words="an IPv4 or IPv6 address",
    schema={"type": "string", "pattern": "^([0-9A-Fa-f:.]*(%[^/ ]+)?)$"},
    blank=True,
)
"""An IPv4 or IPv6 address in its canonical form."""

network = Reader(
    read=_network,
    words="a range such as 10.1.0.0/16",
    schema={"type": "string", "pattern": "^[0-9A-Fa-f:.]+(/[0-9]+)?$"},
)
"""An address range in its canonical form."""

multiaddr = Reader(
    read=_multiaddr,
    words="an address such as /ip4/10.0.0.11/tcp/7946",
    schema={
        "type": "string",
        "pattern": "^/(ip4|ip6|dns|dns4|dns6)/[^/]+/tcp/[0-9]+(/p2p/[^/]+)?$",
    },
)
"""A TCP multiaddr in its canonical form."""

anything = Reader(
    read=plain,
    words="as kube-vip has it",
    schema={"type": ["object", "array", "string", "number", "boolean"]},
)
"""Whatever stands there, unchecked."""

admin = Reader(
    read=_admin,
    words="a public key of age: age1…",
    schema={"type": "string", "pattern": "^(age1[a-z0-9]{58}|AGE1[A-Z0-9]{58})$"},
)
"""An administrator's public key (meshd.config.age)."""

text_table = Reader(
    read=_text_table,
    words="a mapping of names to text",
    schema={"type": "object", "additionalProperties": _SCALAR_TEXT},
)
"""A mapping of text to text, sorted by key."""

_WORD_LISTS = list_of(Reader(read=_words, words="text", schema=_SCALAR_TEXT))

command_words = Reader(
    read=_command_words,
    words="a list of arguments, quoted as for a shell",
    schema=_WORD_LISTS.schema,
)
"""The words of a list whose items are flags, values, or both, quoted as for a shell.

So Kairos passes them on: in the command line of a unit, which is split again
(kairos-io/provider-kairos, internal/role/p2p/k3s.go).
"""
