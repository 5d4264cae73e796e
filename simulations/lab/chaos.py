"""Random faults while real daemons form a cluster with a real etcd, and what must come of it.

Each cycle is a laboratory of its own, from power-on to formed, with a plan of faults drawn from its
seed. Then all is healed and must become whole without anybody's help.
"""

from __future__ import annotations

import os
import shutil
import signal
import statistics
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from meshd.errors import MeshdError
from simulations.lab import glance, laboratory, network, tour, witness
from simulations.lab.chaos_plan import FIRST, MOMENTS, Fault, Plan, draw
from simulations.lab.glance import Glance
from simulations.lab.inside import init_of
from simulations.lab.laboratory import Laboratory, Wanted
from simulations.lab.places import NodePlaces, Places
from simulations.lab.progress import Checklist
from simulations.lab.recorder import audit
from simulations.lab.witness import Witness

MOMENT_S = 60.0
"""So long a fault waits for its moment; earlier faults may keep it from ever coming."""

HEALED_S = 600.0
"""From the end of all faults until all is whole: the bound of the simulator, in true seconds."""

_LOOK_S = 0.2
_ASK_FROZEN_S = 1.0
_LOG_FOLDER = Path("/var/tmp")  # noqa: S108 - For a person to read after a failure; made 0700.


@dataclass(slots=True)
class _Undo:
    """What ends a fault, and when at the latest."""

    at: float
    fault: Fault
    nodes: tuple[str, ...]


@dataclass(slots=True, kw_only=True)
class Outcome:
    """How a cycle went; no complaints: as it must."""

    seed: int
    complaints: list[str] = field(default_factory=list)
    generation: int | None = None
    began: int = 0
    healed_s: float = 0.0
    took_s: float = 0.0
    looks: int = 0


