"""The tour: form a cluster, kill the holder of its address, show that it works on, leave nothing.

Every tick on the checklist is a thing that was seen from outside meshd where that is possible:
voters in etcd's own list, the VIP on an interface and answering, an object written and read back.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from meshd.errors import MeshdError, UsageError
from simulations.lab import glance, laboratory
from simulations.lab.glance import Glance
from simulations.lab.laboratory import Laboratory, Wanted
from simulations.lab.places import NAMESPACES, NodePlaces, Places
from simulations.lab.progress import Checklist
from simulations.lab.servers import Server, Unanswered, server_on

DAEMONS_S = 30.0
MESH_S = 60.0
CHOICE_S = 120.0
VOTERS_S = 300.0
FORMED_S = 120.0
K3S_S = 120.0
VIP_S = 120.0
FAILOVER_S = 60.0
STATUS_S = 30.0

_LOG_LINES = 25
_LOG_FOLDER = Path("/var/tmp")  # noqa: S108 - For a person to read after a failure; made 0700.


def run(
    places: Places, wanted: Wanted, environment: Mapping[str, str], checklist: Checklist
) -> int:
    """Take the tour; return 0 only if all of it happened and nothing is left.

    Raises:
        MeshdError: the laboratory cannot be built; then nothing is left of it.
    """
    if wanted.control_plane < 3 or wanted.nodes < wanted.control_plane:
        raise UsageError(
            "MESH-8018",
            f"{wanted.nodes} machines, {wanted.control_plane} of them servers, cannot lose one",
            fix="the tour kills a server: take at least 3 of them, and as many machines",
        )
    checklist.restart()
    built = Laboratory.up(places, wanted, environment)
    try:
        announce(built, wanted, checklist)
        _take(built, checklist)
    except MeshdError as error:
        checklist.say(error.render())
        _show_logs(built, checklist)
        return 1
    finally:
        # Also on Ctrl-C and on a bug: nothing is left behind.
        laboratory.down(places)
    checklist.done("laboratory removed: no namespace, process, mount or file is left")
    return 0


def announce(built: Laboratory, wanted: Wanted, checklist: Checklist) -> None:
    """Say what was built, with a tick."""
    checklist.say(f"meshd laboratory {built.places.lab}: {wanted.nodes} machines on one LAN")
    if built.known.standin:
        checklist.say(f"  k3s is a stand-in, with a real etcd: {built.known.k3s_version}")
    else:
        how = "servers without agents" if built.known.runtime is None else "nodes that run pods"
        checklist.say(f"  {built.known.k3s_version}, {how}")
    how = f"one import of {built.known.imports_s:.1f} s" if wanted.forks else "programs"
    state = f"{wanted.nodes} daemons started ({how})" if wanted.boots else "machines are off"
    checklist.done(f"laboratory built, {state}")


def wait_for_daemons(built: Laboratory, checklist: Checklist) -> tuple[str, ...]:
    """Wait until every daemon answers; return the names of nodes whose daemon cannot run."""

    def settled() -> Sequence[Glance] | None:
        glances = glance.look(built)
        return glances if all(_daemon_settled(built, one) for one in glances) else None

    found = checklist.wait("daemons to answer", settled, limit_s=DAEMONS_S, code="MESH-8011")
    failed = [one for one in found if one.status is None]
    checklist.done(f"{len(found) - len(failed)} of {len(found)} daemons answer")
    for one in failed:
        checklist.say(f"  {one.name}: {one.problem}")
    return tuple(one.name for one in failed)


def _daemon_settled(built: Laboratory, one: Glance) -> bool:
    """Whether a daemon answers, or ended with an error that it will meet again."""
    return one.status is not None or built.node(one.name).exits.exists()


def wait_for_cluster(built: Laboratory, checklist: Checklist) -> str | None:
    """Wait, with a tick for each step, until the cluster is complete; return the VIP's holder.

    Raises:
        MeshdError: a step was not seen in its time.
    """
    _wait_for_mesh(built, checklist)
    plan = checklist.wait(
        "an initialiser to be chosen", lambda: _plan(built), limit_s=CHOICE_S, code="MESH-8011"
    )
    first, servers = plan
    others = [name for name in servers if name != first]
    checklist.done(f"chosen: {first} begins; control plane with {', '.join(others) or 'no other'}")
    _wait_for_voters(built, servers, checklist)
    checklist.wait("formed", lambda: _formed(built), limit_s=FORMED_S, code="MESH-8011")
    checklist.done("formed: every node knows that the cluster is decided for good")
    names = built.known.names()
    checklist.wait("k3s on all nodes", lambda: _k3s_ready(built), limit_s=K3S_S, code="MESH-8011")
    workers = [name for name in names if name not in servers]
    checklist.done(f"k3s ready on all {len(names)} nodes; workers: {', '.join(workers) or 'none'}")
    vip = built.known.vip
    if vip is None or not built.known.has_vip_holder:
        return None
    holder = checklist.wait(
        f"{vip} to answer", lambda: holder_that_answers(built), limit_s=VIP_S, code="MESH-8011"
    )
    checklist.done(f"{vip} answers on 6443, held by {holder}")
    return holder


def _take(built: Laboratory, checklist: Checklist) -> None:
    failed = wait_for_daemons(built, checklist)
    if failed:
        raise MeshdError(
            "MESH-8011",
            f"the daemon does not run on {', '.join(failed)}",
            fix="its own message above says what to do",
        )
    holder = wait_for_cluster(built, checklist)
    assert holder is not None, "the generated file has a VIP"
    shown = next(name for name in built.known.names() if name != holder)
    checklist.wait(
        f"{shown} to know the whole cluster",
        lambda: _knows_all(built, shown, holder),
        limit_s=STATUS_S,
        code="MESH-8011",
    )
    checklist.say("")
    _show_status(built, shown)
    checklist.say("")
    _lose(built, holder, checklist)


def _wait_for_mesh(built: Laboratory, checklist: Checklist) -> None:
    names = frozenset(built.known.names())

    def complete() -> bool | None:
        return all(one.sees == names for one in glance.look(built)) or None

    checklist.wait("nodes to see each other", complete, limit_s=MESH_S, code="MESH-8011")
    checklist.done(f"mesh complete: all {len(names)} nodes see all")


def _plan(built: Laboratory) -> tuple[str, tuple[str, ...]] | None:
    """Return (initialiser, control plane) once every node knows it."""
    found = set()
    for one in glance.look(built):
        if one.status is None or one.status["genesis"]["initialiser"] is None:
            return None
        servers = [n["name"] for n in one.status["nodes"] if n["role"] == "control-plane"]
        found.add((str(one.status["genesis"]["initialiser"]), tuple(sorted(servers))))
    return found.pop() if len(found) == 1 else None


def _wait_for_voters(built: Laboratory, servers: Sequence[str], checklist: Checklist) -> None:
    for count in range(1, len(servers) + 1):
        voters = checklist.wait(
            f"etcd voter {count} of {len(servers)}",
            partial(_voters, built, servers, at_least=count),
            limit_s=VOTERS_S,
            code="MESH-8011",
        )
        if len(voters) == count:
            checklist.done(f"etcd has {count} of {len(servers)} voters")


def _voters(built: Laboratory, servers: Sequence[str], *, at_least: int) -> Sequence[str] | None:
    """Return etcd's voters as one of the servers lists them, once there are enough."""
    for name in servers:
        try:
            voters = server_on(built.node(name)).voters()
        except Unanswered:
            continue
        if len(voters) >= at_least:
            return voters
    return None


