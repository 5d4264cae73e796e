"""`K3sCluster`: keeps k3s on this node at the newest order, and reports what k3s says about itself.

One task does everything in turn: prepare the disk, have k3s held, look, report, pause. The pause is
short while something is under way and long while all is well.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import structlog
import trio
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from ledger import Moment, NodeId
from meshd.cluster import gate, kubevip
from meshd.cluster.course import Course
from meshd.cluster.ending import GIVEN_UP, Ending
from meshd.cluster.groundwork import Groundwork, Surroundings, Tokens, find_binary
from meshd.cluster.guide import Guide
from meshd.cluster.handout import Handout
from meshd.cluster.hostinit import HostInit, OwnProcess
from meshd.cluster.intent import Intent
from meshd.cluster.k3s import ServerReading
from meshd.cluster.mark import Mark, read_disk
from meshd.cluster.observation import Seen, observed
from meshd.cluster.obstacle import Obstacle, refused
from meshd.cluster.paths import K3sPaths
from meshd.cluster.plan import Launch, cluster_ordered, runs_agent, vip_ordered, without_lease
from meshd.cluster.reset import Around, Resetting
from meshd.cluster.retiring import Retiring
from meshd.cluster.secrets import CandidateSecrets
from meshd.cluster.versions import InstalledVersion
from meshd.cluster.watch import Watch
from meshd.config.schema import KubeVip, Settings
from meshd.errors import MeshdError
from meshd.events import ClusterOrder, K3sObserved, Seal, SecretSealed
from meshd.ports import EventSink
from meshd.schema import ADMIN_KUBECONFIG
from meshd.sealing import seal

FAST_S = 0.3
SETTLING_S = 1.0
SLOW_S = 5.0
BLOCKED_S = 2.0
CHANGING_S = 60.0  # How long after a change or an order more changes are expected.
THOROUGH_EVERY = 3  # While all is well, each third look is at members and Nodes too.

_LOG: structlog.typing.FilteringBoundLogger = structlog.get_logger()
_NOTHING = ClusterOrder(seat="none", plan=None, formed=False)
_ABSENT = K3sObserved(state="absent")


class K3sCluster:
    """k3s and kube-vip on this node; implements `meshd.ports.Cluster`.

    Args:
        node_ip: this node's address now; used for workers, and frozen at k3s' first start. A
            server's address is the plan's.
        state_dir: meshd's; tokens lie below `cluster/`, the supervisor below `k3s/`.
        run_dir: where the daemon's sockets are, for the gate.
        secrets: returns this node's own as they are now; asked for each use.
        sealing_key: opens what was sealed to this node.
        hostinit: who holds k3s; meshd's own supervisor if None.
        hide: is told each token that is opened, so that no log shows it.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        node_id: NodeId,
        node_name: str,
        node_ip: Callable[[], str | None],
        state_dir: Path,
        run_dir: Path,
        secrets: Callable[[], CandidateSecrets],
        sealing_key: X25519PrivateKey,
        clock: Callable[[], Moment],
        paths: K3sPaths | None = None,
        hostinit: HostInit | None = None,
        hide: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._settings = settings
        self._hide = hide
        self._clock = clock
        self._node_name = node_name
        self._node_ip = node_ip
        self._paths = paths or K3sPaths()
        self._hostinit = hostinit or OwnProcess(
            state_dir / "k3s", gate=gate.command(sys.executable, state_dir, run_dir)
        )
        self._secrets = secrets
        self._groundwork = Groundwork(
            settings=settings,
            node_id=node_id,
            node_name=node_name,
            state_dir=state_dir,
            paths=self._paths,
            secrets=secrets,
            sealing_key=sealing_key,
        )
        self.handout = Handout(settings, self._paths)
        self._order = _NOTHING
        self._ordered = trio.Event()
        self._tokens: Tokens | None = None
        self._laid: tuple[ClusterOrder, Launch] | None = None
        self._ending = Ending(state_dir, self._paths, self._hostinit)
        self._watch = Watch(self._paths, node_name)
        self._retiring = Retiring(state_dir, self._paths, self._hostinit, self._watch.api_answers)
        self.resetting = Resetting(
            state_dir, self._paths, self._hostinit, self._groundwork, clock=lambda: clock().at
        )
        self._course = Course()
        self._guide = Guide(self._paths)
        vip = settings.kubevip or KubeVip(address="")  # The address is the plan's.
        self._guardian = kubevip.Guardian(
            node_name=node_name, lease_duration_s=vip.lease_duration_s
        )
        self._vip_cleared = False
        self._version = InstalledVersion(lambda: find_binary(self._paths, os.environ))
        self._said = _ABSENT
        self._changed_at = 0.0
        self._looks = 0

    def apply(self, order: ClusterOrder) -> None:
        """Replace the order; never blocks. An order of no seat by itself stops no k3s."""
        if order != self._order:
            self._order = order
            self._ordered.set()

    @property
    def has_begun(self) -> bool:
        """Whether k3s runs here or is to: its ports are its own then, not somebody else's."""
        return self._order.seat != "none" or self._hostinit.look().pid is not None

    @property
    def is_installed(self) -> bool:
        """Whether there is a k3s to run; looked up anew each time."""
        return find_binary(self._paths, os.environ) is not None

    def frozen_address(self) -> str | None:
        """Return the address that k3s here was first started with as an agent, if it was."""
        try:
            mark = read_disk(self._paths).agent_mark
        except OSError:
            return None
        return mark.node_ip if isinstance(mark, Mark) else None

    async def seal(self, request: Seal) -> SecretSealed:
        """Seal one of the cluster's tokens: a joined server's are those sealed to it.

        Raises:
            MeshdError: this node does not hold that secret of the planned cluster, or the
                recipient's key is none.
        """
        if request.name == ADMIN_KUBECONFIG:
            return await trio.to_thread.run_sync(self.handout.seal, request)
        secret = self._secret(request.name)
        if secret is None:
            raise MeshdError(
                "MESH-5003",
                f"this node does not hold the {request.name} of the planned cluster",
                fix="none needed: a node that holds it seals it",
            )
        try:
            value = seal(
                secret,
                recipient=request.recipient,
                sealing_key=request.sealing_key,
                name=request.name,
            )
        except ValueError as error:
            raise MeshdError(
                "MESH-5004",
                f"{request.recipient} published a key that nothing can be sealed to",
                fix="restart meshd on that node; if it persists, reinstall the node",
            ) from error
        return SecretSealed(
            recipient=request.recipient,
            name=request.name,
            value=value,
            cluster_id=request.cluster_id,
        )

    async def run(self, events: EventSink) -> None:
        """Keep k3s at the newest order and report changes, until cancelled. k3s runs on then."""
        try:
            while True:
                if self._ordered.is_set():
                    self._ordered, self._changed_at = trio.Event(), self._clock().at
                order = self._order
                await self._clear_left_over_address(order)
                await self._extend(order)
                ground = (
                    await self._reset(order, events)
                    or await self._retiring.retire(order, self._clock().at)
                    or await self._ending.end(order)
                    or await self._prepare(order)
                )
                if isinstance(ground, Obstacle) and self._ending.trouble is not None:
                    ground = self._ending.trouble
                said = await self._look(order, ground)
                if said != self._said:
                    self._said, self._changed_at = said, self._clock().at
                    await events.send(said)
                with trio.move_on_after(self._pause_s(order, ground)):
                    await self._ordered.wait()
        finally:
            with trio.CancelScope(shield=True):
                await self._watch.close()

    def begin_reset(self, intent: Intent) -> None:
        """Reset etcd's membership on this node, from now on and over restarts.

        Raises:
            OSError: the disk refuses to note that; nothing will be done.
        """
        self.resetting.begin(intent)
        self._ordered.set()

    async def _reset(self, order: ClusterOrder, events: EventSink) -> Obstacle | None:
        """Go on with a reset under way; return what everything else waits for meanwhile."""
        if self.resetting.intent is None and self.resetting.damage is None:
            return None
        around = Around(order=order, surroundings=await self._surroundings(), events=events)
        obstacle = await self.resetting.advance(around)
        if obstacle is not None:
            self._laid = None  # What lies there is not what k3s is to be started with later.
        return obstacle

    async def _extend(self, order: ClusterOrder) -> None:
        """Pass the lease on before anything that may fail: the fuse must not kill a formed k3s."""
        plan = order.plan
        if plan is None or not plan.leased or order.seat == "none":
            return
        try:
            await self._hostinit.extend(plan.cluster_id, order.lease_until)
        except OSError as error:
            _LOG.error("lease_not_passed_on", why=refused(error).sentence)

    async def _prepare(self, order: ClusterOrder) -> Launch | Obstacle | None:
        """Bring disk and supervisor to the order; None if nothing is ordered."""
        if order.seat == "none":
            self._tokens = self._laid = None
            return None
        tokens = self._groundwork.tokens(order)
        if isinstance(tokens, Obstacle):
            return tokens
        if tokens != self._tokens:
            self._tokens = tokens
            for token in filter(None, (tokens.server, tokens.agent)):
                self._hide(token)
            await self._watch.use_passwords(server=tokens.server, node=tokens.agent)
        held = self._hostinit.look()
        if held.stopping and held.cluster == cluster_ordered(order) and not order.formed:
            return Obstacle(state="waiting", sentence=GIVEN_UP)
        if held.refused is not None:
            self._laid = None  # What the gate misses is written again.
        try:
            hangs_s = self._course.hangs_s(self._clock().at)
            order = self._guide.turned(order, held, hangs_s)
            begun = await trio.to_thread.run_sync(self._groundwork.note_begun)
            if begun or self._laid is None or self._laid[0] != without_lease(order):
                ground = await self._lay(order, tokens)
                if isinstance(ground, Obstacle):
                    return ground
                self._laid = without_lease(order), ground
            launch = self._laid[1]
            astray = self._guide.astray(order, held, launch, hangs_s)
            await self._hostinit.ensure(launch, replaces=astray)
        except OSError as error:
            self._laid = None
            return refused(error)
        return launch

    async def _lay(self, order: ClusterOrder, tokens: Tokens) -> Launch | Obstacle:
        surroundings = await self._surroundings()
        return await trio.to_thread.run_sync(self._groundwork.lay, order, tokens, surroundings)

    async def _surroundings(self) -> Surroundings:
        return Surroundings(
            node_ip=self._node_ip(),
            interfaces=await kubevip.interfaces(),
            environment=os.environ,
            version=await self._version.read(),
        )

    async def _look(self, order: ClusterOrder, ground: Launch | Obstacle | None) -> K3sObserved:
        if order.seat == "none":
            resetting, superseded = self.resetting.epoch, self._retiring.superseded
            return replace(
                _ABSENT,
                stopped=self._ending.ended,
                resetting=resetting,
                superseded=superseded,
            )
        held = self._hostinit.look()
        lines = self._hostinit.new_lines()
        self._watch.listen(lines, self._clock().at)
        self._course.look(held, lines, self._clock().at)
        self._looks += 1
        thorough = self._said.state != "ready" or self._looks % THOROUGH_EVERY == 0
        reading = await self._watch.look(order, held, thorough=thorough)
        if order.seat != "worker":
            await self._guard(order, reading.server)
        said = observed(
            Seen(
                node_name=self._node_name,
                node_ip=self._address(order),
                order=order,
                version=await self._version.read(),
                obstacle=ground if isinstance(ground, Obstacle) else None,
                held=held,
                complaint=self._watch.complaint(self._clock().at),
                server=reading.server,
                worker=reading.worker,
                has_node=order.seat == "worker" or runs_agent(self._settings.k3s),
                vip_answers=reading.vip_answers,
                has_database=self._paths.etcd_log.is_dir(),
                stopped=self._ending.ended,
                loops=self._course.loops(self._clock().at),
                silence=self._course.silence(self._clock().at),
                resetting=self.resetting.epoch,
                superseded=self._retiring.superseded,
            ),
            self._said,
        )
        self.resetting.look(said)
        if said.state == "ready":
            for name in order.remove:
                await self._watch.remove_node(name)
            self._course.is_well(self._clock().at)
        return replace(said, admin=self.handout.access(order, said.state))

    def _pause_s(self, order: ClusterOrder, ground: Launch | Obstacle | None) -> float:
        if isinstance(ground, Obstacle):
            return BLOCKED_S
        ready = ground is None or self._said.state == "ready"
        if self._clock().at - self._changed_at > CHANGING_S:
            return SLOW_S if ready else BLOCKED_S
        has_vip = vip_ordered(order) is None or self._said.vip_answers
        return SETTLING_S if ready and order.formed and has_vip else FAST_S

    def _address(self, order: ClusterOrder) -> str | None:
        seat = order.plan.seat_of(self._groundwork.node_id) if order.plan is not None else None
        return self._node_ip() if seat is None else seat.node_ip

    def _secret(self, name: str) -> str | None:
        ours = self._secrets()
        held = Tokens(server=ours.server_token, agent=ours.agent_token)
        plan = self._order.plan
        if self._order.seat in ("server", "worker"):
            opened = self._groundwork.tokens(self._order)
            if isinstance(opened, Obstacle):
                return None
            held = opened
        elif plan is not None and plan.token_commitment != ours.token_commitment:
            return None
        return {"server-token": held.server, "agent-token": held.agent}.get(name)

    async def _guard(self, order: ClusterOrder, server: ServerReading | None) -> None:
        """Take the VIP from this node when it must not be here."""
        address = vip_ordered(order)
        if address is None:
            return
        answers = server is not None and server.api_answers
        lease = server.lease if server is not None else None
        why = self._guardian.verdict(lease=lease, api_answers=answers, now=self._clock().at)
        if why is None or not kubevip.is_here(address):
            return
        if not answers:
            kubevip.stop_kube_vip()
        await self._remove_address(address, why)

    async def _clear_left_over_address(self, order: ClusterOrder) -> None:
        """Before k3s is started at all: whatever put the VIP here is not running any more."""
        address = vip_ordered(order)
        if address is None or self._vip_cleared:
            return
        self._vip_cleared = True
        if self._hostinit.look().pid is None and kubevip.is_here(address):
            await self._remove_address(address, "k3s does not run here")

    async def _remove_address(self, address: str, why: str) -> None:
        try:
            if await kubevip.remove_address(address):
                _LOG.warning("vip_removed", address=address, why=why)
        except OSError as error:
            _LOG.error("vip_not_removed", address=address, why=why, error=str(error))
