"""The daemon's settings, typed: what the cloud-config files and the token together mean.

Past this module no setting is in doubt: every value was checked, and its origin is known.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Literal

from meshd.config.critical import critical_settings
from meshd.errors import ConfigError
from roles import Bounds, RoleWish

Capability = Literal["vote", "join", "relay"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a value stands: file, line and column, both from 1; outside of files, a `name`."""

    path: Path | None = None
    line: int = 0
    column: int = 1
    name: str = ""  # Such as `environment MESHD_P2P_ROLE`.

    def __str__(self) -> str:
        return self.name or f"{self.path}:{self.line}"

    @property
    def place(self) -> str:
        """Return `FILE:LINE:COLUMN`, or the name."""
        return self.name or f"{self.path}:{self.line}:{self.column}"


BUILT_IN = Origin(name="built-in")
"""The origin of what nobody set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """An error or a warning about the configuration, with its place and what would do."""

    code: str
    origin: Origin | None
    message: str
    fix: str

    @property
    def located(self) -> str:
        """Return `FILE:LINE:COL: message`, or the message alone where there is no place."""
        return self.message if self.origin is None else f"{self.origin.place}: {self.message}"


class Misconfigured(ConfigError):
    """The error of one finding; its text begins with the place."""

    def __init__(self, finding: Finding, *, cause: str | None = None, others: str = "") -> None:
        super().__init__(finding.code, f"{finding.located}{others}", cause=cause, fix=finding.fix)
        self.finding = finding


@dataclass(frozen=True, slots=True, kw_only=True)
class Stated:
    """One value as the configuration states it, fit to be shown: secrets are hidden."""

    key: str  # Such as `p2p.auto.ha.master_nodes`.
    value: str  # As JSON.
    place: str  # FILE:LINE.


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """What the token says, whichever kind it is; `secret` is never shown."""

    network_id: str  # Such as `oak-7f3a9c12`; fixed for life, not a hash of the secret.
    epoch: int
    secret: bytes  # 32 bytes.
    capability: Capability
    seeds: tuple[str, ...]  # Multiaddrs, with or without /p2p/<id>.
    expires: date | None = None  # The last day (UTC) on which it lets a machine in.
    hidden: tuple[str | bytes, ...] = field(default=(), compare=False)
    """The token's own text and the secrets in it, for whoever has to keep them out of sight."""

    def __repr__(self) -> str:
        return f"Network({self.network_id}, epoch {self.epoch}, secret hidden)"


@dataclass(frozen=True, slots=True, kw_only=True)
class KubeVip:
    """`kubevip.*`: the virtual address and how kube-vip serves it."""

    address: str
    interface: str | None = None
    version: str = "v1.2.3"
    image: str = "ghcr.io/kube-vip/kube-vip"
    static_pod: bool = False
    lease_duration_s: int = 5
    renew_deadline_s: int = 3
    retry_period_s: int = 1
    variables: tuple[tuple[str, str], ...] = ()  # Of kube-vip's container, besides meshd's; sorted.

    @property
    def reference(self) -> str:
        """Return the image's whole name; a tag or digest in `image` itself counts, as in Kairos."""
        return self.image if self.image_says_version else f"{self.image}:{self.version}"

    @property
    def image_says_version(self) -> bool:
        return not {":", "@"}.isdisjoint(self.image.rpartition("/")[2])


@dataclass(frozen=True, slots=True, kw_only=True)
class K3sArguments:
    """`k3s.*` or `k3s-agent.*`: what the user adds to k3s' own command line and environment.

    Args:
        args: single words, none of them one that meshd alone may set.
        env: likewise.
        replace_args: leave out what meshd only suggests.
    """

    args: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    replace_args: bool = False
    embedded_registry: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything the daemon was told."""

    network: Network
    bounds: Bounds
    role: RoleWish
    kubevip: KubeVip | None
    k3s: K3sArguments
    k3s_agent: K3sArguments
    external_db: str | None
    listen: tuple[str, ...]  # Multiaddrs; default TCP 7946 on all addresses, IPv4 and IPv6.
    discovery: tuple[Literal["lan", "seeds", "dht"], ...]
    seeds: tuple[str, ...]  # The token's and the file's together.
    interface: str | None
    overlay_asked: bool  # The file asks for the overlay; until it exists, the LAN is used.
    labels: tuple[tuple[str, str], ...]
    admins: tuple[str, ...]  # Public keys, `age1…`.
    log_level: Literal["debug", "info", "warning", "error"]
    findings: tuple[Finding, ...]
    stated: tuple[Stated, ...] = ()  # What stands in the files, for explanations.

    @property
    def vip(self) -> str | None:
        """The virtual address, None if there is to be none."""
        return self.kubevip.address if self.kubevip is not None else None

    def critical_settings(self) -> tuple[tuple[str, str], ...]:
        """Return what must be equal on all servers, as (k3s flag or key, canonical value)."""
        of_k3s = critical_settings(
            self.k3s.args,
            embedded_registry=self.k3s.embedded_registry,
            external_db=self.external_db,
        )
        return (*of_k3s, ("kubevip.eip", self.vip or ""))

    def unusual_settings(self) -> tuple[tuple[str, str], ...]:
        """Return those of `critical_settings` that are not the default."""
        usual = dict(critical_settings((), embedded_registry=False, external_db=None))
        return tuple(
            (key, value) for key, value in self.critical_settings() if value != usual.get(key, "")
        )

    def settings_hash(self) -> str:
        """Return the SHA-256 of `critical_settings`, in hex."""
        content = json.dumps(self.critical_settings()).encode()
        return hashlib.sha256(content).hexdigest()
