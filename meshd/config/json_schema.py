"""The JSON Schema of a cloud-config, made from the table of keys (draft 2020-12)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from meshd.config.key import Key
from meshd.config.keys import ALL, SECTIONS
from meshd.config.kubevip_keys import ALIASES

SCHEMA_FILE_NAME = "meshd.schema.json"
MODELINE = f"# yaml-language-server: $schema=./{SCHEMA_FILE_NAME}"
"""What YAML language servers look for at the top of a file."""

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_SECTION_ABOUT = {
    "p2p": "The network of machines. Kairos' keys, and meshd's own below `meshd`.",
    "kubevip": "The control plane's virtual address.",
    "k3s": "k3s on control-plane machines.",
    "k3s-agent": "k3s on workers.",
}


def json_schema() -> dict[str, Any]:
    """Return the schema; other keys at the top are for other readers and are let pass."""
    schema: dict[str, Any] = {
        "$schema": _DIALECT,
        "title": "meshd cloud-config",
        "description": "What meshd reads of a cloud-config file; `meshd config validate` checks "
        "more.",
        "type": "object",
        "properties": {},
    }
    for section in SECTIONS:
        schema["properties"][section] = _object(_SECTION_ABOUT[section])
    for key in ALL.values():
        _place(schema, key)
    kubevip = schema["properties"]["kubevip"]
    for alias in sorted(ALIASES):
        kubevip["properties"][alias.partition(".")[2]] = {
            "type": ["object", "null"],
            "description": "Where Kairos' reader looks for kube-vip's settings.",
        }
    return schema


def _place(schema: dict[str, Any], key: Key[object]) -> None:
    *tables, name = key.path.split(".")
    for table in tables:
        schema = schema["properties"].setdefault(table, _object())
    schema["properties"][name] = _described(key)


def _object(about: str | None = None) -> dict[str, Any]:
    described = {} if about is None else {"description": about}
    return {
        "type": ["object", "null"],
        **described,
        "additionalProperties": False,
        "properties": {},
    }


def _described(key: Key[object]) -> dict[str, Any]:
    about = key.about if key.idle is None else f"{key.about} Has no effect: {key.idle}."
    default = {} if key.default is None else {"default": key.default}
    return {**_nullable(key.read.schema), "description": about, **default}


def _nullable(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schema that lets null pass, too: a value taken away."""
    kinds = schema["type"]
    wider = [*(kinds if isinstance(kinds, list) else [kinds]), "null"]
    words = {"enum": [*schema["enum"], None]} if "enum" in schema else {}
    return {**schema, "type": wider, **words}