def _formed(built: Laboratory) -> bool | None:
    phases = [
        one.status["genesis"]["phase"] if one.status is not None else None
        for one in glance.look(built)
    ]
    return all(phase == "formed" for phase in phases) or None


def _k3s_ready(built: Laboratory) -> bool | None:
    for one in glance.look(built):
        own = [n for n in (one.status or {"nodes": []})["nodes"] if n["name"] == one.name]
        if not own or own[0]["k3s"] != "ready":
            return None
    return True


def _holder(built: Laboratory) -> str | None:
    """Return the node that has the VIP on its interface; None if none has, or two have."""
    holders = [one.name for one in glance.look(built) if one.has_vip]
    return holders[0] if len(holders) == 1 else None


def holder_that_answers(built: Laboratory, *, besides: str | None = None) -> str | None:
    """Return the VIP's holder once the address answers as the cluster's API."""
    holder = _holder(built)
    if holder is None or holder == besides:
        return None
    with closing(_through_vip(built, built.node(holder))) as server:
        try:
            server.cluster_uid()
        except Unanswered:
            return None
    return holder


def _through_vip(built: Laboratory, credentials: NodePlaces) -> Server:
    """Return the API behind the VIP, asked by a machine on the LAN that is no node."""
    assert built.known.vip is not None
    lan = NAMESPACES / built.places.lan
    return Server(lan, built.known.vip, credentials.k3s_folder)


