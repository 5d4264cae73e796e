"""What the shell adds to an explanation: where settings stand, and whom the mesh has met."""

from __future__ import annotations

import trio

from meshd.clock import read_instant
from meshd.config import KubeVip, Settings
from meshd.explain import Given, Refused, Setting
from meshd.mesh import LibP2PMesh


def gather(settings: Settings, mesh: LibP2PMesh) -> Given:
    """Return what is known now."""
    now = trio.current_time()
    return Given(
        settings=tuple(
            Setting(key=stated.key, value=stated.value, place=stated.place)
            for stated in settings.stated
        ),
        contacts=mesh.contacts(),
        refused=tuple(
            Refused(
                where=", ".join(one.hosts),
                peer=one.peer,
                why=one.why,
                count=one.count,
                ago_s=now - one.last_at,
            )
            for one in mesh.refusals.all
        ),
        foreign=mesh.refusals.foreign(now),
        deaf=mesh.deaf,
        vip_lease_s=(settings.kubevip or KubeVip(address="")).lease_duration_s,
        discovery=settings.discovery,
        now=read_instant(),
    )
