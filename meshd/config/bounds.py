"""How many may vote and how many must agree: what token and file say together.

Every machine must come to the same numbers (docs/genesis.md), so a file that contradicts its token
is an error that names both, and never a compromise.
"""

from __future__ import annotations

from dataclasses import replace

from meshd.config import keys
from meshd.config.check import Checked
from meshd.config.key import Key
from meshd.config.schema import Finding, Misconfigured
from meshd.config.token import NODES_MAX, Token
from roles import VOTES_MAX, Bounds


def decide_bounds(token: Token, checked: Checked) -> tuple[Bounds, tuple[Finding, ...]]:
    """Return the network's bounds, and what the operator should know about them.

    Raises:
        Misconfigured: token and file contradict each other, or more must agree than a record has
            room for.
    """
    if token.bounds is None:
        bounds, findings = _from_file(checked)
    else:
        bounds, findings = _stricter(token.bounds, checked), ()
    _check_fits(bounds, checked)
    return bounds, findings


def _control_plane_in_file(checked: Checked) -> int | None:
    """Return the control plane's size as the file has it, or None if it says nothing.

    `master_nodes` counts those besides the first, and means high availability unless `ha.enable`
    is false (provider-kairos, internal/provider/config/config.go).
    """
    masters = checked.get(keys.MASTER_NODES)
    enabled = checked.get(keys.HA_ENABLE)
    if enabled is False:
        return 1
    return None if masters is None else 1 + masters


def _from_file(checked: Checked) -> tuple[Bounds, tuple[Finding, ...]]:
    control_plane = _control_plane_in_file(checked) or 1
    nodes_max = checked.get(keys.NODES_MAX)
    least = checked.get(keys.MINIMUM_NODES) or 0
    findings = []
    if control_plane % 2 == 0:
        findings.append(
            Finding(
                code="MESH-1032",
                origin=checked.origin(keys.MASTER_NODES),
                message=f"a control plane of {control_plane} survives no more losses than one of "
                f"{control_plane - 1}",
                fix=f"set {keys.MASTER_NODES.path} to {control_plane - 2} or {control_plane} "
                "(it counts control-plane nodes besides the first)",
            )
        )
    if nodes_max is not None:
        _check_reachable(nodes_max, "p2p.meshd.nodes_max", control_plane, least, checked)
        bounds = Bounds.bounded(control_plane=control_plane, nodes_max=nodes_max)
        return replace(bounds, quorum=max(bounds.quorum, least)), tuple(findings)
    bounds = Bounds.unbounded(control_plane=control_plane, minimum_nodes=least)
    findings.append(
        Finding(
            code="MESH-1029",
            origin=checked.origin(keys.NETWORK_TOKEN),
            message="the token does not bound the number of machines: of "
            f"{bounds.quorum} or more a majority starts the cluster when no other has appeared for "
            "10 s, and machines that are cut off then could start another",
            fix="set p2p.meshd.nodes_max to the most machines that will ever get this token, "
            "or use a token of `meshd token new --nodes N`; a machine that is to be a cluster by "
            "itself needs p2p.meshd.nodes_max: 1",
        )
    )
    return bounds, tuple(findings)


def _stricter(bounds: Bounds, checked: Checked) -> Bounds:
    """Return the token's bounds, narrowed by the file; the quorum never falls."""
    control_plane = _control_plane_in_file(checked)
    if control_plane is not None and control_plane != bounds.control_plane:
        key = keys.MASTER_NODES if checked.get(keys.MASTER_NODES) is not None else keys.HA_ENABLE
        raise _error(
            "MESH-1027",
            key,
            checked,
            f"the file asks for a control plane of {control_plane} (the first and "
            f"{control_plane - 1} more), the token for {bounds.control_plane}",
            f"set p2p.auto.ha.master_nodes to {bounds.control_plane - 1}, or remove it, "
            f"or make a token with --control-plane {control_plane}",
        )
    nodes_max = checked.get(keys.NODES_MAX)
    if bounds.is_open:
        # A join token made from a file without a number: what it is used with may name one.
        return _from_file(checked)[0]
    if nodes_max is not None and nodes_max > bounds.nodes_max:
        raise _error(
            "MESH-1027",
            keys.NODES_MAX,
            checked,
            f"the file allows {nodes_max} machines, the token {bounds.nodes_max}",
            f"set it to {bounds.nodes_max} or less, or make a token with --nodes {nodes_max}",
        )
    least = checked.get(keys.MINIMUM_NODES) or 0
    quorum = max(bounds.quorum, least)
    narrowed = bounds.nodes_max if nodes_max is None else nodes_max
    where = "the token" if nodes_max is None else "p2p.meshd.nodes_max"
    _check_reachable(narrowed, where, bounds.control_plane, quorum, checked)
    return replace(bounds, nodes_max=narrowed, quorum=quorum)


def _check_reachable(
    nodes_max: int, where: str, control_plane: int, quorum: int, checked: Checked
) -> None:
    """Refuse numbers with which no cluster could ever form."""
    if nodes_max < max(control_plane, quorum):
        blamed = keys.NODES_MAX if checked.get(keys.NODES_MAX) is not None else keys.MINIMUM_NODES
        raise _error(
            "MESH-1014",
            blamed,
            checked,
            f"{where} allows {nodes_max} machines, but {max(control_plane, quorum)} must agree "
            f"to start a control plane of {control_plane}",
            "allow more machines, or ask for fewer",
        )


def _check_fits(bounds: Bounds, checked: Checked) -> None:
    """Refuse a quorum whose signatures do not fit into one ledger entry."""
    if bounds.quorum <= VOTES_MAX:
        return
    most = ((keys.MINIMUM_NODES, VOTES_MAX), (keys.NODES_MAX, NODES_MAX))
    asked = [key for key, limit in most if (checked.get(key) or 0) > limit]
    blamed = asked[0] if asked else keys.NETWORK_TOKEN
    raise _error(
        "MESH-1017",
        blamed,
        checked,
        f"a quorum of {bounds.quorum} is too large: a decision carries that many signatures, and "
        f"a ledger entry has room for {VOTES_MAX}",
        f"allow at most {NODES_MAX} machines to vote (p2p.meshd.nodes_max, or a token of "
        f"`meshd token new --nodes {NODES_MAX}`), and let p2p.minimum_nodes be {VOTES_MAX} at most",
    )


def _error(code: str, key: Key[object], checked: Checked, what: str, fix: str) -> Misconfigured:
    return Misconfigured(Finding(code=code, origin=checked.origin(key), message=what, fix=fix))
