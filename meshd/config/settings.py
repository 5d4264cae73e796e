"""From a checked configuration and a token to `Settings`."""

from __future__ import annotations

from dataclasses import replace

from meshd.config import keys, kubevip_keys
from meshd.config.bounds import decide_bounds
from meshd.config.check import Checked
from meshd.config.critical import RESERVED_VARIABLES
from meshd.config.keys import Discovery, K3sKeys
from meshd.config.naming import derive, network_id_from
from meshd.config.schema import Finding, K3sArguments, KubeVip, Network, Settings
from meshd.config.token import Token

LISTEN_DEFAULT = ("/ip4/0.0.0.0/tcp/7946", "/ip6/::/tcp/7946")
DISCOVERY_DEFAULT: tuple[Discovery, ...] = ("lan", "seeds", "dht")
KAIROS_NETWORK_ID = "kairos"
"""Kairos' default for `p2p.network_id`; it stands for the token's own network."""


def settings_of(token: Token, checked: Checked, findings: tuple[Finding, ...]) -> Settings:
    """Return what the daemon is told; `findings` become the first of its warnings.

    Raises:
        Misconfigured: token and file contradict each other.
    """
    bounds, about_bounds = decide_bounds(token, checked)
    network = _subnetwork(token.network, checked)
    kubevip = _kubevip(checked)
    overlay_asked = (
        checked.get(keys.VPN_CREATE) is not False
        and checked.get(keys.VPN_USE) is not False
        and kubevip is None
    )
    discovery = checked.get(keys.DISCOVERY) or DISCOVERY_DEFAULT
    if checked.get(keys.DISABLE_DHT):
        discovery = tuple(way for way in discovery if way != "dht")
    seeds = (*network.seeds, *(checked.get(keys.SEEDS) or ()))
    return Settings(
        network=network,
        bounds=bounds,
        role=checked.get(keys.ROLE) or "auto",
        kubevip=kubevip,
        k3s=_k3s(keys.K3S, checked),
        k3s_agent=_k3s(keys.K3S_AGENT, checked),
        external_db=checked.get(keys.EXTERNAL_DB) or None,
        listen=checked.get(keys.LISTEN) or LISTEN_DEFAULT,
        discovery=discovery,
        seeds=tuple(dict.fromkeys(seeds)),
        interface=checked.get(keys.INTERFACE) or None,
        overlay_asked=overlay_asked,
        labels=checked.get(keys.LABELS) or (),
        log_level=checked.get(keys.LOG_LEVEL) or checked.get(keys.LOGLEVEL) or "info",
        findings=(*findings, *about_bounds, *(_overlay_findings() if overlay_asked else ())),
    )


def _subnetwork(network: Network, checked: Checked) -> Network:
    """Return the network of `p2p.network_id`: several may share one token and never meet."""
    name = checked.get(keys.NETWORK_ID)
    if not name or name in {KAIROS_NETWORK_ID, network.network_id}:
        return network
    secret = derive(network.secret, f"meshd network_id v1 {name}")
    identity = derive(secret, "meshd subnetwork id v1")
    return replace(network, network_id=network_id_from(identity), secret=secret)


def _kubevip(checked: Checked) -> KubeVip | None:
    """Return the virtual address and its settings; None without one."""
    address = checked.get(kubevip_keys.EIP)
    if address is None or checked.get(kubevip_keys.ENABLE) is False:
        return None
    plain = KubeVip(address=address)
    own = ((key, checked.get(key)) for key in kubevip_keys.OWN)
    return KubeVip(
        address=address,
        interface=checked.get(kubevip_keys.INTERFACE) or None,
        version=checked.get(kubevip_keys.VERSION) or plain.version,
        image=checked.get(kubevip_keys.IMAGE) or plain.image,
        static_pod=checked.get(kubevip_keys.STATIC_POD) or False,
        manifest_url=checked.get(kubevip_keys.MANIFEST_URL) or None,
        lease_duration_s=checked.get(kubevip_keys.LEASE) or plain.lease_duration_s,
        renew_deadline_s=checked.get(kubevip_keys.RENEW) or plain.renew_deadline_s,
        retry_period_s=checked.get(kubevip_keys.RETRY) or plain.retry_period_s,
        own=tuple(
            (key.path.removeprefix("kubevip."), value) for key, value in own if value is not None
        ),
    )


def _k3s(section: K3sKeys, checked: Checked) -> K3sArguments:
    return K3sArguments(
        enabled=checked.get(section.enabled),
        args=checked.get(section.args) or (),
        env=env_for(section, checked),
        replace_args=checked.get(section.replace_args) or False,
        replace_env=checked.get(section.replace_env) or False,
        embedded_registry=checked.get(section.embedded_registry) or False,
    )


def env_for(section: K3sKeys, checked: Checked) -> tuple[tuple[str, str], ...]:
    """Return the variables for k3s, without those that are meshd's and say nothing.

    Kairos' examples have empty ones (kairos.io, "Configuration reference").
    """
    return tuple(
        (name, value)
        for name, value in checked.get(section.env) or ()
        if value or name not in RESERVED_VARIABLES
    )


def _overlay_findings() -> tuple[Finding, ...]:
    return (
        Finding(
            code="MESH-1031",
            origin=None,
            message="the configuration asks for the overlay network (p2p.vpn), which this version "
            "does not have: the cluster forms on the LAN",
            fix="set p2p.vpn.create: false, or kubevip.eip for a virtual address on the LAN",
        ),
    )
