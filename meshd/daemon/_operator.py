"""What the daemon does because an operator asked: implements `meshd.api.Operable`.

Everything is judged here, by what this node knows at that moment, whatever the command showed
before.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from ledger import Moment
from meshd.api import ResetWanted
from meshd.cluster import K3sCluster
from meshd.cluster.intent import Intent
from meshd.cluster.mark import Database
from meshd.daemon._drive import Driver
from meshd.errors import MeshdError, UsageError
from meshd.machine import read_address_problem
from meshd.node import Node, Proposal, propose_reset

BY_MAX = 100


class Operator:
    """Resets etcd's membership."""

    def __init__(
        self, driver: Driver[Node], cluster: K3sCluster, *, read_moment: Callable[[], Moment]
    ) -> None:
        self._driver = driver
        self._cluster = cluster
        self._read_moment = read_moment

    async def reset(self, wanted: ResetWanted) -> dict[str, object]:
        """Say what a reset would do, and begin it if the cluster id was typed.

        Raises:
            MeshdError: why it may not be.
        """
        try:
            database = await trio.to_thread.run_sync(
                self._cluster.resetting.database, wanted.snapshot
            )
        except OSError as error:
            raise _unreadable(error) from error
        # From here to the end without a pause: what is judged is what is begun.
        node = self._driver.node
        proposal = propose_reset(
            node.directory,
            node.standing,
            api_answers=node.observed is not None and node.observed.endpoint is not None,
            confirm_dead=wanted.confirm_dead,
            readdress=wanted.readdress,
            restores=wanted.snapshot is not None,
        )
        database = self._sound(database, proposal)
        if self._cluster.resetting.intent is not None:
            raise MeshdError(
                "MESH-4026",
                "a reset is under way on this node",
                fix="`meshd bootstrap status` shows how far it is; it goes on by itself",
            )
        if node.order.seat not in ("initialiser", "server"):
            raise MeshdError(
                "MESH-4020",
                "this node has no leave to run a server yet: "
                f"{node.waiting_for or 'it has just been started'}",
                fix="try again in some seconds; `meshd explain join` says more",
            )
        if wanted.cluster_id is not None:
            self._begin(proposal, wanted)
        return self._shown(node, proposal, database) | {"begun": wanted.cluster_id is not None}

    def reset_progress(self) -> dict[str, object]:
        """Return how far a reset is, and how the last one ended."""
        under_way, last = self._cluster.resetting.intent, self._cluster.resetting.last
        return {
            "stage": under_way.stage if under_way is not None else None,
            "epoch": under_way.epoch if under_way is not None else None,
            "waiting_for": self._driver.node.waiting_for if under_way is not None else None,
            "last": None
            if last is None
            else {
                "epoch": last.epoch,
                "at_ms": last.at_ms,
                "by": last.by,
                "outcome": last.outcome,
                "why": last.why,
            },
        }

    def _begin(self, proposal: Proposal, wanted: ResetWanted) -> None:
        if wanted.cluster_id != proposal.cluster_id:
            raise UsageError(
                "MESH-4024",
                f"{wanted.cluster_id!r} is not the id of this cluster; nothing was done",
                fix=f"type {proposal.cluster_id}, if that is the cluster you mean",
            )
        by = "".join(letter for letter in wanted.by if letter.isprintable())[:BY_MAX]
        try:
            self._cluster.begin_reset(
                Intent(
                    cluster_id=proposal.cluster_id,
                    base=proposal.base,
                    epoch=proposal.epoch,
                    before=proposal.before,
                    seats=proposal.seats,
                    dead=proposal.dead,
                    ended=proposal.ended,
                    rivals=proposal.rivals,
                    was=proposal.were[0].node_ip,
                    snapshot=wanted.snapshot or "",
                    by=by or "root",
                    at_ms=self._read_moment().wall_ms,
                )
            )
        except OSError as error:
            raise _unreadable(error) from error

    def _sound(self, database: Database | None, proposal: Proposal) -> Database:
        fits = database is not None and (database.cluster_id, database.epoch) == (
            proposal.cluster_id,
            proposal.base,
        )
        if database is not None and fits:
            return database
        found = "there is no database of etcd"
        if database is not None:
            whose = (database.cluster_id or "no cluster of meshd")[:8]
            found = f"the database is of {whose}, epoch {database.epoch}, "
            found += f"and not of {proposal.cluster_id[:8]}, epoch {proposal.base}"
        raise MeshdError(
            "MESH-4025",
            f"{found} on this node's disk, so nothing could survive here",
            fix="run it on a server that still has its database; if none has, take a k3s etcd "
            "snapshot with --from-snapshot, or put a backup of /var/lib/rancher/k3s/server back",
        )

    def _shown(self, node: Node, proposal: Proposal, database: Database) -> dict[str, object]:
        names = node.directory.name
        plan = node.standing.plan
        vip = plan.vip if plan is not None else None
        written_s = (self._read_moment().wall_ms - database.written_ms) / 1000
        return {
            "cluster_id": proposal.cluster_id,
            "epoch": proposal.epoch,
            "node": names(node.me),
            "dead": [
                names(node)
                for node in dict.fromkeys(s.node for s in (*proposal.dead, *proposal.rivals))
            ],
            "rejoin": [names(seat.node) for seat in proposal.seats[1:]],
            "addresses": [
                [names(now.node), was.node_ip, now.node_ip]
                for was, now in zip(proposal.were, proposal.seats, strict=True)
            ],
            "vip_problem": None if vip is None else read_address_problem(wanted=None, vip=vip),
            "alive": [names(one) for one in sorted(node.directory.present()) if one != node.me],
            "database_bytes": database.size_bytes,
            "database_written_s_ago": round(max(written_s, 0.0)),
        }


def _unreadable(error: OSError) -> MeshdError:
    where = f" at {error.filename}" if error.filename else ""
    return MeshdError(
        "MESH-4033",
        f"the disk refuses{where}: {error.strerror or error}; nothing was done",
        fix="mend the disk or make room on it, and try again",
    )
