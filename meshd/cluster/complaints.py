"""What k3s complains about, in words an operator understands.

k3s says why it cannot go on only in its log, at any level, and sometimes ends with code 0 (seen
with v1.34.1). Each entry quotes a piece of k3s' own text; the first that fits a line names the
cause.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Complaint:
    """A cause, as a sentence.

    Args:
        hopeless: it does not pass by itself.
    """

    sentence: str
    hopeless: bool


STALE_MEMBER = "etcd still lists a member of this node's name or address: it must be removed first"
"""Node names are made of keys, so such a member is this server's own, of before."""

# (text of k3s as a regular expression, sentence with its groups, hopeless). More specific first:
# a line about the wrong authority also says "failed to get CA certs".
_KNOWN = tuple(
    (re.compile(pattern), sentence, hopeless)
    for pattern, sentence, hopeless in (
        (
            r"token CA hash does not match",
            "the server that answered belongs to another cluster: its CA is not the planned one",
            True,
        ),
        (
            r"failed to (?:bootstrap cluster data|retrieve configuration from server): not auth",
            "the server refused this node's token",
            True,
        ),
        (
            r"duplicate node name found",
            STALE_MEMBER,
            True,
        ),
        (
            r"Node password rejected",
            "the cluster knows another machine by this node's name: its Node must be removed first",
            True,
        ),
        (
            r"critical configuration mismatched: ([\w.\[\]]+)",
            "this server's k3s settings differ from the cluster's in {0}",
            True,
        ),
        (
            r"listen (?:tcp|udp) (\S+): bind: address already in use",
            "{0} is in use by another program on this machine",
            True,
        ),
        (
            r"member has been permanently removed from the cluster",
            "this server was removed from etcd: its database must be moved away before it can join",
            True,
        ),
        (
            r"this server is (?:a )?not a member of the etcd cluster",
            "etcd knows this server by another address than it has now",
            True,
        ),
        (r"no space left on device", "the disk is full", True),
        (r"meshd: cannot run (.+)", "k3s cannot be run: {0}", True),
        (
            r"x509: certificate has expired or is not yet valid",
            "a certificate is not valid at this machine's time: its clock is wrong",
            True,
        ),
        (
            r"too many learner members in cluster",
            "another server is joining etcd, they join one at a time",
            False,
        ),
        (
            r"etcdserver: unhealthy cluster",
            "etcd admits a new member only once its others are healthy",
            False,
        ),
        (
            (
                r"[Gg]et \\?\"(https://[^/\"\\]+)"
                r".*(connection refused|no route to host|timeout|deadline exceeded|EOF)"
            ),
            "{0} does not answer: {1}",
            False,
        ),
        (r"failed to get CA certs: starting", "the server to join is still starting", False),
        (r"leaderelection lost", "it lost the connection to the majority of etcd", False),
    )
)
_LOGRUS_MESSAGE = re.compile(r'\bmsg=(?:"((?:[^"\\]|\\.)*)"|(\S+))')  # One word has no quotes.
_LOGRUS_FATAL = re.compile(r"\blevel=(?:fatal|error)\b")
_SHOWN_MAX = 200
_SECRETS = (
    (re.compile(r"K10[0-9a-f]+::[^\s\"']+"), "K10…"),
    (re.compile(r"\b[0-9a-fA-F]{32,}\b"), "…"),  # meshd's own tokens are 64 of them.
    (re.compile(r"\b[a-z0-9]{6}\.[a-z0-9]{16}\b"), "…"),  # Bootstrap tokens (k3s token create).
    (re.compile(r"(://[^\s:/@]+:)[^\s@]+@"), r"\1…@"),
    (re.compile(r"(?i)\b((?:agent-)?token|password|passwd)([=:]\s*)[^\s,;\"']+"), r"\1\2…"),
)


def complaint_in(lines: Iterable[str]) -> Complaint | None:
    """Return what the last line that complains about something known means."""
    found = None
    for line in lines:
        found = _meaning(line) or found
    return found


def exit_complaint(code: int | None, signal: int | None, lines: tuple[str, ...]) -> Complaint:
    """Return why k3s ended; its own last words if they are not known."""
    known = complaint_in(lines)
    if known is not None:
        return known
    if signal is not None:  # What it said before has nothing to do with it.
        return Complaint(sentence=f"k3s was ended by signal {signal}", hopeless=False)
    how = "unseen" if code is None else f"with code {code}"
    fatal = [line for line in lines if _LOGRUS_FATAL.search(line)]
    said = quoted((fatal or list(lines) or ["nothing"])[-1])
    return Complaint(sentence=f"k3s ended {how}, saying: {said}", hopeless=False)


def quoted(line: str) -> str:
    """Return what a log line says, fit to be shown to all nodes: short, and without secrets."""
    return redacted(message_of(line))[:_SHOWN_MAX]


def redacted(text: str) -> str:
    """Return text without what may be a secret: k3s' tokens, long hex digits, passwords."""
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return text


def message_of(line: str) -> str:
    """Return a log line without time and level (logrus text, zap JSON, or as it is)."""
    text = _LOGRUS_MESSAGE.search(line)
    if text is not None:
        return text[2] or text[1].replace('\\"', '"')
    if line.startswith("{"):
        try:
            record = json.loads(line)
        except ValueError:
            return line
        return " ".join(str(record[key]) for key in ("msg", "error") if key in record) or line
    return line


def _meaning(line: str) -> Complaint | None:
    for pattern, sentence, hopeless in _KNOWN:
        match = pattern.search(line)
        if match is not None:
            words = (redacted(group) for group in match.groups())
            return Complaint(sentence=sentence.format(*words), hopeless=hopeless)
    return None
