"""No secret comes out of the log: not in any field, not in any form of writing, not in part."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.config import parse_token, secrets_of
from meshd.config.load import load_settings
from meshd.observe._redaction import WINDOW, Redaction
from tests.shell.log_bench import NODE, SECRET, SERVER_TOKEN, TOKEN, Terminal, bench, made_token

pytestmark = pytest.mark.usefixtures("undisturbed_logging")


FORMS = {
    "token": TOKEN,
    "token in capitals": TOKEN.upper(),
    "half of the token": TOKEN[40:70],
    "secret in hex": SECRET.hex(),
    "secret in base64": base64.b64encode(SECRET).decode(),
    "part of the secret": base64.urlsafe_b64encode(SECRET).decode()[3:25],
    "secret as Python writes it": SECRET,
    "k3s token": SERVER_TOKEN,
    "full k3s token": f"K10{'ca' * 32}::server:{SERVER_TOKEN}",
    "k3s token in basic auth": base64.b64encode(f"server:{SERVER_TOKEN}".encode()).decode(),
    "a private key": "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEE\n-----END EC PRIVATE KEY-----",
    "an age key": "AGE-SECRET-KEY-1QQQSYQCYQ5RQWZQFPG9SCRGWPUGPZYSNZS23V9CCRYDPK8QARC0SWJE5TH",
}
FRAGMENTS = {
    "a private key": "MHcCAQEE",
    "an age key": "QYCYQ5RQWZQ",
    "secret as Python writes it": repr(SECRET)[2:-1],
}


@pytest.mark.parametrize("kind", FORMS)
@pytest.mark.parametrize("place", ["event", "text", "name", "list", "object", "exception", "tail"])
@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_no_secret_comes_out_of_any_field(kind: str, place: str, stream: type[io.StringIO]) -> None:
    made, secret = bench(stream=stream()), FORMS[kind]
    match place:
        case "event":
            made.log.info(str(secret) if isinstance(secret, str) else "bytes", field=secret)
        case "name":
            made.log.info("seen", **{str(secret): 1} if isinstance(secret, str) else {"f": secret})
        case "list":
            made.log.info("seen", items=[1, secret, (secret,)])
        case "object":
            made.log.info("seen", nested={"below": {"deep": secret}})
        case "exception":
            made.log.error("seen", exc_info=ValueError(secret))
        case "tail":
            made.log.info("seen", url=f"https://n1:6443/?t={secret!s}&x=1")
        case _:
            made.log.info("seen", text=f"before {secret!s} after")
    out = made.stream.getvalue()
    assert out
    if isinstance(secret, bytes) and place in {"exception", "tail", "text"}:
        return  # Made a text by the caller: what a repr of bytes is, nobody else can know.
    looked_for = FRAGMENTS.get(kind, secret)
    assert isinstance(looked_for, str)
    windows = {looked_for[at : at + WINDOW] for at in range(max(1, len(looked_for) - WINDOW + 1))}
    assert not [one for one in windows if one.lower() in out.lower()]


def test_the_settings_name_all_their_secrets(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(
        "#cloud-config\np2p:\n"
        f"  network_token: {TOKEN}\n"
        "  auto: {ha: {master_nodes: 2}}\n"
        "k3s:\n  env:\n    AWS_SECRET_ACCESS_KEY: hunter2hunter2\n    HTTP_PROXY: http://proxy:3128\n"
    )
    told = list(secrets_of(load_settings([config], {})))
    assert {TOKEN, SECRET, "hunter2hunter2"} <= set(told)
    assert "http://proxy:3128" not in told
    redaction = Redaction()
    for secret in told:
        redaction.hide(secret)
    assert redaction.text("password is Hunter2Hunter2!") == "password is (hidden)!"


def test_an_edgevpn_tokens_keys_are_known_too() -> None:
    keys = {"dht": "q" * 43, "crypto": "w" * 43, "room": "e" * 43}
    text = (
        f"otp:\n  dht: {{interval: 360, key: {keys['dht']}, length: 43}}\n"
        f"  crypto: {{interval: 360, key: {keys['crypto']}, length: 43}}\nroom: {keys['room']}\n"
    )
    encoded = base64.b64encode(text.encode()).decode()
    redaction = Redaction()
    for secret in parse_token(encoded).network.hidden:
        redaction.hide(secret)
    for secret in (encoded, *keys.values()):
        assert redaction.text(f"<{secret}>") == "<(hidden)>"


@pytest.mark.parametrize(
    "text",
    [
        "n1 to hand over the server-token and the agent-token",
        f"connected to {NODE} (direct)",
        "2 of 3 voters seen (n1, n2): one more machine with this token must be reachable",
        "https://10.0.0.11:6443 answers, /ip4/10.0.0.11/tcp/7946",
        f"kube-system 6f9619ff-8b86-d011-b42d-00cf4fc964ff of cluster {'c1' * 16}",
    ],
)
def test_ordinary_sentences_stay_as_they_are(text: str) -> None:
    redaction = Redaction()
    for secret in (TOKEN, SECRET, SERVER_TOKEN):
        redaction.hide(secret)
    assert redaction.text(text) == text


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("k3s --datastore-endpoint=mysql://u:p@h", "k3s --datastore-endpoint=(hidden)"),
        ("via http://user:pass@proxy:3128/", "via http://user:(hidden)@proxy:3128/"),
        (f"another {made_token(91)} here", "another (hidden) here"),
    ],
)
def test_what_looks_secret_is_hidden_though_nobody_told(text: str, left: str) -> None:
    assert Redaction().text(text) == left


@given(
    st.binary(min_size=16, max_size=64),
    st.text(max_size=30),
    st.text(max_size=30),
    st.integers(0, 30),
)
def test_no_window_of_a_told_secret_is_ever_left(
    secret: bytes, before: str, after: str, start: int
) -> None:
    redaction = Redaction()
    redaction.hide(secret)
    written = secret.hex()[start:]
    left = redaction.text(f"{before}{written}{after}").lower()
    windows = (secret.hex()[at : at + WINDOW] for at in range(len(secret.hex()) - WINDOW + 1))
    assert not any(window in left for window in windows)
