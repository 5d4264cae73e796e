"""A line of the log as JSON, as text for journald, as text for a terminal."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Literal

from meshd.observe._redaction import Plain

Form = Literal["journal", "terminal", "plain terminal", "json"]
Line = Mapping[str, Plain]

PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
"""Of sd-daemon(3), by level."""

_COLOURS = {"debug": 2, "info": 32, "warning": 33, "error": 31, "critical": 31}
_NODE_ID = re.compile(r"\b12D3KooW[1-9A-HJ-NP-Za-km-z]{44}\b")
_SELF_EVIDENT = frozenset({"ts", "level", "event", "text", "node", "exception"})
# Of the fields that text leaves out, `node` is always the machine one is on.


def render(line: Line, form: Form) -> str:
    """Return one line of log, without the newline."""
    match form:
        case "json":
            return json.dumps(line, ensure_ascii=False)
        case "journal":
            priority = PRIORITIES.get(str(line["level"]), 6)
            # journald makes an entry of each line, and has its own time stamps.
            return "\n".join(f"<{priority}>{one}" for one in _words(line).split("\n"))
        case "plain terminal" | "terminal":
            level = str(line["level"])
            word = f"{level:<8}"
            if form == "terminal":
                word = f"\x1b[{_COLOURS.get(level, 0)}m{word}\x1b[0m"
            return f"{str(line['ts'])[11:19]} {word}{_words(line)}"


def span(seconds: float) -> str:
    """Return a duration as people say it, such as `5m20s`."""
    whole = int(seconds)
    hours, minutes = whole // 3600, whole % 3600 // 60
    if hours:
        return f"{hours}h{minutes:02}m"
    return f"{minutes}m{whole % 60:02}s" if minutes else f"{whole}s"


def _words(line: Line) -> str:
    words = [_printable(str(line["event"]))]
    if "text" in line:
        words[0] += f": {_printable(str(line['text']))}"
    words += [
        f"{_printable(name)}={_quoted(value)}"
        for name, value in line.items()
        if name not in _SELF_EVIDENT
    ]
    trace = str(line.get("exception", "")).splitlines()
    return "\n".join([" ".join(words), *(f"  {_printable(one)}" for one in trace)])


def _quoted(value: Plain) -> str:
    if isinstance(value, list) and not any(isinstance(one, list | dict) for one in value):
        value = ",".join(map(str, value))
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = _printable(text)
    return json.dumps(text, ensure_ascii=False) if re.search(r'[\s"=]', text) or not text else text


def _printable(text: str) -> str:
    """Return `text` on one line, with node ids as short as status has them."""
    text = _NODE_ID.sub(lambda found: f"…{found[0][-8:]}", text)
    return "".join(letter if letter.isprintable() else " " for letter in text)
