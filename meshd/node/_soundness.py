"""What others may say about themselves: it ends up in configuration files and on terminals.

Whoever knows the token can publish facts, so a value that is not what it should be is refused here,
once, and nobody behind this has to think of it.
"""

from __future__ import annotations

import ipaddress
import re

from meshd.schema import Facts, K3sRecord

TEXT_MAX = 512
ADDRESSES_MAX = 64
SETTINGS_MAX = 64
NAMES_MAX = 16  # Voters of one etcd; k3s advises seven at most.

# RFC 1123, section 2.1, as Kubernetes has it for the names of nodes.
_NODE_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")


class Unsound(ValueError):
    """A record that its author should not have published."""


def sound_facts(facts: Facts) -> Facts:
    """Return `facts` if they can be used as they are.

    Raises:
        Unsound: what is wrong with them.
    """
    if not _NODE_NAME.fullmatch(facts.node_name):
        raise Unsound("a node name that Kubernetes does not allow")
    if len(facts.sealing_key) != 32:
        raise Unsound("a sealing key that is not 32 bytes")
    for address in (facts.node_ip, facts.vip):
        if address is not None:
            _check_address(address)
    if len(facts.addresses) > ADDRESSES_MAX:
        raise Unsound("too many addresses")
    if len(facts.settings) > SETTINGS_MAX:
        raise Unsound("too many settings")
    _check_text(*(text for setting in facts.settings for text in setting))
    _check_text(facts.name, facts.software, *facts.addresses)
    if not facts.name:
        raise Unsound("no name")
    return facts


def sound_k3s(record: K3sRecord) -> K3sRecord:
    """Return `record` if it can be used as it is.

    Raises:
        Unsound: what is wrong with it.
    """
    if len(record.voters) > NAMES_MAX:
        raise Unsound("too many voters")
    shown = (record.waiting_for, record.endpoint, record.kube_system_uid, record.vip_holder)
    words = (record.version, record.seats, *record.voters)
    _check_text(*words, *(one for one in shown if one is not None))
    return record


def printable(text: str) -> str:
    """Return what others will accept of a text whose origin is k3s or the system."""
    if not text.isprintable():
        text = "".join(letter if letter.isprintable() else " " for letter in text)
    return text[:TEXT_MAX]


def _check_text(*texts: str) -> None:
    for text in texts:
        if len(text) > TEXT_MAX or not text.isprintable():
            raise Unsound("a text that is too long, or not printable")


def _check_address(text: str) -> None:
    try:
        ipaddress.ip_address(text)
    except ValueError as error:
        raise Unsound(f"no IP address: {text!r}") from error
