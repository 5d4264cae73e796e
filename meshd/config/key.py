"""One key of the configuration: its place, its type, and what a person should know about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from meshd.config.values import Reader

T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Key(Generic[T_co]):
    """A key: where it stands, how its value is read, and whether it must not be shown.

    Args:
        path: dotted, such as `p2p.role`.
        read: the reader of its value.
        about: one sentence for the reference page and for editors.
        default: what holds if nobody sets it, as it would stand in a file; None if nothing does.
        secret: its value is never shown.
        idle: why a key that is accepted has no effect.
        settled: values of an idle key that say what is so anyway.
        moot: (path, value) of another key with which nobody minds that this one is idle.
        mend: what to do about an idle key, if not just to remove it.
    """

    path: str
    read: Reader[T_co]
    about: str = ""
    default: object = None
    secret: bool = False
    idle: str | None = None
    settled: tuple[object, ...] = (False,)
    moot: tuple[str, object] | None = None
    mend: str = "remove it, or leave it for other readers of the file"
