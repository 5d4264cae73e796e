"""A server's way into etcd and out of it: join as a learner, promotion, removal (k3s pkg/etcd)."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from simulations.standin.etcd import PEER_PORT, Etcd, EtcdError, Member, url
from simulations.standin.kube import NODE, Fields, Objects, Refused, with_condition
from simulations.standin.layout import Layout, write
from simulations.standin.log import log, shutdown
from simulations.standin.supervisor import Supervisor, refusal
from simulations.standin.wire import Unreachable

PROMOTE_INTERVAL_S = float(os.environ.get("STANDIN_PROMOTE_INTERVAL_S", "2"))
_RETRY_INTERVAL_S = 1.0
_STALLED_AFTER_S = 300.0  # k3s gives up a learner without progress after five minutes.
_REMOVAL_LIMIT_S = 60.0
_NAME_ANNOTATION = "etcd.k3s.cattle.io/node-name"
_ADDRESS_ANNOTATION = "etcd.k3s.cattle.io/node-address"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """This server in etcd: its node, its member name and its address."""

    node_name: str
    member_name: str
    address: str

    @property
    def peer_url(self) -> str:
        return url(self.address, PEER_PORT)

    @property
    def cluster_part(self) -> str:
        return f"{self.member_name}={self.peer_url}"


def take_seat(layout: Layout, node_name: str, address: str, *, anew: bool = False) -> Seat:
    """Return the member name that is on disk, or make one: `<node>-<8 hex>`."""
    file = layout.member_name
    if anew or not file.is_file():
        write(file, f"{node_name}-{secrets.token_hex(4)}")
    member_name = file.read_text(encoding="utf-8").strip()
    return Seat(node_name=node_name, member_name=member_name, address=address)


async def join(layout: Layout, seat: Seat, supervisor: Supervisor) -> str:
    """Become a learner, however long that takes; returns etcd's `initial-cluster`.

    Raises Exit (code 0!) on what k3s takes for final, such as a duplicate node name.
    """
    while True:
        members = await _members_of(supervisor)
        if members is not None:
            others = _others(seat, members)
            known = len(others) < len(members)
            if known or await _added(layout, seat, members):
                parts = [f"{m.name}={m.peer_urls[0]}" for m in others if m.name]
                return ",".join([*parts, seat.cluster_part])
        await asyncio.sleep(_RETRY_INTERVAL_S)


async def _members_of(supervisor: Supervisor) -> tuple[Member, ...] | None:
    """Return the other side's member list, or None if it has none yet."""
    try:
        answer = await supervisor.ask("/db/info", user="server")
    except Unreachable as error:
        log("warning", f"Failed to get member list from cluster: {error}")
        return None
    if answer.status != 200:
        log("info", f"Waiting for etcd cluster to be available: {refusal(answer)}")
        return None
    return tuple(
        Member(
            id=int(fields["ID"]),
            name=fields.get("name", ""),
            peer_urls=tuple(fields.get("peerURLs", ())),
            client_urls=tuple(fields.get("clientURLs", ())),
            learner=bool(fields.get("isLearner", False)),
        )
        for fields in json.loads(answer.body)["members"]
    )


def _others(seat: Seat, members: Sequence[Member]) -> list[Member]:
    """Return the members but this one: added before, at most started under its own name."""
    others = [m for m in members if not _is_seat(seat, m)]
    for member in others:
        if member.name.rpartition("-")[0] == seat.node_name:
            reason = "duplicate node name found, please use a unique name for this node"
            raise shutdown(f"etcd cluster join failed: {reason}")
    return others


def _is_seat(seat: Seat, member: Member) -> bool:
    return member.name == seat.member_name or (
        not member.name and seat.peer_url in member.peer_urls
    )


async def _added(layout: Layout, seat: Seat, members: Sequence[Member]) -> bool:
    """Add this server as a learner; returns False where k3s would try again."""
    voters = [u for m in members if not m.learner for u in m.client_urls]
    etcd = Etcd(layout, voters)
    try:
        log("info", f"Adding member {seat.cluster_part} to etcd cluster {voters}")
        await etcd.add_learner(seat.peer_url)
    except EtcdError as error:
        words = str(error)
        passing = ("too many learner", "unhealthy cluster", "deadline", "connect:", "EOF")
        if not any(word in words for word in passing):
            raise shutdown(f"etcd cluster join failed: {words}") from error
        log("info", f"Waiting for other members to finish joining etcd cluster: {words}")
        return False
    finally:
        etcd.close()
    return True


