"""Settings from the text of one cloud-config file."""

from pathlib import Path

import pytest

from meshd.config import Settings, encode_token, load_settings, new_token
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


class Load:
    """Loads settings from text; TOKEN and EDGEVPN in it stand for tokens."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "c.yaml"

    def __call__(self, text: str, **env: str) -> Settings:
        filled = text.replace("TOKEN", TOKEN).replace("EDGEVPN", edgevpn_token())
        self.path.write_text("#cloud-config\n" + filled.lstrip("\n"))
        return load_settings([self.path], env)


def refusal(load: Load, text: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load(text)
    assert caught.value.exit_code == 6
    return caught.value


def codes(settings: Settings) -> list[str]:
    return [finding.code for finding in settings.findings]