def _knows_all(built: Laboratory, name: str, holder: str) -> bool | None:
    """Whether that node has heard what was just seen: it asks the API only every few seconds."""
    status = next(one.status for one in glance.look(built) if one.name == name)
    if status is None or status["vip"]["holder"] != holder:
        return None
    return status["cluster"]["nodes_ready"] == len(built.known.names()) or None


def _lose(built: Laboratory, holder: str, checklist: Checklist) -> None:
    """Kill the VIP's holder and show that the cluster goes on without it."""
    survivor = built.node(next(name for name in built.known.names() if name != holder))
    checklist.restart()
    built.kill(holder)
    checklist.done(f"killed {holder}, which held {built.known.vip}")
    heir = checklist.wait(
        f"{built.known.vip} to answer elsewhere",
        lambda: holder_that_answers(built, besides=holder),
        limit_s=FAILOVER_S,
        code="MESH-8011",
    )
    checklist.done(f"{built.known.vip} answers again, held by {heir}")
    name = checklist.wait(
        "a ConfigMap to be written",
        lambda: _write(built, built.node(heir), survivor),
        limit_s=FAILOVER_S,
        code="MESH-8011",
    )
    checklist.done(f"ConfigMap {name} written through {built.known.vip} and read back")
    left = {name for name in built.known.names() if name != holder}
    checklist.wait(
        f"nodes to notice that {holder} is gone",
        lambda: all(one.sees <= left for one in glance.look(built)) or None,
        limit_s=FAILOVER_S,
        code="MESH-8011",
    )
    checklist.done(f"the other nodes say that {holder} is gone")


def _write(built: Laboratory, credentials: NodePlaces, survivor: NodePlaces) -> str | None:
    """Write an object through the VIP; return its name once it was read back."""
    name = f"tour-{os.urandom(4).hex()}"
    content = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "default"},
        "data": {"written": datetime.now(UTC).isoformat(), "survivor": survivor.name},
    }
    with closing(_through_vip(built, credentials)) as server:
        try:
            server.post("/api/v1/namespaces/default/configmaps", content)
            read = server.get(f"/api/v1/namespaces/default/configmaps/{name}")
        except Unanswered:
            return None
    return name if read["data"] == content["data"] else None


def _show_status(built: Laboratory, name: str) -> None:
    """Print `meshd status` as that node gives it."""
    print(f"$ meshd demo exec {name} -- meshd status", flush=True)
    subprocess.run(
        [sys.executable, "-m", "simulations.lab", "exec", name, "--", "meshd", "status"],
        env=dict(os.environ) | {"MESHD_LAB": built.places.lab},
        check=False,
    )


def _show_logs(built: Laboratory, checklist: Checklist) -> None:
    """Print how the nodes are and the end of every node's log, and keep the whole logs."""
    checklist.say(glance.as_table(built, glance.look(built)))
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    kept = _LOG_FOLDER / f"meshd-lab-{built.places.lab}-{stamp}"
    kept.mkdir(mode=0o700)
    for node in built.nodes():
        checklist.say(f"--- {node.name}: last lines of meshd's log")
        checklist.say("\n".join(glance.tail(node, _LOG_LINES)))
        for log in (node.log, node.state / "k3s" / "k3s.log"):
            if log.exists():
                shutil.copyfile(log, kept / f"{node.name}-{log.name}")
    checklist.say(f"the whole logs are in {kept}")
