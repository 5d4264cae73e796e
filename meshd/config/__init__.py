"""Configuration: cloud-config files and the token become `Settings`, or errors with their place."""

from meshd.config.expiry import day_of, judge_expiry, read_expiry
from meshd.config.load import load_settings
from meshd.config.naming import derive
from meshd.config.redact import secrets_of
from meshd.config.schema import (
    Capability,
    Finding,
    K3sArguments,
    KubeVip,
    Network,
    Origin,
    Settings,
)
from meshd.config.token import (
    Token,
    decode_token,
    encode_token,
    join_token,
    new_token,
    parse_token,
)

__all__ = [
    "Capability",
    "Finding",
    "K3sArguments",
    "KubeVip",
    "Network",
    "Origin",
    "Settings",
    "Token",
    "day_of",
    "decode_token",
    "derive",
    "encode_token",
    "join_token",
    "judge_expiry",
    "load_settings",
    "new_token",
    "parse_token",
    "read_expiry",
    "secrets_of",
]