class Cycle:
    """One laboratory under its plan."""

    def __init__(self, built: Laboratory, plan: Plan, checklist: Checklist) -> None:
        self.built = built
        self.plan = plan
        self.checklist = checklist
        self.witness = Witness(built.nodes())
        self.began = time.monotonic()
        self.frozen: dict[str, list[int]] = {}
        self.undos: list[_Undo] = []
        self.first: str | None = None
        self.done: set[str] = set()
        """Ids of clusters that some node called formed."""

    def run(self) -> Outcome:
        """Do what is planned, heal, and see what comes of it."""
        self.witness.start()
        outcome = Outcome(seed=self.plan.seed)
        try:
            for fault in self.plan.faults:
                self._wait_for(fault)
                self._inflict(fault)
            while self.undos:
                self._pass_time()
            self._heal()
            healed = time.monotonic()
            self._wait_until_whole(healed + HEALED_S)
            outcome.healed_s = time.monotonic() - healed
        except MeshdError as error:
            outcome.complaints.append(error.what)
        finally:
            self._resume(tuple(self.frozen))
            self.witness.stop()
        outcome.complaints += self._complaints()
        outcome.generation = self._generation()
        outcome.began, outcome.looks = len(self.witness.clusters), self.witness.looks
        return outcome

    def _say(self, text: str) -> None:
        self.checklist.say(f"    {time.monotonic() - self.began:6.1f} s  {text}")

    def _look(self) -> tuple[Glance, ...]:
        """Ask the nodes; remember who begins, and what was called formed."""
        found = glance.look(self.built, timeout_s=_ASK_FROZEN_S)
        for one in found:
            if one.status is None:
                continue
            genesis = one.status["genesis"]
            if genesis["initialiser"]:
                # A wiped machine has two identities, told apart by what follows its name.
                self.first = str(genesis["initialiser"]).partition("-")[0]
            if genesis["phase"] == "formed":
                self.done.add(str(genesis["cluster_id"]))
        return found

    def _moment(self) -> int:
        """Return how far formation has been seen to be, as an index of MOMENTS."""
        phases = {one.status["genesis"]["phase"] for one in self._look() if one.status}
        if "formed" in phases:
            return MOMENTS.index("formed")
        if "started" in phases:
            folder = self.built.node(self.first or "n1").k3s_folder
            begun = (folder / "server/db/etcd/member/wal").is_dir()
            return MOMENTS.index("begun" if begun else "started")
        return MOMENTS.index("claimed" if "claimed" in phases else "power-on")

    def _wait_for(self, fault: Fault) -> None:
        limit = time.monotonic() + MOMENT_S
        while self._moment() < MOMENTS.index(fault.after):
            if time.monotonic() > limit:
                self._say(f"{fault.after} was not seen for {MOMENT_S:.0f} s; going on")
                break
            self._pass_time()
        self._pass_time(until=time.monotonic() + fault.delay_s)

    def _pass_time(self, *, until: float = 0.0) -> None:
        """Wait a little, or until then, and end meanwhile what is to end."""
        while True:
            for undo in [one for one in self.undos if one.at <= time.monotonic()]:
                self._undo(undo)
            left = until - time.monotonic()
            time.sleep(max(0.0, min(left, _LOOK_S)) if until else _LOOK_S)
            if left <= _LOOK_S:
                return

    def _inflict(self, fault: Fault) -> None:
        names = {self.first or "n1" if name == FIRST else name for name in fault.nodes}
        nodes = tuple(sorted(names))
        self._say(f"{fault.verb} {' '.join(nodes)}")
        if fault.verb == "cut":
            self.built.cut(nodes)
        for name in nodes:
            if fault.verb in ("kill", "power-cut", "wipe"):
                self.frozen.pop(name, None)
                self.built.kill(name)
            if fault.verb == "wipe":
                self.built.wipe(name)
            if fault.verb.startswith("kill-"):
                self._kill_one(self.built.node(name), fault.verb)
            if fault.verb.startswith("freeze"):
                self._freeze(self.built.node(name), fault.verb)
        if fault.for_s or fault.verb in ("kill", "power-cut", "wipe", "cut"):
            self.undos.append(_Undo(time.monotonic() + fault.for_s, fault, nodes))

    def _kill_one(self, node: NodePlaces, verb: str) -> None:
        pid = {
            "kill-meshd": lambda: witness.daemon_of(node),
            "kill-supervisor": lambda: witness.supervisor_of(node),
            "kill-k3s": lambda: witness.recorded(node, "running.json"),
            "kill-fuse": lambda: witness.recorded(node, "fuse.json"),
        }[verb]()
        if pid is None:
            self._say(f"  {node.name} has none just now")
        else:
            with suppress(ProcessLookupError):  # It ended by itself just now.
                os.kill(pid, signal.SIGKILL)

    def _freeze(self, node: NodePlaces, verb: str) -> None:
        if verb == "freeze":
            self.witness.freeze(node.name)
        daemon = witness.daemon_of(node)
        meant = network.pids(node.namespace) if verb == "freeze" else (daemon,)
        pids = [pid for pid in meant if pid is not None]
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        self.frozen[node.name] = self.frozen.get(node.name, []) + pids

    def _resume(self, names: tuple[str, ...]) -> None:
        for name in names:
            pids, node = self.frozen.pop(name, []), self.built.node(name)
            self.witness.resume(name)
            for pid in pids:
                # A number that was given to somebody else meanwhile is none of this node's.
                if network.holds(node.namespace, pid):
                    os.kill(pid, signal.SIGCONT)

    def _undo(self, undo: _Undo) -> None:
        self.undos.remove(undo)
        nodes = " ".join(undo.nodes)
        if undo.fault.verb == "cut":
            self._say("all links are whole")
            self.built.heal()
        elif undo.fault.verb.startswith("freeze"):
            self._say(f"{nodes} goes on")
            self._resume(undo.nodes)
        else:
            self._say(f"{nodes} booted")
            for name in undo.nodes:
                self.built.start(name)

    def _heal(self) -> None:
        self.built.heal()
        self._resume(tuple(self.frozen))
        for node in self.built.nodes():
            if init_of(node) is None:
                self.built.start(node.name)
        self._say("all is healed")

    def _wait_until_whole(self, limit: float) -> None:
        while not self._is_whole():
            if time.monotonic() > limit:
                raise MeshdError(
                    "MESH-8040",
                    f"not whole {HEALED_S:.0f} s after everything was healed",
                    fix="the kept logs say what each node waits for",
                )
            time.sleep(_LOOK_S)

    def _is_whole(self) -> bool:
        """Whether every node is formed and its k3s ready, and the VIP answers."""
        for one in self._look():
            if one.status is None or one.status["genesis"]["phase"] != "formed":
                return False
            me = one.status["node"]["id"]
            if next(n["k3s"] for n in one.status["nodes"] if n["id"] == me) != "ready":
                return False
        return tour.holder_that_answers(self.built) is not None

    def _generation(self) -> int | None:
        said = {one.status["genesis"]["generation"] for one in self._look() if one.status}
        return max(said, default=None)

    def _complaints(self) -> list[str]:
        found = [str(clash) for clash in self.witness.clashes[:3]]
        lines = audit(self.built.places)
        generations = [one.generation for one in lines]
        if None in generations or len(set(generations)) < len(generations):
            found += ["more than one cluster of a generation:", *(f"  {one}" for one in lines)]
        if not lines:
            found.append("no cluster ever came up")
        if len(self.done) > 1:
            found.append(f"two clusters were called formed: {', '.join(sorted(self.done))}")
        for node in self.built.nodes():
            ends = node.exits.read_text().split() if node.exits.exists() else []
            if [end for end in ends if end != "-9"]:  # By a signal that was ours.
                found.append(f"{node.name}'s daemon ended by itself: {' '.join(ends)}")
            if witness.databases(node) > 1:
                found.append(f"{witness.databases(node)} etcd run on {node.name}")
        return found


