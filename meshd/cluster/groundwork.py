"""Everything that lies on disk before k3s is started, in the order that a crash cannot harm.

Invariants: the mark comes first, the drop-in last; nothing is written before every reason against a
start was looked for; nothing is ever deleted but what meshd itself put there to hold users'
manifests back.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import msgspec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from ledger import NodeId
from meshd.cluster import gate, manifests
from meshd.cluster.address import address_of, readdressed
from meshd.cluster.configuration import other_configuration
from meshd.cluster.kubevip import Interface, flannel_interface, interface_of
from meshd.cluster.mark import (
    Disk,
    Mark,
    objection,
    read_disk,
    read_first_start,
    write_first_start,
    write_mark,
)
from meshd.cluster.obstacle import Obstacle, failed, waiting
from meshd.cluster.paths import K3sPaths
from meshd.cluster.plan import (
    Launch,
    Machine,
    arguments_of,
    conflict,
    drop_in,
    is_alone,
    joining_token,
    launch,
    reset_drop_in,
    reset_launch,
    to_join,
)
from meshd.cluster.secrets import CandidateSecrets, commitment_of
from meshd.cluster.versions import unfit
from meshd.config.schema import Settings
from meshd.events import ClusterOrder
from meshd.sealing import unseal
from meshd.whole_file import make_folder, write_whole
from roles import ClusterPlan

_OTHER_SECRETS = "the plan was made with other secrets than this node has: its state was lost"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """The cluster's tokens as far as this node may know them; a worker's `server` is None."""

    server: str | None
    agent: str

    def __repr__(self) -> str:
        return "Tokens(hidden)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What is true of the machine at this moment."""

    node_ip: str | None
    interfaces: tuple[Interface, ...]
    environment: Mapping[str, str]
    version: str = ""  # Of the k3s installed, if it says one.

    @property
    def addresses(self) -> tuple[str | None, frozenset[str]]:
        """Return the node's address as it would be chosen now, and all that the machine holds."""
        held = (address.local for one in self.interfaces for address in one.addr_info)
        return self.node_ip, frozenset(held)


