"""What is wrong with this machine itself, as far as it changes while the daemon runs.

Each finding is made anew at every look, so it goes by itself once its cause is gone.
"""

from __future__ import annotations

from meshd.config import Network, day_of, judge_expiry
from meshd.errors import ConfigError
from meshd.events import Health
from meshd.schema import CLOCK_MIN_MS


def refuse_expired_token(network: Network, *, wall_ms: int) -> None:
    """Keep a machine that is new to the network from joining with an expired token.

    For machines without an identity: one that has joined before goes on with its token.

    Raises:
        ConfigError: the token's last day is over, by a clock that was set.
    """
    if judge_expiry(network.expires, wall_ms=wall_ms, wall_ms_min=CLOCK_MIN_MS) != "expired":
        return
    raise ConfigError(
        "MESH-1070",
        f"the token of network {network.network_id} expired on {network.expires}: this machine, "
        "which has not joined it before, does not start to",
        cause=f"this machine's clock says {day_of(wall_ms)}",
        fix="put a new token into the file, made with `meshd token join --expires 7d` on a machine "
        "of that network; or set the clock, if it is wrong",
    )


def unjudged_token(network: Network, *, wall_ms: int) -> tuple[Health, ...]:
    """Say that a new machine joined with a token whose last day its clock cannot judge."""
    if judge_expiry(network.expires, wall_ms=wall_ms, wall_ms_min=CLOCK_MIN_MS) != "unknown":
        return ()
    return (
        Health(
            code="MESH-1071",
            severity="warning",
            message=f"this machine joined with a token that is for use until {network.expires}, "
            f"and cannot tell whether that day is over: its clock says {day_of(wall_ms)}",
            fix="set the clock; if the token had expired, and this machine should not be here, "
            "take it away",
        ),
    )
