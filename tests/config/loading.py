"""Settings from the text of one cloud-config file."""

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from meshd.config import Settings, encode_token, load_settings, new_token
from meshd.config.load import Configuration, read_configuration
from meshd.errors import ConfigError
from tests.config.edgevpn_tokens import edgevpn_token

TOKEN = encode_token(
    new_token(
        control_plane=3,
        nodes_max=7,
        seeds=["/ip4/203.0.113.7/tcp/7946"],
        random_bytes=lambda count: bytes(range(count)),
    )
)
ENV: Mapping[str, str] = {"MESHD_CMDLINE_FILE": os.devnull}
"""An environment without the kernel command line of the machine that runs the tests."""


class Load:
    """Loads settings from text; TOKEN and EDGEVPN in it stand for tokens."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "c.yaml"

    def write(self, text: str) -> Path:
        filled = text.replace("TOKEN", TOKEN).replace("EDGEVPN", edgevpn_token())
        self.path.write_text("#cloud-config\n" + filled.lstrip("\n"))
        return self.path

    def __call__(self, text: str, **env: str) -> Settings:
        return load_settings([self.write(text)], {**ENV, **env})

    def examine(self, text: str, **env: str) -> Configuration:
        """Return everything that is said about the text."""
        return read_configuration([self.write(text)], {**ENV, **env})


def refusal(load: Load, text: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load(text)
    assert caught.value.exit_code == 6
    return caught.value


def codes(settings: Settings) -> list[str]:
    return [finding.code for finding in settings.findings]
