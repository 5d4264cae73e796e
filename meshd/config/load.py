"""From files and environment to `Settings`: one entrance for the daemon and `meshd config`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

from meshd.config import keys
from meshd.config.bounds import decide_bounds
from meshd.config.check import Checked, check
from meshd.config.critical import RESERVED_VARIABLES, is_reserved, parse_args
from meshd.config.keys import Discovery, K3sKeys, Key
from meshd.config.naming import derive, network_id_from
from meshd.config.schema import Finding, K3sArguments, KubeVip, Network, Settings
from meshd.config.sources import Sources, read_sources
from meshd.config.token import Token, join_token, parse_token
from meshd.config.tree import Table, parse_yaml
from meshd.errors import ConfigError, NotPermitted

TOKEN_FILE_VARIABLE = "MESHD_TOKEN_FILE"  # noqa: S105 - The name of a variable, no secret.
LISTEN_DEFAULT = ("/ip4/0.0.0.0/tcp/7946", "/ip6/::/tcp/7946")
MISSING_CODE = "MESH-1026"
"""No token anywhere."""

STRICT_CODES = frozenset({"MESH-1023", "MESH-1024", "MESH-1025"})
"""Findings that the daemon lives with and `meshd config validate` does not."""

DISCOVERY_DEFAULT: tuple[Discovery, ...] = ("lan", "seeds", "dht")
KAIROS_NETWORK_ID = "kairos"
"""Kairos' default for `p2p.network_id`; it stands for the token's own network."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """What the files say: sources, checked values, and the settings unless something is wrong."""

    sources: Sources
    checked: Checked
    settings: Settings | None
    errors: tuple[Finding, ...]
    findings: tuple[Finding, ...]


def load_settings(paths: Sequence[Path] | None, env: Mapping[str, str]) -> Settings:
    """Return the daemon's settings.

    Args:
        paths: files and folders to read; None means Kairos' and meshd's own folders.
        env: the environment; MESHD_TOKEN_FILE names a file with a token, which wins.

    Raises:
        ConfigError: naming file, line and column of the first error, and how many there are.
    """
    configuration = read_configuration(paths, env)
    if configuration.errors:
        first, more = configuration.errors[0], len(configuration.errors) - 1
        others = f" (and {more} more: `meshd config validate` lists all)" if more else ""
        raise ConfigError(first.code, f"{located(first)}{others}", fix=first.fix)
    assert configuration.settings is not None
    return configuration.settings


def read_configuration(paths: Sequence[Path] | None, env: Mapping[str, str]) -> Configuration:
    """Return everything that can be said about the configuration, its errors included.

    Raises:
        ConfigError: the files cannot be read, or values do not fit together.
    """
    sources = read_sources(paths)
    checked = check(sources.content)
    findings = (*sources.findings, *checked.findings)
    errors = (*checked.errors, *_inconsistencies(checked))
    settings = None
    if not errors:
        settings = _settings(_token(checked, sources, env), checked, findings)
        findings = settings.findings
    return Configuration(
        sources=sources, checked=checked, settings=settings, errors=errors, findings=findings
    )


def load_join_token(
    paths: Sequence[Path] | None, env: Mapping[str, str], expires: date | None = None
) -> Token:
    """Return a token for this node's network whose holder never votes.

    An EdgeVPN token becomes one of meshd's own, with the bounds that the files give it.

    Raises:
        ConfigError: the configuration is wrong.
        NotPermitted: this node's own token may neither vote nor join.
    """
    settings = load_settings(paths, env)
    sources = read_sources(paths)
    token = _token(check(sources.content), sources, env)
    if token.network.capability == "relay":
        raise NotPermitted(
            "MESH-1016",
            "this node's token lets it relay only",
            fix="ask a control-plane node: run `meshd token join` there",
        )
    return join_token(replace(token, bounds=settings.bounds, kind="meshd"), expires)


def token_text_in(text: str, path: Path) -> str:
    """Return p2p.network_token of the cloud-config `text`; `path` is named in errors.

    Raises:
        ConfigError: not YAML, or it holds no token.
    """
    tree, _ = parse_yaml(text, path)
    found = check(tree).get(keys.NETWORK_TOKEN) if isinstance(tree, Table) else None
    if not found:
        raise ConfigError(
            MISSING_CODE, f"{path} sets no p2p.network_token", fix="name a file that does"
        )
    return found


def located(finding: Finding) -> str:
    """Return `FILE:LINE:COL: message`, or the message alone where there is no place."""
    if finding.origin is None:
        return finding.message
    return f"{finding.origin}:{finding.origin.column}: {finding.message}"


def _token(checked: Checked, sources: Sources, env: Mapping[str, str]) -> Token:
    """Return the token of MESHD_TOKEN_FILE, else of the files."""
    named = env.get(TOKEN_FILE_VARIABLE)
    if named:
        try:
            return parse_token(Path(named).read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(
                "MESH-1025",
                f"{named}, named by {TOKEN_FILE_VARIABLE}, cannot be read: {error.strerror}",
                fix="correct the variable or the file's permissions",
            ) from None
    text = checked.get(keys.NETWORK_TOKEN)
    if not text:
        read = ", ".join(str(path) for path in sources.files) or "no file at all"
        raise ConfigError(
            MISSING_CODE,
            "no network token: p2p.network_token is not set",
            cause=f"read: {read}",
            fix="make one with `meshd token new` and put the same on every machine",
        )
    try:
        return parse_token(text)
    except ConfigError as error:
        origin = checked.origin(keys.NETWORK_TOKEN)
        assert origin is not None
        raise ConfigError(
            error.code, f"{origin}:{origin.column}: {error.what}", cause=error.cause, fix=error.fix
        ) from None


def _settings(token: Token, checked: Checked, findings: tuple[Finding, ...]) -> Settings:
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
    address = checked.get(keys.KUBEVIP_EIP)
    if address is None or checked.get(keys.KUBEVIP_ENABLE) is False:
        return None
    plain = KubeVip(address=address)
    own = ((key, checked.get(key)) for key in keys.KUBEVIP_OWN)
    return KubeVip(
        address=address,
        interface=checked.get(keys.KUBEVIP_INTERFACE) or None,
        version=checked.get(keys.KUBEVIP_VERSION) or plain.version,
        image=checked.get(keys.KUBEVIP_IMAGE) or plain.image,
        static_pod=checked.get(keys.KUBEVIP_STATIC_POD) or False,
        manifest_url=checked.get(keys.KUBEVIP_MANIFEST_URL) or None,
        lease_duration_s=checked.get(keys.KUBEVIP_LEASE) or plain.lease_duration_s,
        renew_deadline_s=checked.get(keys.KUBEVIP_RENEW) or plain.renew_deadline_s,
        retry_period_s=checked.get(keys.KUBEVIP_RETRY) or plain.retry_period_s,
        own=tuple(
            (key.path.removeprefix("kubevip."), value) for key, value in own if value is not None
        ),
    )


def _k3s(section: K3sKeys, checked: Checked) -> K3sArguments:
    return K3sArguments(
        enabled=checked.get(section.enabled),
        args=checked.get(section.args) or (),
        env=_env(section, checked),
        replace_args=checked.get(section.replace_args) or False,
        replace_env=checked.get(section.replace_env) or False,
        embedded_registry=checked.get(section.embedded_registry) or False,
    )


def _env(section: K3sKeys, checked: Checked) -> tuple[tuple[str, str], ...]:
    """Return the variables for k3s, without those that are meshd's and say nothing.

    Kairos' examples have empty ones (kairos.io, "Configuration reference").
    """
    return tuple(
        (name, value)
        for name, value in checked.get(section.env) or ()
        if value or name not in RESERVED_VARIABLES
    )


def _inconsistencies(checked: Checked) -> tuple[Finding, ...]:
    """Values that are right one by one and wrong together, or wrong for meshd."""
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
    if checked.get(keys.KUBEVIP_ENABLE) and checked.get(keys.KUBEVIP_EIP) is None:
        refuse(
            "MESH-1036",
            keys.KUBEVIP_ENABLE,
            "kubevip.enable is true, but there is no address",
            "set kubevip.eip to a free address of the machines' network",
        )
    vip = KubeVip(address="")
    lease = checked.get(keys.KUBEVIP_LEASE) or vip.lease_duration_s
    renew = checked.get(keys.KUBEVIP_RENEW) or vip.renew_deadline_s
    retry = checked.get(keys.KUBEVIP_RETRY) or vip.retry_period_s
    if not lease > renew > retry:
        given = (keys.KUBEVIP_LEASE, keys.KUBEVIP_RENEW, keys.KUBEVIP_RETRY)
        refuse(
            "MESH-1036",
            next(key for key in given if checked.get(key) is not None),
            f"kubevip: lease {lease} s, renewal {renew} s and retry {retry} s do not decrease",
            "make leaseDuration > renewDeadline > retryPeriod",
        )
    for section in (keys.K3S, keys.K3S_AGENT):
        flags = (flag for flag, _ in parse_args(checked.get(section.args) or ()))
        taken: list[tuple[Key[object], str]] = []
        taken += [(section.args, f"--{flag}") for flag in flags if is_reserved(flag)]
        names = (name for name, _ in _env(section, checked))
        taken += [(section.env, name) for name in names if name in RESERVED_VARIABLES]
        for key, word in taken:
            refuse(
                "MESH-1033",
                key,
                f"{key.path}: {word} decides which cluster this node belongs to, or who it is",
                "remove it; meshd sets it on every node",
            )
    return tuple(errors)


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
