"""From a checked configuration and a token to `Settings`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from meshd.config import keys, kubevip_keys, kubevip_own
from meshd.config.bounds import decide_bounds
from meshd.config.check import Checked
from meshd.config.critical import RESERVED_VARIABLES, critical_settings, parse_args
from meshd.config.keys import Discovery, K3sKeys
from meshd.config.naming import derive, network_id_from
from meshd.config.schema import (
    Finding,
    K3sArguments,
    KubeVip,
    Network,
    Settings,
)
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
        admins=tuple(dict.fromkeys(checked.get(keys.ADMINS) or ())),
        labels=checked.get(keys.LABELS) or (),
        log_level=checked.get(keys.LOG_LEVEL) or checked.get(keys.LOGLEVEL) or "info",
        findings=(
            *(*findings, *about_bounds),
            *(_overlay_findings() if overlay_asked else ()),
            *(() if kubevip is None else _kubevip_findings(checked)),
        ),
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
    given = ((variable, checked.get(key)) for variable, key in kubevip_own.PASSED.items())
    variables = {
        variable: kubevip_own.worded(value)
        for variable, value in given
        if value is not None and value != ""
    }
    if _takes_services_of_k3s(checked):
        variables["svc_enable"] = "false"
    return KubeVip(
        address=address,
        interface=checked.get(kubevip_keys.INTERFACE) or None,
        version=checked.get(kubevip_keys.VERSION) or plain.version,
        image=checked.get(kubevip_keys.IMAGE) or plain.image,
        static_pod=checked.get(kubevip_keys.STATIC_POD) or False,
        lease_duration_s=checked.get(kubevip_keys.LEASE) or plain.lease_duration_s,
        renew_deadline_s=checked.get(kubevip_keys.RENEW) or plain.renew_deadline_s,
        retry_period_s=checked.get(kubevip_keys.RETRY) or plain.retry_period_s,
        variables=tuple(sorted(variables.items())),
    )


def _kubevip_findings(checked: Checked) -> Iterator[Finding]:
    """Yield what does not go together below `kubevip`, and is no reason not to start."""
    if _takes_services_of_k3s(checked):
        yield Finding(
            code="MESH-6020",
            origin=checked.origin(kubevip_own.SERVICES),
            message="kubevip.enableServices has no effect: k3s' own service balancer gives "
            "Services the machines' addresses, and kube-vip would take those from the machines",
            fix="add --disable=servicelb to k3s.args, or set kubevip.lbClassOnly: true",
        )
    image, version = checked.get(kubevip_keys.IMAGE) or "", kubevip_keys.VERSION
    if checked.get(version) and KubeVip(address="", image=image).image_says_version:
        yield Finding(
            code="MESH-6021",
            origin=checked.origin(version),
            message=f"kubevip.version has no effect: kubevip.image is {image}, which says its own",
            fix="remove one of the two versions",
        )
    if dict(parse_args(checked.get(keys.K3S.args) or ())).get("disable-agent") == "true":
        yield Finding(
            code="MESH-6022",
            origin=checked.origin(kubevip_keys.EIP),
            message="nothing will serve kubevip.eip: with --disable-agent in k3s.args servers run "
            "no pods, and kube-vip is one",
            fix="remove --disable-agent from k3s.args, or serve the address by other means",
        )


def _takes_services_of_k3s(checked: Checked) -> bool:
    """Whether kube-vip would serve the Services that k3s' own balancer serves, too.

    That publishes node addresses as theirs, which kube-vip then moves about (kube-vip issue 1288).
    """
    if not checked.get(kubevip_own.SERVICES) or checked.get(kubevip_own.CLASS_ONLY):
        return False
    args = checked.get(keys.K3S.args) or ()
    critical = critical_settings(args, embedded_registry=False, external_db=None)
    return dict(critical)["disable-service-lb"] == "false"


def _k3s(section: K3sKeys, checked: Checked) -> K3sArguments:
    # As in Kairos, which reads them of an agent that is enabled only; there `enabled` has to be
    # written out, here what stands there counts unless it is switched off.
    off = section is keys.K3S_AGENT and checked.get(section.enabled) is False
    return K3sArguments(
        args=() if off else checked.get(section.args) or (),
        env=() if off else env_for(section, checked),
        replace_args=checked.get(section.replace_args) or False,
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