class Caretaker:
    """Looks after membership once a server is up: its own node's condition, others' promotion."""

    def __init__(self, seat: Seat, etcd: Etcd, objects: Objects, *, has_node: bool) -> None:
        self._seat = seat
        self._etcd = etcd
        self._objects = objects
        self._silent = has_node
        self._leaving: list[tuple[Fields, float]] = []
        self._progress: dict[int, tuple[int, float]] = {}

    async def run(self, layout: Layout) -> None:
        """Look every PROMOTE_INTERVAL_S seconds, for ever."""
        while True:
            try:
                await self._look(layout)
            except (EtcdError, Refused) as error:
                log("debug", f"Membership not looked after: {error}")
            await asyncio.sleep(PROMOTE_INTERVAL_S)

    async def node_gone(self, node: Fields) -> None:
        """Remove a deleted node's member, now or, while etcd refuses, at one of the next looks."""
        self._leaving.append((node, time.monotonic() + _REMOVAL_LIMIT_S))
        try:
            await self._remove_leaving()
        except EtcdError as error:
            log("error", f"Failed to remove etcd member, will retry: {error}")

    async def _remove_leaving(self) -> None:
        self._leaving = [entry for entry in self._leaving if time.monotonic() < entry[1]]
        for entry in tuple(self._leaving):
            await _remove_member_of(self._etcd, entry[0])
            self._leaving.remove(entry)

    async def _look(self, layout: Layout) -> None:
        await self._remove_leaving()
        status = await self._etcd.status()
        if status.leader_id == status.member_id:
            for member in await self._etcd.members():
                if member.learner:
                    await self._promote(layout, member)
        if self._silent:
            await self._objects.change(NODE, "", self._seat.node_name, self._as_voter)
            # With the Node's annotations, so that a server without an agent keeps it (seen).
            layout.reset_flag.unlink(missing_ok=True)
            self._silent = False

    async def _promote(self, layout: Layout, member: Member) -> None:
        try:
            await self._etcd.promote(member.id)
            log("info", f"Learner {member.name} has been promoted to voter")
        except EtcdError as error:
            log("debug", f"Learner {member.name} not promoted yet: {error}")
            await self._give_up_stalled(layout, member)

    async def _give_up_stalled(self, layout: Layout, member: Member) -> None:
        before = self._progress.get(member.id, (-1, 0.0))
        applied = before[0]
        if member.client_urls:
            learner = Etcd(layout, member.client_urls)
            try:
                applied = (await learner.status()).applied
            except EtcdError:
                pass  # No answer is no progress.
            finally:
                learner.close()
        now = time.monotonic()
        if applied != before[0] or not before[1]:
            self._progress[member.id] = (applied, now)
        elif now - before[1] > _STALLED_AFTER_S:
            log("warning", f"Learner {member.name} stalled; removing it from etcd")
            await self._etcd.remove(member.id)

    def _as_voter(self, node: Fields) -> Fields:
        metadata = node["metadata"]
        annotations = {
            **metadata.get("annotations", {}),
            _NAME_ANNOTATION: self._seat.member_name,
            _ADDRESS_ANNOTATION: self._seat.address,
        }
        message = "Node is a voting member of the etcd cluster"
        return with_condition(
            {**node, "metadata": {**metadata, "annotations": annotations}},
            "EtcdIsVoter",
            "True",
            "MemberNotLearner",
            message,
        )


async def _remove_member_of(etcd: Etcd, node: Fields) -> None:
    """Remove a deleted node's etcd member, found by the member name that the node carried."""
    annotations = node["metadata"].get("annotations", {})
    name = annotations.get(_NAME_ANNOTATION)
    if name is None:
        return
    address = annotations.get(_ADDRESS_ANNOTATION)
    log("info", f"Removing etcd member from cluster due to node delete: {address} {name}")
    for member in await etcd.members():
        hosts = {urlsplit(peer).hostname for peer in member.peer_urls}
        if member.name == name and address in hosts:
            log("info", f"Removing name={name} id={member.id} address={address} from etcd")
            await etcd.remove(member.id)
