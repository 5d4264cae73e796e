"""What an operator asked for, how far it is, and how it ended: files of a reset."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Literal

import msgspec

from meshd.events import ClusterOrder
from roles import Seat

Stage = Literal["asked", "stopped", "copied", "running", "reset", "undoing"]


class Intent(msgspec.Struct, frozen=True, kw_only=True):
    """`cluster/reset.json`: what was asked for, and how far it is. `outcome` is set at the end.

    `base` is the database's epoch before, `was` the address of this node's seat before: both are
    put back with the database. `snapshot` is the path of what it is restored from; "": it is kept.
    """

    cluster_id: str
    base: int
    epoch: int
    before: bytes
    seats: tuple[Seat, ...]
    dead: tuple[Seat, ...]
    ended: tuple[bytes, ...] = ()
    rivals: tuple[Seat, ...] = ()
    was: str
    snapshot: str = ""
    by: str
    at_ms: int
    stage: Stage = "asked"
    attempt: int = 0
    why: str = ""
    outcome: Literal["", "done", "gave way", "failed", "overtaken"] = ""


def read_intent(file: Path) -> tuple[Intent | None, str | None]:
    """Return the reset under way, and what is wrong with its file, as a sentence."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=Intent), None
    except FileNotFoundError:
        return None, None
    except (OSError, msgspec.DecodeError) as error:
        return None, (
            f"how far a reset of etcd's membership came cannot be read from {file} "
            f"({error}): restore that file from a backup; k3s stays down until then"
        )


def read_last(folder: Path) -> Intent | None:
    """Return the last reset that ended on this node, as it ended."""
    ended = []
    for path in folder.glob("*.json"):
        with contextlib.suppress(OSError, msgspec.DecodeError):
            ended.append(msgspec.json.decode(path.read_bytes(), type=Intent))
    return max(ended, key=lambda one: one.at_ms, default=None)


def against(intent: Intent, order: ClusterOrder) -> str | None:
    """Return what speaks against a reset that has changed nothing yet, as a sentence, or None."""
    first = order.rival or ("another node" if order.epoch != intent.base else None)
    if first is not None:
        return f"{first} resets the membership"
    if (
        order.serving and not intent.rivals
    ):  # Who chooses between resets may do so while they serve.
        return f"the API server of {' and '.join(order.serving)} answers again"
    back = [seat for seat in (*intent.dead, *intent.rivals) if seat.node in order.heard]
    names = ", ".join(dict.fromkeys(seat.node_name for seat in back))
    return f"{names}, which was to be dead, is heard again" if back else None
