"""EdgeVPN's tokens as secrets."""

import json

import pytest

from meshd.config import parse_token
from meshd.errors import ConfigError
from tests.config.edgevpn_tokens import KEY, TEXT, edgevpn_token


def test_an_edgevpn_token_makes_a_network_that_knows_no_bounds() -> None:
    token = parse_token(edgevpn_token())
    assert token.kind == "edgevpn"
    assert token.bounds is None
    assert token.network.capability == "vote"
    assert len(token.network.secret) == 32


def test_the_derived_secret_and_network_id_never_change() -> None:
    """Machines that were updated must stay in their network: these values are fixed for ever."""
    network = parse_token(edgevpn_token()).network
    assert network.network_id == "newt-b8e7062f"
    assert (
        network.secret.hex() == "b67ac3a0b360d76e554b16883ec3820857008d9c2dccbeb3c7c8917a46cd9982"
    )


def test_how_the_token_was_written_does_not_matter() -> None:
    lines = TEXT.splitlines()
    reordered = "\n".join([*lines[9:], *lines[:9]])
    flow = "{" + ", ".join(
        f"{name}: {json.dumps(value)}"
        for name, value in {
            "otp": {
                "dht": {"key": KEY, "interval": 360, "length": 43},
                "crypto": {"key": KEY[::-1], "interval": 360, "length": 43},
            },
            "max_message_size": 20971520,
            "room": KEY.lower(),
            "rendezvous": KEY.upper(),
            "mdns": KEY[3:] + KEY[:3],
        }.items()
    ) + "}"  # fmt: skip
    plain = parse_token(edgevpn_token())
    assert parse_token(edgevpn_token(reordered)) == plain
    assert parse_token(edgevpn_token(flow)) == plain
    wrapped = edgevpn_token()
    assert parse_token("\n".join([wrapped[:76], wrapped[76:]])) == plain


def test_another_key_is_another_network() -> None:
    other = parse_token(edgevpn_token(TEXT.replace(KEY, KEY.swapcase())))
    assert other.network.network_id != parse_token(edgevpn_token()).network.network_id


def test_a_key_that_can_be_guessed_is_refused_and_not_shown() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_token(edgevpn_token(TEXT.replace(KEY, "hunter2")))
    assert caught.value.code == "MESH-1004"
    assert "otp.dht.key has 7 characters" in caught.value.what
    assert "hunter2" not in caught.value.render()


@pytest.mark.parametrize("length", [21, 22])
def test_22_characters_are_the_least(length: int) -> None:
    text = edgevpn_token(TEXT.replace(KEY[::-1], KEY[:length]))
    if length == 22:
        assert parse_token(text).kind == "edgevpn"
    else:
        with pytest.raises(ConfigError, match=r"otp\.crypto\.key has 21"):
            parse_token(text)


@pytest.mark.parametrize(
    "text", ["room: x", "[1, 2]", "otp: 1", "otp: {dht: {key: [1]}}", "a: [", "\x00"]
)
def test_base64_of_something_else_is_no_token(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_token(edgevpn_token(text))
    assert caught.value.code == "MESH-1003"