@dataclass(frozen=True, slots=True, kw_only=True)
class Groundwork:
    """Prepares the disk of one node for its orders."""

    settings: Settings
    node_id: NodeId
    node_name: str
    state_dir: Path
    paths: K3sPaths
    secrets: Callable[[], CandidateSecrets]  # This node's own, as they are now.
    sealing_key: X25519PrivateKey

    def lay(
        self, order: ClusterOrder, tokens: Tokens, surroundings: Surroundings
    ) -> Launch | Obstacle:
        """Write what the order needs and return how to run k3s, or why not to.

        Raises:
            OSError: the disk refuses; the next call goes on where this one stopped.
        """
        plan = order.plan
        assert plan is not None
        assert order.seat != "none"
        ours = self.secrets()
        if order.seat == "initialiser" and not _are_of(plan, ours):
            return failed(_OTHER_SECRETS)
        disk = read_disk(self.paths)
        moved = readdressed(order, self.node_id, disk, *surroundings.addresses)
        if isinstance(moved, str):
            return waiting(moved)
        disk = replace(disk, agent_mark=moved) if moved is not None else disk
        node_ip = address_of(order, self.node_id, disk, surroundings.node_ip)
        obstacle = self._obstacle(order, disk, node_ip, surroundings)
        if obstacle is not None:
            return obstacle
        binary = find_binary(self.paths, surroundings.environment)
        assert binary is not None
        if moved is not None:
            write_mark(self.paths.agent, moved)
        mark = self._mark(order, disk, node_ip)
        if order.seat == "initialiser":
            stage: Literal["prepared", "begun"] = "begun" if mark.begun else "prepared"
            write_first_start(self.state_dir, plan.cluster_id, stage)
            if not disk.has_etcd:
                self._write_authorities(ours)
        if order.seat != "worker":
            self._keep_manifests(order, mark, interface_of(surroundings.interfaces, node_ip))
        machine = self._machine(node_ip, binary, surroundings)
        self._write_tokens(plan, tokens, machine)
        content = self._drop_in(order, machine)
        permit = self._permit(order, plan, node_ip, gate.digest(content))
        before = gate.read_permit(self.state_dir)
        if (
            before is not None
            and before.cluster_id == plan.cluster_id
            and before.drop_ins != permit.drop_ins
        ):
            # Both count meanwhile: a crash between the two files must keep no k3s down.
            both = (*before.drop_ins[:1], *permit.drop_ins)
            gate.grant(self.state_dir, msgspec.structs.replace(permit, drop_ins=both))
        write_whole(self.paths.drop_in, content)
        gate.grant(self.state_dir, permit)
        return launch(order, self.settings, machine, begun=mark.begun)

    def lay_reset(
        self,
        order: ClusterOrder,
        tokens: Tokens,
        surroundings: Surroundings,
        *,
        attempt: int,
        address: str,
        snapshot: str = "",
    ) -> Launch | Obstacle:
        """Write what `k3s server --cluster-reset` needs, on top of what was laid before.

        At another `address` than the one that is decided the marks still say the old one, or the
        new one after a crash: they are not asked about it.

        Raises:
            OSError: the disk refuses.
        """
        plan = order.plan
        assert plan is not None
        disk = read_disk(self.paths)
        decided = address_of(order, self.node_id, disk, surroundings.node_ip)
        marked = decided if address == decided else None
        obstacle = self._obstacle(order, disk, marked, surroundings, restores=bool(snapshot))
        if obstacle is not None:
            return obstacle
        binary = find_binary(self.paths, surroundings.environment)
        assert binary is not None
        machine = self._machine(address, binary, surroundings)
        self._write_tokens(plan, tokens, machine)
        content = reset_drop_in(self._drop_in(order, machine))
        gate.revoke(self.state_dir, plan.cluster_id)
        write_whole(self.paths.drop_in, content)
        permit = self._permit(order, plan, marked, gate.digest(content))
        alone = permit.alone and not snapshot
        permit = msgspec.structs.replace(permit, reset=True, snapshot=snapshot, alone=alone)
        gate.grant(self.state_dir, permit)
        return reset_launch(order, self.settings, machine, attempt=attempt, snapshot=snapshot)

    def _machine(self, node_ip: str | None, binary: Path, surroundings: Surroundings) -> Machine:
        return Machine(
            node_name=self.node_name,
            node_ip=node_ip,
            flannel_interface=flannel_interface(surroundings.interfaces, node_ip),
            binary=binary,
            paths=self.paths,
            token_file=self.state_dir / "cluster" / "token",
            agent_token_file=self.state_dir / "cluster" / "agent-token",
            environment=surroundings.environment,
        )

    def _drop_in(self, order: ClusterOrder, machine: Machine) -> bytes:
        make_folder(self.paths.drop_in.parent)
        files = other_configuration(self.paths)
        given = {key.removesuffix("+") for _, keys in files for key in keys or ()}
        return drop_in(order, self.settings, machine, given=given)

    def tokens(self, order: ClusterOrder) -> Tokens | Obstacle:
        """Return the tokens that the order is carried out with: our own, or those sealed to us."""
        plan = order.plan
        assert plan is not None
        if order.seat == "initialiser":
            ours = self.secrets()
            if not _are_of(plan, ours):
                return failed(_OTHER_SECRETS)
            return Tokens(server=ours.server_token, agent=ours.agent_token)
        needed = ("agent-token",) if order.seat == "worker" else ("server-token", "agent-token")
        sealed = dict(order.sealed)
        missing = [name for name in needed if name not in sealed]
        if missing:
            return waiting(f"the {missing[0]} was not sealed to this node yet")
        try:
            opened = {name: self._unseal(sealed[name], name) for name in needed}
        except ValueError as error:
            return failed(f"{error}: it must be sealed again")
        server = opened.get("server-token")
        if server is not None and commitment_of(server) != plan.token_commitment:
            return failed("the server token sealed to this node is not the one of the plan")
        return Tokens(server=server, agent=opened["agent-token"])

    def note_begun(self) -> bool:
        """Once there is a database, write that down; return whether it was new."""
        disk = read_disk(self.paths)
        mark = disk.server_mark
        if not disk.has_etcd or not isinstance(mark, Mark) or mark.begun:
            return False
        if read_first_start(self.state_dir, mark.cluster_id) == "prepared":
            write_first_start(self.state_dir, mark.cluster_id, "begun")
        write_mark(self.paths.server, msgspec.structs.replace(mark, begun=True))
        return True

    def _unseal(self, sealed: bytes, name: str) -> str:
        return unseal(sealed, recipient=self.node_id, sealing_key=self.sealing_key, name=name)

    def _obstacle(
        self,
        order: ClusterOrder,
        disk: Disk,
        node_ip: str | None,
        surroundings: Surroundings,
        *,
        restores: bool = False,
    ) -> Obstacle | None:
        assert order.plan is not None
        assert order.seat != "none"
        against = objection(
            disk,
            cluster_id=order.plan.cluster_id,
            # What was lost comes from a snapshot then.
            alone=len(order.plan.seats) == 1 and not restores,
            seat=order.seat,
            formed=order.formed,
            node_name=self.node_name,
            node_ip=node_ip,
            first_start=read_first_start(self.state_dir, order.plan.cluster_id),
            epoch=order.epoch,
        ) or conflict(arguments_of(order, self.settings), other_configuration(self.paths))
        if against is None and self.settings.external_db is not None:
            against = "an external datastore (p2p.auto.ha.external_db) is not supported yet"
        if against is not None:
            return failed(against)
        can_join = order.seat == "initialiser" or is_alone(order) or to_join(order, node_ip)
        if not can_join:
            return waiting("no other server's address is known")
        if order.hold is not None:
            return waiting(order.hold)
        if find_binary(self.paths, surroundings.environment) is None:
            return waiting(
                "k3s is not installed: put it at /usr/local/bin/k3s, or name it in MESHD_K3S_BIN"
            )
        is_first = not (disk.has_agent_files if order.seat == "worker" else disk.has_etcd)
        odd = unfit(surroundings.version, order.servers_version, order.seat) if is_first else None
        return None if odd is None else waiting(odd)

    def _mark(self, order: ClusterOrder, disk: Disk, node_ip: str | None) -> Mark:
        plan = order.plan
        assert plan is not None
        fresh = Mark(
            cluster_id=plan.cluster_id,
            generation=plan.generation,
            node_name=self.node_name,
            node_ip=node_ip,
        )
        if disk.agent_mark is None:  # On servers too: k3s has files there even without an agent.
            agents = msgspec.structs.replace(fresh, epoch=order.readdressed)
            write_mark(self.paths.agent, agents)
        if order.seat == "worker":
            return fresh
        mark = disk.server_mark
        assert mark != "damaged", "objected to"
        if mark is None:
            held = () if order.formed else tuple(self.paths.users_manifests())
            mark = msgspec.structs.replace(fresh, held=held, epoch=order.epoch)
        mark = msgspec.structs.replace(mark, begun=mark.begun or disk.has_etcd)
        write_mark(self.paths.server, mark)
        return mark

    def _permit(
        self, order: ClusterOrder, plan: ClusterPlan, node_ip: str | None, digest: str
    ) -> gate.Permit:
        assert order.seat != "none"
        return gate.Permit(
            cluster_id=plan.cluster_id,
            generation=plan.generation,
            seat=order.seat,
            formed=order.formed,
            leased=order.lease_until is not None,
            alone=len(plan.seats) == 1,
            node_name=self.node_name,
            node_ip=node_ip,
            config_dir=str(self.paths.config_dir),
            data_dir=str(self.paths.data_dir),
            drop_ins=(digest,),
            epoch=order.epoch,
        )

    def _write_authorities(self, ours: CandidateSecrets) -> None:
        make_folder(self.paths.tls / "etcd", mode=0o700)
        for name, content in ours.tls:
            write_whole(self.paths.tls / name, content)

    def _write_tokens(self, plan: ClusterPlan, tokens: Tokens, machine: Machine) -> None:
        user: Literal["server", "node"] = "node" if tokens.server is None else "server"
        password = tokens.server or tokens.agent
        token = joining_token(ca_hash=plan.ca_hash, user=user, password=password)
        make_folder(machine.token_file.parent, mode=0o700)
        write_whole(machine.token_file, token.encode())
        if tokens.server is not None:
            write_whole(machine.agent_token_file, tokens.agent.encode())

    def _keep_manifests(self, order: ClusterOrder, mark: Mark, interface: str | None) -> None:
        """Hold the users' manifests back until the cluster is formed, then let them and ours go.

        k3s passes over `X` while there is `X.skip` (docs.k3s.io, "Packaged Components").
        """
        skips = [self.paths.manifests / f"{name}.skip" for name in mark.held]
        if not order.formed:
            for skip in skips:
                write_whole(skip, b"")
            return
        for skip in skips:
            skip.unlink(missing_ok=True)
        if skips:
            write_mark(self.paths.server, msgspec.structs.replace(mark, held=()))
        assert order.plan is not None
        make_folder(self.paths.manifests, mode=0o700)
        write_whole(self.paths.manifests / "meshd-cluster.yaml", manifests.cluster_mark(order.plan))
        self._write_kube_vip(order.plan, interface)

    def _write_kube_vip(self, plan: ClusterPlan, own: str | None) -> None:
        """Give kube-vip the plan's address and this file's other settings.

        A file that wants no kube-vip has none to give. A DaemonSet if one interface does for all
        servers, as the plan says, so that each writes the same; else a static pod for each. k3s
        deletes nothing because its file is gone, so a server that gave it a DaemonSet stays at it.
        """
        if plan.vip is None or self.settings.kubevip is None:
            return
        vip = replace(self.settings.kubevip, address=plan.vip)
        shared = self.paths.manifests / "meshd-kube-vip.yaml"
        if plan.vip_interface or shared.exists():
            write_whole(shared, manifests.kube_vip_daemon_set(vip, plan.vip_interface or own))
            return
        pods = self.paths.agent / "pod-manifests"
        make_folder(pods, mode=0o700)
        pod = manifests.kube_vip_static_pod(vip, vip.interface or own, str(self.paths.kubeconfig))
        write_whole(pods / "meshd-kube-vip.yaml", pod)


def find_binary(paths: K3sPaths, environment: Mapping[str, str]) -> Path | None:
    """Return the k3s to run, absolute, or None."""
    if paths.binary is not None:
        return paths.binary
    named = environment.get("MESHD_K3S_BIN")
    found = named or shutil.which("k3s", path=environment.get("PATH")) or "/usr/local/bin/k3s"
    return Path(found).absolute() if os.access(found, os.X_OK) else None


def _are_of(plan: ClusterPlan, ours: CandidateSecrets) -> bool:
    return (ours.ca_hash, ours.token_commitment) == (plan.ca_hash, plan.token_commitment)
