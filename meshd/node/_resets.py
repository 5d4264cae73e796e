"""`meshd bootstrap reset` as the core sees it: whether it may be, and what everybody is told of it.

Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ledger import Signer
from meshd.errors import NotPermitted
from meshd.events import Health, MembershipReset, Note
from meshd.node._directory import Directory
from meshd.node._orders import Standing, concerned
from meshd.node._readdress import seats_now
from meshd.node._refusals import (
    names_of,
    refuse_at_work,
    refuse_heard,
    refuse_majority,
    refuse_repairable,
    refuse_rivals_at_work,
    refuse_unaccounted,
    refuse_under_way,
    rivals_of,
    rivals_text,
    seat_named,
)
from roles import GenesisState, Seat
from roles.resets import Resets, SeatsRecord, Succession, follow, origin_of, sign_reset


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """What a reset on this node would do.

    Args:
        base: the epoch of the database that it starts from.
        epoch: the one that it begins; higher than that of any reset that it ends.
        seats: who has a seat afterwards, this node first.
        dead: whose seats are given up.
        were: `seats` with the addresses that they had before.
        ended: digests of resets that contradict this node's, and give way to this one.
        rivals: the survivors of these.
    """

    cluster_id: str
    base: int
    epoch: int
    before: bytes
    seats: tuple[Seat, ...]
    dead: tuple[Seat, ...]
    were: tuple[Seat, ...]
    ended: tuple[bytes, ...] = ()
    rivals: tuple[Seat, ...] = ()


def propose_reset(
    directory: Directory,
    standing: Standing,
    *,
    api_answers: bool,
    confirm_dead: Sequence[str],
    readdress: bool = False,
    restores: bool = False,
) -> Proposal:
    """Return what a reset would do, or refuse it.

    Args:
        directory: who is known and heard.
        standing: what is decided.
        api_answers: whether the API server on this node does.
        confirm_dead: seats that the operator names dead: hostname, node name or id.
        readdress: seats that are heard go on at the addresses that they have now.
        restores: the database comes from a snapshot, because those on all disks are of no use;
            seats that are heard join it.

    Raises:
        MeshdError: why it may not be.
    """
    plan = standing.plan
    if plan is None or not standing.formed:
        raise NotPermitted(
            "MESH-4020",
            "the cluster has not formed yet, so there is nothing to reset",
            fix="`meshd explain genesis` says what it waits for; it goes on by itself",
        )
    own = plan.seat_of(directory.me)
    if own is None:
        raise NotPermitted(
            "MESH-4020",
            "this node has no seat in the control plane, so it has no database",
            fix=f"run it on one of {names_of(directory, plan.seats)}",
        )
    rivals = rivals_of(directory, standing)
    nameable = concerned(plan, standing.succession)
    dead = tuple(dict.fromkeys(seat_named(nameable, name) for name in confirm_dead))
    present = directory.present()
    refuse_heard(directory, dead, present)
    others = [seat for seat in nameable if seat.node != directory.me]
    if rivals:
        refuse_rivals_at_work(directory, standing, plan, rivals)
        refuse_at_work(directory, standing, plan)
    if not rivals or restores:
        # An only server answers on after its address changed, but nobody finds it any more.
        alone = readdress and len(plan.seats) == 1
        refuse_repairable(directory, plan, api_answers=api_answers and not alone)
    refuse_under_way(directory, standing)
    heard = [seat for seat in others if seat.node in present]
    refuse_unaccounted(directory, [s for s in others if s not in heard and s not in dead])
    kept = (own, *(seat for seat in heard if plan.seat_of(seat.node) is not None))
    seats = seats_now(directory, plan, kept) if readdress else kept
    if not (rivals or restores):
        refuse_majority(directory, plan, [seat for seat in kept if seat in seats])
    chain, nodes = standing.succession.chain, {seat.node for seat in kept}
    return Proposal(
        cluster_id=plan.cluster_id,
        base=standing.epoch,
        epoch=max([standing.epoch, *(rival.record.epoch for rival in rivals)]) + 1,
        before=chain[-1].digest if chain else origin_of(plan),
        seats=seats,
        dead=tuple(seat for seat in plan.seats if seat.node not in nodes),
        ended=tuple(rival.digest for rival in rivals),
        rivals=tuple(rival.record.seats[0] for rival in rivals),
        were=kept,
    )


def reset_entry(signer: Signer, network_id: str, done: MembershipReset) -> tuple[str, bytes]:
    """Return ledger key and value of the record of a reset that was carried out here."""
    record = SeatsRecord(
        network_id=network_id,
        cluster_id=done.cluster_id,
        epoch=done.epoch,
        before=done.before,
        survivor=signer.node_id,
        seats=done.seats,
        dead=done.dead,
        by=done.by,
        at_ms=done.at_ms,
        ended=done.ended,
        snapshot=done.snapshot,
    )
    return f"cluster/seats/{done.epoch}", sign_reset(signer, record)


def stand(
    directory: Directory, before: Standing, state: GenesisState, resets: Resets
) -> tuple[Standing, list[Note]]:
    """Return what is decided by genesis and by operators since, and what is new of the latter."""
    record = directory[directory.me].k3s
    held = bytes.fromhex(record.seats) if record is not None else b""
    plan = state.plan if state.formed else None
    succession = follow(plan, resets, held=held, me=directory.me)
    notes = reset_notes(directory, before.succession, succession, held=held)
    return Standing.of(state, succession), notes


def reset_notes(
    directory: Directory, before: Succession, after: Succession, *, held: bytes = b""
) -> list[Note]:
    """Return lines for the history: each reset that this node follows now, each contradiction.

    Those up to the one that an earlier life of this node followed, `held`, were told then.
    """
    digests = [reset.digest for reset in after.chain]
    told = digests.index(held) + 1 if held in digests else 0
    known = {reset.digest for reset in before.chain} | set(digests[:told])
    notes = [
        Note(kind="cluster_reset", text=reset_text(directory, reset.record))
        for reset in after.chain
        if reset.digest not in known
    ]
    if after.rivals and after.rivals != before.rivals:
        notes.append(Note(kind="resets_contradict", text=rivals_text(directory, after)))
    return notes


def reset_text(directory: Directory, record: SeatsRecord) -> str:
    """Return one reset in words; the time is the survivor's."""
    rest = [directory.name(seat.node) for seat in record.seats[1:]]
    verb = "joins" if len(rest) == 1 else "join"
    joins = f"; {', '.join(rest)} {verb} again with an empty database" if rest else ""
    dead = ", ".join(directory.name(node) for node in record.dead) or "nobody"
    restored = f", restored from {record.snapshot}," if record.snapshot else ""
    return (
        f"epoch {record.epoch}, {utc(record.at_ms)}: {record.by} reset etcd's membership on "
        f"{directory.name(record.survivor)}, whose database{restored} holds from now on; "
        f"confirmed dead: {dead}{joins}"
    )


