"""The table of all keys in docs/configuration.md is what the source says.

`MESHD_REWRITE=1 pytest tests/config/test_reference.py` rewrites it; read the diff first.
"""

import json
import os
from pathlib import Path

from meshd.config.key import Key
from meshd.config.keys import ALL, SECTIONS

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"
MARK = "<!-- keys -->\n"


def row(key: Key[object]) -> str:
    default = "" if key.default is None else f"`{json.dumps(key.default)}`"
    about = key.about if key.idle is None else f"{key.about} *No effect: {key.idle}.*"
    secret = " Secret." if key.secret else ""
    return f"| `{key.path}` | {key.read.words} | {default} | {about}{secret} |"


def keys_table() -> str:
    lines = []
    for section in SECTIONS:
        lines += [
            "",
            f"### {section}",
            "| key | value | default | what it does |",
            "|---|---|---|---|",
        ]
        lines += [row(key) for path, key in ALL.items() if path.partition(".")[0] == section]
    return "\n".join(lines) + "\n"


def test_the_table_of_keys_is_up_to_date() -> None:
    before, mark, table = PAGE.read_text(encoding="utf-8").partition(MARK)
    assert mark
    if "MESHD_REWRITE" in os.environ:
        PAGE.write_text(before + mark + keys_table(), encoding="utf-8")
        return
    assert table == keys_table(), (
        "rewrite it: MESHD_REWRITE=1 .venv/bin/pytest tests/config/test_reference.py"
    )


def test_every_key_has_one_row() -> None:
    table = keys_table()
    assert sum(line.startswith("| `") for line in table.splitlines()) == len(ALL)
