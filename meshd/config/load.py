"""From files and environment to `Settings`: one entrance for the daemon and `meshd config`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

from meshd.config import keys
from meshd.config.check import Checked, check
from meshd.config.consistency import inconsistencies
from meshd.config.overlay import add_cmdline, add_environment, add_token_file
from meshd.config.redact import flat, redacted
from meshd.config.schema import Finding, Misconfigured, Settings, Stated
from meshd.config.settings import settings_of
from meshd.config.sources import Sources, read_sources
from meshd.config.token import Token, join_token, parse_token
from meshd.config.tree import Table, parse_yaml
from meshd.errors import ConfigError, NotPermitted

SKIPPED_CODE = "MESH-1025"
"""A file was passed over, or could not be read."""

MISSING_CODE = "MESH-1026"
"""No token anywhere."""

STRICT_CODES = frozenset({"MESH-1023", "MESH-1024", "MESH-1025", "MESH-1039"})
"""Findings that the daemon lives with and `meshd config validate` does not."""

_BOUNDS_PATHS = frozenset(
    path
    for key in (keys.HA_ENABLE, keys.MASTER_NODES, keys.MINIMUM_NODES, keys.NODES_MAX)
    for path in (key.path, *(key.path.rsplit(".", depth)[0] for depth in (1, 2, 3)))
)
"""What decides the bounds; nothing is said about them while one of these is wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """What the sources say: checked values, all errors, and the settings if there are none."""

    sources: Sources
    checked: Checked
    token: Token | None
    settings: Settings | None
    errors: tuple[Finding, ...]
    findings: tuple[Finding, ...]


def load_settings(paths: Sequence[Path] | None, env: Mapping[str, str]) -> Settings:
    """Return the daemon's settings.

    Args:
        paths: files and folders to read; None means Kairos' and meshd's own folders.
        env: the environment, which wins over files: MESHD_TOKEN_FILE names a file with a token,
            others set single keys.

    Raises:
        ConfigError: naming file, line and column of the first error, and how many there are.
    """
    return _settings_in(read_configuration(paths, env), paths)


def read_configuration(
    paths: Sequence[Path] | None, env: Mapping[str, str], *, files_only: bool = False
) -> Configuration:
    """Return everything that can be said about the configuration; nothing wrong is raised.

    Args:
        paths: as for `load_settings`.
        env: likewise.
        files_only: leave out the kernel command line and the variables that set single keys.
    """
    sources = read_sources(paths)
    if not files_only:
        add_cmdline(sources, env)
        add_environment(sources, env)
    add_token_file(sources, env)
    return examine(sources)


def examine(sources: Sources) -> Configuration:
    """Return everything that can be said about what was read."""
    checked = check(sources.content)
    errors = [*sources.errors, *checked.errors, *inconsistencies(checked)]
    findings = (*sources.findings, *checked.findings)
    token = settings = None
    try:
        token = _token(checked)
        if not checked.refused & _BOUNDS_PATHS:
            settings = settings_of(token, checked, findings)
            settings = replace(settings, stated=_stated(sources))
    except Misconfigured as error:
        # A token may stand in a file that cannot be read: that error is the one to mend.
        if error.finding.code != MISSING_CODE or not errors:
            errors.append(error.finding)
    return Configuration(
        sources=sources,
        checked=checked,
        token=token,
        settings=None if errors else settings,
        errors=tuple(sorted(errors, key=lambda error: _place(error, sources))),
        findings=findings if settings is None else settings.findings,
    )


def _stated(sources: Sources) -> tuple[Stated, ...]:
    """Return what stands where, for explanations; secrets are hidden."""
    return tuple(
        Stated(key=path, value=value, place=str(origin))
        for path, value, origin in flat(redacted(sources.content))
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
    configuration = read_configuration(paths, env)
    settings, token = _settings_in(configuration, paths), configuration.token
    assert token is not None
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
    document = parse_yaml(text, path)
    if document.errors:
        raise Misconfigured(document.errors[0])
    tree = document.tree
    found = check(tree).get(keys.NETWORK_TOKEN) if isinstance(tree, Table) else None
    if not found:
        raise ConfigError(
            MISSING_CODE, f"{path} sets no p2p.network_token", fix="name a file that does"
        )
    return found


def _settings_in(configuration: Configuration, paths: Sequence[Path] | None) -> Settings:
    if configuration.errors:
        first, more = configuration.errors[0], len(configuration.errors) - 1
        cause = None
        if first.code == MISSING_CODE:
            cause = f"read: {', '.join(configuration.sources.names) or 'no file at all'}"
            # The file that was meant is often among these.
            odd = [one.located for one in configuration.findings if one.code == SKIPPED_CODE]
            cause = "; ".join([cause, *odd])
        command = " ".join(["meshd config validate", *map(str, paths or ())])
        others = f" (and {more} more: `{command}` lists all)" if more else ""
        raise Misconfigured(first, cause=cause, others=others)
    assert configuration.settings is not None
    return configuration.settings


def _token(checked: Checked) -> Token:
    """Return the token.

    Raises:
        Misconfigured: there is none, or it is wrong.
    """
    origin = checked.origin(keys.NETWORK_TOKEN)
    text = checked.get(keys.NETWORK_TOKEN)
    if not text:
        raise Misconfigured(
            Finding(
                code=MISSING_CODE,
                origin=origin,
                message=f"no network token: {keys.NETWORK_TOKEN.path} is not set",
                fix="make one with `meshd token new` and put the same on every machine",
            )
        )
    try:
        return parse_token(text)
    except ConfigError as error:
        raise Misconfigured(
            Finding(code=error.code, origin=origin, message=error.what, fix=error.fix)
        ) from None


def _place(error: Finding, sources: Sources) -> tuple[int, int, int]:
    """Return what sorts errors as a reader meets them: by file, line and column."""
    origin = error.origin
    if origin is None or origin.path is None:
        return len(sources.files) + 1, 0, 0
    known = origin.path in sources.files
    number = sources.files.index(origin.path) if known else len(sources.files)
    return number, origin.line, origin.column