def reset_health(directory: Directory, standing: Standing) -> list[Health]:
    """Return what is wrong about resets."""
    succession, plan = standing.succession, standing.plan
    if plan is None or not standing.formed:
        return []
    items = []
    if succession.rivals:
        items.append(
            Health(
                code="MESH-4029",
                severity="error",
                message=rivals_text(directory, succession),
                fix="choose one: power off the other machines named here, run `meshd bootstrap "
                "reset` on the one that stays, naming them dead, and power them on again",
            )
        )
    present = directory.present()
    for known in directory:
        record = known.k3s
        if record is None or record.cluster_id != plan.cluster_id or known.node not in present:
            continue
        if record.superseded:
            items.append(
                Health(
                    code="MESH-4034",
                    severity="error",
                    message=f"{known.name} still serves the database of before the reset of epoch "
                    f"{succession.newest}: there are two clusters",
                    fix=f"to keep the one that was reset: restart {known.name} (its old database "
                    "is set aside then, and it joins); to keep the old one: power off "
                    f"{_survivors(directory, succession)}",
                )
            )
        if record.resetting > succession.newest:
            items.append(
                Health(
                    code="MESH-4031",
                    severity="warning",
                    message=f"etcd's membership is being reset on {known.name}",
                    fix="none needed: `meshd bootstrap status` there shows how far it is",
                )
            )
    return items


def utc(wall_ms: int) -> str:
    """Return milliseconds since 1970 as text, such as 2026-11-26 17:56 UTC.

    Days to a date as in Howard Hinnant, chrono-Compatible Low-Level Date Algorithms: no clock, no
    time zone, so the core may do it.
    """
    days, ms = divmod(wall_ms, 86_400_000)
    era, day_of_era = divmod(days + 719_468, 146_097)
    leap = day_of_era // 1460 - day_of_era // 36_524 + day_of_era // 146_096
    year_of_era = (day_of_era - leap) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    shifted = (5 * day_of_year + 2) // 153  # Months from March on.
    day = day_of_year - (153 * shifted + 2) // 5 + 1
    month = shifted + 3 if shifted < 10 else shifted - 9
    year = era * 400 + year_of_era + (month <= 2)
    minutes = ms // 60_000
    return f"{year:04}-{month:02}-{day:02} {minutes // 60:02}:{minutes % 60:02} UTC"


def _survivors(directory: Directory, succession: Succession) -> str:
    found = succession.rivals or succession.chain[-1:]
    return " and ".join(directory.name(reset.record.survivor) for reset in found)
