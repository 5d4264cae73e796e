"""Values that are right one by one and wrong together, or wrong for meshd."""

from __future__ import annotations

from collections.abc import Iterator

from meshd.config import keys, kubevip_keys
from meshd.config.check import Checked
from meshd.config.critical import RESERVED_VARIABLES, is_reserved, parse_args
from meshd.config.key import Key
from meshd.config.schema import Finding, KubeVip, Origin
from meshd.config.settings import env_for
from meshd.config.tree import Sequence, Table


def inconsistencies(checked: Checked) -> tuple[Finding, ...]:
    """Return an error for each of them."""
    errors = []

    def refuse(code: str, key: Key[object], message: str, fix: str) -> None:
        errors.append(Finding(code=code, origin=checked.origin(key), message=message, fix=fix))

    if checked.get(keys.AUTO_ENABLE) is False:
        refuse(
            "MESH-1035",
            keys.AUTO_ENABLE,
            "p2p.auto.enable is false: the file asks that nothing be coordinated",
            "set it to true, or do not start meshd on this machine",
        )
    if checked.get(keys.ADMISSION) in {"allowlist", "approve"}:
        refuse(
            "MESH-1037",
            keys.ADMISSION,
            "p2p.meshd.admission: this version admits whoever has the token",
            "remove it; a file that asks for more protection than there is is refused",
        )
    if checked.get(kubevip_keys.ENABLE) and checked.get(kubevip_keys.EIP) is None:
        refuse(
            "MESH-1036",
            kubevip_keys.ENABLE,
            "kubevip.enable is true, but there is no address",
            "set kubevip.eip to a free address of the machines' network",
        )
    vip = KubeVip(address="")
    lease = checked.get(kubevip_keys.LEASE) or vip.lease_duration_s
    renew = checked.get(kubevip_keys.RENEW) or vip.renew_deadline_s
    retry = checked.get(kubevip_keys.RETRY) or vip.retry_period_s
    if not lease > renew > retry:
        given = (kubevip_keys.LEASE, kubevip_keys.RENEW, kubevip_keys.RETRY)
        refuse(
            "MESH-1036",
            next(key for key in given if checked.get(key) is not None),
            f"kubevip: lease {lease} s, renewal {renew} s and retry {retry} s do not decrease",
            "make leaseDuration > renewDeadline > retryPeriod",
        )
    return (*errors, *_reserved(checked))


def _reserved(checked: Checked) -> Iterator[Finding]:
    """Yield an error for each argument or variable of k3s that meshd alone may set."""
    for section in (keys.K3S, keys.K3S_AGENT):
        for flag, _ in parse_args(checked.get(section.args) or ()):
            if is_reserved(flag):
                yield _taken(section.args, f"--{flag}", _place_of_flag(section.args, flag, checked))
        for name, _ in env_for(section, checked):
            if name in RESERVED_VARIABLES:
                tree = checked.trees[section.env.path]
                origin = tree.origins[name] if isinstance(tree, Table) else tree.origin
                yield _taken(section.env, name, origin)


def _place_of_flag(args: Key[tuple[str, ...]], flag: str, checked: Checked) -> Origin:
    """Return the place of the first item that has the flag, long or short."""
    tree = checked.trees[args.path]
    items = tree.items if isinstance(tree, Sequence) else ()
    for item in items:
        words = args.read(Sequence(items=(item,), origin=item.origin))
        if flag in {name for name, _ in parse_args(words)}:
            return item.origin
    return tree.origin


def _taken(key: Key[object], word: str, origin: Origin) -> Finding:
    return Finding(
        code="MESH-1033",
        origin=origin,
        message=f"{key.path}: {word} decides which cluster this node belongs to, or who it is",
        fix="remove it; meshd sets it on every node",
    )