def cycle(
    places: Places, plan: Plan, environment: Mapping[str, str], checklist: Checklist
) -> Outcome:
    """Run one plan in a laboratory of its own; keep its logs if it fails; leave nothing.

    Raises:
        MeshdError: the laboratory cannot be built or removed.
    """
    wanted = Wanted(
        nodes=plan.nodes, control_plane=plan.control_plane, nodes_max=plan.nodes_max, boots=True
    )
    began = time.monotonic()
    environment = {**environment, "STANDIN_PROMOTE_INTERVAL_S": str(plan.promote_s)}
    built = Laboratory.up(places, wanted, environment)
    try:
        outcome = Cycle(built, plan, checklist).run()
        if outcome.complaints:
            checklist.say(glance.as_table(built, glance.look(built)))
            checklist.say(f"    the logs are in {keep(built, plan.seed)}")
    finally:
        laboratory.down(places)
    outcome.took_s = time.monotonic() - began
    return outcome


def run(
    places: Places, cycles: int, seed: int, environment: Mapping[str, str], checklist: Checklist
) -> int:
    """Run the plans of `cycles` seeds from `seed` on; return 1 if one of them failed."""
    outcomes: list[Outcome] = []
    for number in range(seed, seed + cycles):
        plan = draw(number)
        checklist.say(str(plan))
        outcome = cycle(places, plan, environment, checklist)
        outcomes.append(outcome)
        if not outcome.complaints:
            checklist.say(
                f"  ✓ formed in generation {outcome.generation}, {outcome.began} begun, "
                f"{outcome.healed_s:.1f} s after healing, {outcome.took_s:.1f} s in all"
            )
            continue
        checklist.say(f"  ✗ seed {number} failed: {'; '.join(outcome.complaints)}")
        checklist.say(f"    again: make lab-chaos CYCLES=1 SEED={number}")
    checklist.say(summary(outcomes))
    return 1 if any(one.complaints for one in outcomes) else 0


def summary(outcomes: list[Outcome]) -> str:
    """Return what many cycles came to."""
    failed = [str(one.seed) for one in outcomes if one.complaints]
    formed = Counter(one.generation for one in outcomes if not one.complaints)
    spread = ", ".join(f"{formed[number]} in {number}" for number in sorted(formed, key=str))
    healed = [one.healed_s for one in outcomes if not one.complaints] or [0.0]
    return (
        f"{len(outcomes)} cycles, {len(failed)} failed{': ' if failed else ''}{' '.join(failed)}\n"
        f"formed by generation: {spread or 'none'}; "
        f"k3s of {sum(one.began for one in outcomes)} clusters was seen to run\n"
        f"whole after healing: median {statistics.median(healed):.1f} s, "
        f"longest {max(healed):.1f} s; {sum(one.looks for one in outcomes)} looks at what runs"
    )


def keep(built: Laboratory, seed: int) -> Path:
    """Copy the nodes' logs and the records of k3s' holders where they outlive the laboratory."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    kept = _LOG_FOLDER / f"meshd-chaos-{built.places.lab}-{seed}-{stamp}"
    kept.mkdir(mode=0o700)
    for node in built.nodes():
        for file in (node.log, node.exits, *sorted((node.state / "k3s").glob("*"))):
            if file.is_file():
                shutil.copyfile(file, kept / f"{node.name}-{file.name}")
    if built.places.sightings.exists():
        shutil.copyfile(built.places.sightings, kept / "sightings.jsonl")
    return kept
