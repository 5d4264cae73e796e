"""A reset of etcd's membership on this node, step by step, each of them durable before the next.

    asked     k3s is stopped and kept down          stopped   the database is copied aside
    copied    k3s is told to reset, once            running   k3s server --cluster-reset
    reset     the new epoch is on the mark; its record is published, and k3s starts as ever
    undoing   the reset failed: the copy takes the place of what is left

Invariants: the intent is on disk before anything is touched, and whoever starts afterwards goes on
with it; the copy is complete before k3s changes the database; from `asked` until the end nothing
but this starts k3s; what is not known to have succeeded is done again, or undone.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
import structlog
import trio

from meshd.cluster import gate, kubevip
from meshd.cluster.aside import aside_folder
from meshd.cluster.copying import copy_aside, move_aside
from meshd.cluster.groundwork import Groundwork, Surroundings, Tokens
from meshd.cluster.hostinit import Held, HostInit
from meshd.cluster.intent import Intent, against, read_intent, read_last
from meshd.cluster.mark import (
    Database,
    Mark,
    look_at_database,
    look_at_snapshot,
    read_mark,
    write_first_start,
    write_mark,
)
from meshd.cluster.obstacle import Obstacle, refused, waiting
from meshd.cluster.paths import K3sPaths
from meshd.cluster.plan import Launch
from meshd.cluster.snapshot import fault_of
from meshd.errors import MeshdError
from meshd.events import ClusterOrder, K3sObserved, MembershipReset
from meshd.ports import EventSink
from meshd.whole_file import free_name, make_folder, sync_folder, write_whole

ATTEMPTS_MAX = 3
TOLD_AGAIN_S = 2.0
HEARING_S = 20.0
"""So long one that goes on after a restart waits to hear of a server that is back. A guess."""
ATTEMPT_S = 600.0
"""So long one attempt may take; k3s takes under a minute, and more on a slow disk. A guess."""
SNAPSHOT_NAME_MAX = 100
SUCCESS = "Managed etcd cluster membership has been reset"
"""What k3s says at the end (v1.34.1). The flag that it leaves on disk comes before the work."""

_LOG: structlog.typing.FilteringBoundLogger = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Around:
    """What a step may need: the newest order, the machine now, and where to say what was done."""

    order: ClusterOrder
    surroundings: Surroundings
    events: EventSink


class Resetting:
    """At most one reset at a time."""

    def __init__(
        self,
        state_dir: Path,
        paths: K3sPaths,
        hostinit: HostInit,
        groundwork: Groundwork,
        *,
        clock: Callable[[], float],
    ) -> None:
        self._state_dir = state_dir
        self._paths = paths
        self._hostinit = hostinit
        self._groundwork = groundwork
        self._clock = clock
        self._laid: Launch | None = None
        self._told_at = float("-inf")
        self._attempt_ends = float("inf")
        self.intent, self.damage = read_intent(self._file)
        # Who goes on with one after a restart has heard nobody yet.
        self._not_before = clock() + HEARING_S if self.intent is not None else float("-inf")
        self.last = read_last(self._ended_folder)
        self.sentence = ""  # What it waits for.

    @property
    def epoch(self) -> int:
        """The epoch that a reset under way is to begin; 0 if none is."""
        return self.intent.epoch if self.intent is not None else 0

    def database(self, snapshot: str | None = None) -> Database | None:
        """Return what is known of etcd's database on this disk, or of what it is to come from.

        Raises:
            OSError: it cannot be read.
            MeshdError: nothing could be restored from the snapshot.
        """
        if snapshot is None:
            return look_at_database(self._paths)
        fault = fault_of(Path(snapshot))
        if fault is not None:
            raise MeshdError(
                "MESH-4036", fault, fix="name a file that `k3s etcd-snapshot save` wrote, whole"
            )
        return look_at_snapshot(self._paths, Path(snapshot))

    def begin(self, intent: Intent) -> None:
        """Write the intent down; from now on it is carried out.

        Raises:
            OSError: the disk refuses; nothing will be done.
        """
        assert self.intent is None
        self._save(intent)

    async def advance(self, around: Around) -> Obstacle | None:
        """Go on with a reset as far as can be; return what everything else waits for, or None."""
        if self.damage is not None:
            return Obstacle(state="failed", sentence=self.damage)
        obstacle: Obstacle | None = None
        try:
            while (intent := self.intent) is not None:
                obstacle = await self._step(intent, around)
                if self.intent is intent:
                    break
        except OSError as error:
            obstacle = refused(error)
        self.sentence = obstacle.sentence if obstacle is not None else ""
        return obstacle if self.intent is not None else None

    def look(self, said: K3sObserved) -> None:
        """Take note of what k3s says: the reset is over once it serves the new epoch."""
        intent = self.intent
        done = intent is not None and intent.stage == "reset" and said.epoch >= intent.epoch
        if intent is not None and done and said.state == "ready":
            try:
                self._finish(intent, "done")
            except OSError as error:  # The next look tries again.
                _LOG.error("reset_end_not_noted", why=refused(error).sentence)

    async def _step(self, intent: Intent, around: Around) -> Obstacle | None:
        order = around.order
        if order.plan is None or order.plan.cluster_id != intent.cluster_id:
            return waiting("what is decided to be read from the disk")
        opposed = against(intent, order)
        # Cut short, and what else was decided since leaves nothing to go on with.
        cut_short = intent.stage == "running" and self._laid is None
        if intent.stage in ("asked", "stopped", "copied") or cut_short:
            if opposed is not None and intent.attempt == 0:
                self._finish(intent, "gave way", f"{opposed}: nothing was done here")
                return None
            if opposed is not None:  # An attempt may have changed the database.
                self._save(msgspec.structs.replace(intent, stage="undoing", why=opposed))
                return None
            if self._clock() < self._not_before:
                return waiting("a moment to hear whether a server that was to be dead is back")
        steps = {
            "asked": self._stop,
            "stopped": self._copy,
            "copied": self._prepare_attempt,
            "running": self._run,
            "reset": self._publish,
            "undoing": self._undo,
        }
        return await steps[intent.stage](intent, around)

    async def _stop(self, intent: Intent, around: Around) -> Obstacle | None:
        obstacle = await self._down(intent)
        if obstacle is not None:
            return obstacle
        plan = around.order.plan
        address = plan.vip if plan is not None else None
        if address is not None:
            kubevip.stop_kube_vip()
            if kubevip.is_here(address):
                await kubevip.remove_address(address)
        self._save(msgspec.structs.replace(intent, stage="stopped"))
        return None

    async def _down(self, intent: Intent) -> Obstacle | None:
        """Have k3s down, and nobody but this start it."""
        await trio.to_thread.run_sync(gate.revoke, self._state_dir, intent.cluster_id)
        await self._hostinit.stop(intent.cluster_id)
        held = self._hostinit.look()
        if held.pid is not None or (held.cluster == intent.cluster_id and not held.down):
            return waiting("k3s to be down, before etcd's membership is reset")
        return None

    async def _copy(self, intent: Intent, _: Around) -> Obstacle | None:
        missing = await trio.to_thread.run_sync(
            move_aside if intent.snapshot else copy_aside, self._database, self._copy_of(intent)
        )
        if missing is not None:
            self._finish(intent, "failed", missing)
        else:
            self._save(msgspec.structs.replace(intent, stage="copied"))
        return None

    async def _prepare_attempt(self, intent: Intent, _: Around) -> Obstacle | None:
        # What an attempt that was cut short left: with it k3s takes the reset for done.
        (self._paths.server / "db" / "reset-flag").unlink(missing_ok=True)
        self._laid = None
        self._save(msgspec.structs.replace(intent, stage="running", attempt=intent.attempt + 1))
        return None

    async def _run(self, intent: Intent, around: Around) -> Obstacle | None:
        if self._laid is None:
            tokens = self._groundwork.tokens(around.order)
            if not isinstance(tokens, Tokens):
                return tokens
            laid = await trio.to_thread.run_sync(
                lambda: self._groundwork.lay_reset(
                    around.order,
                    tokens,
                    around.surroundings,
                    attempt=intent.attempt,
                    address=intent.seats[0].node_ip,
                    snapshot=intent.snapshot,
                )
            )
            if isinstance(laid, Obstacle):
                return laid
            self._laid, self._attempt_ends = laid, self._clock() + ATTEMPT_S
        late = self._clock() >= self._attempt_ends
        if not late:
            await self._hostinit.ensure(self._laid)
        held = self._hostinit.look()
        gone = f"{held.blocked} is gone" if held.blocked is not None else None
        if (why := held.refused or gone) is not None:
            self._save(msgspec.structs.replace(intent, stage="undoing", why=why))
            return None
        if held.pid is None and held.exits and held.last_exit is not None:
            return await self._ended(intent, held)
        if not late:
            return waiting("k3s to reset etcd's membership")
        obstacle = await self._down(intent)
        if obstacle is None:
            self._failed(intent, f"k3s was not done after {ATTEMPT_S:.0f} s")
        return obstacle

    async def _ended(self, intent: Intent, held: Held) -> Obstacle | None:
        lines = held.last_exit.lines if held.last_exit is not None else ()
        if any(SUCCESS in line for line in lines):
            self._mark(intent.epoch, intent.seats[0].node_ip)
            # From now on this node may be the only server: what it lost is never begun anew.
            write_first_start(self._state_dir, intent.cluster_id, "begun")
            self._save(msgspec.structs.replace(intent, stage="reset"))
        else:
            self._failed(intent, lines[-1][:300] if lines else "it said nothing")
        return None

    def _failed(self, intent: Intent, why: str) -> None:
        """Try once more, or put everything back."""
        if intent.attempt < ATTEMPTS_MAX:
            self._save(msgspec.structs.replace(intent, stage="copied"))
            return
        why = f"k3s did not reset the membership in {intent.attempt} attempts; last: {why}"
        self._save(msgspec.structs.replace(intent, stage="undoing", why=why))

    def _mark(self, epoch: int, address: str) -> None:
        """Say of the database which epoch it is of, and the address that its member has there."""
        mark = read_mark(self._paths.server)
        assert isinstance(mark, Mark), "nothing was started without it"
        changed = msgspec.structs.replace(mark, epoch=epoch, node_ip=address, begun=True)
        write_mark(self._paths.server, changed)

    async def _publish(self, intent: Intent, around: Around) -> Obstacle | None:
        order = around.order
        if order.epoch >= intent.epoch and order.survivor:
            return None  # As ever from here on; `look` sees the end.
        if order.epoch > intent.epoch:
            self._finish(intent, "overtaken", f"the reset of epoch {order.epoch} holds instead")
            return None
        if self._clock() - self._told_at >= TOLD_AGAIN_S:
            self._told_at = self._clock()
            await around.events.send(
                MembershipReset(
                    epoch=intent.epoch,
                    cluster_id=intent.cluster_id,
                    before=intent.before,
                    seats=intent.seats,
                    dead=tuple(seat.node for seat in intent.dead),
                    by=intent.by,
                    at_ms=intent.at_ms,
                    ended=intent.ended,
                    snapshot=Path(intent.snapshot).name[-SNAPSHOT_NAME_MAX:],
                )
            )
        return waiting("the record of the reset to be published")

    async def _undo(self, intent: Intent, _: Around) -> Obstacle | None:
        obstacle = await self._down(intent)
        if obstacle is None:
            # An attempt may have marked it, and then the power failed before that was noted.
            if isinstance(read_mark(self._paths.server), Mark):
                self._mark(intent.base, intent.was)
            await trio.to_thread.run_sync(self._put_back, intent)
            self._finish(intent, "failed", intent.why)
        return obstacle

    def _put_back(self, intent: Intent) -> None:
        copy = self._copy_of(intent)
        if not copy.exists() and any(copy.parent.glob("etcd-failed*")):
            return  # Put back, and then the power failed.
        if not copy.exists():
            raise FileNotFoundError(errno.ENOENT, "the copy of the database is gone", str(copy))
        make_folder(self._database, mode=0o700)  # What is moved away says that this was done.
        self._database.rename(free_name(copy.with_name("etcd-failed")))
        copy.rename(self._database)
        (self._database.parent / "reset-flag").unlink(missing_ok=True)
        sync_folder(copy.parent)
        sync_folder(self._database.parent)

    @property
    def _database(self) -> Path:
        return self._paths.server / "db" / "etcd"

    def _copy_of(self, intent: Intent) -> Path:
        # With the time in its name: a reset that failed leaves things in its own folder.
        name = f"{intent.cluster_id}-before-epoch-{intent.epoch}-{intent.at_ms}"
        return aside_folder(self._paths, name) / "etcd"

    @property
    def _file(self) -> Path:
        return self._state_dir / "cluster" / "reset.json"

    @property
    def _ended_folder(self) -> Path:
        return self._state_dir / "cluster" / "resets"

    def _save(self, intent: Intent) -> None:
        make_folder(self._file.parent, mode=0o700)
        write_whole(self._file, msgspec.json.encode(intent) + b"\n")
        self.intent = intent
        _LOG.warning("reset", stage=intent.stage, epoch=intent.epoch, attempt=intent.attempt)

    def _finish(
        self,
        intent: Intent,
        outcome: Literal["done", "gave way", "failed", "overtaken"],
        why: str = "",
    ) -> None:
        ended = msgspec.structs.replace(intent, outcome=outcome, why=why)
        kept = self._ended_folder / f"{intent.epoch}-{intent.at_ms}.json"
        make_folder(kept.parent, mode=0o700)
        write_whole(kept, msgspec.json.encode(ended) + b"\n")
        self._file.unlink()
        sync_folder(self._file.parent)
        self.intent, self.last, self._laid = None, ended, None
        _LOG.warning("reset_ended", outcome=outcome, epoch=intent.epoch, why=why)
