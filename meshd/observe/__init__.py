"""Logs: one line per thing that happened, on stderr, for a person, for journald or for a collector.

No secret that was named to it, and nothing that looks like one, is ever in a line.
"""

from meshd.observe._log import DaemonLog, open_log, shown_at_the_end
from meshd.observe._render import span

__all__ = ["DaemonLog", "open_log", "shown_at_the_end", "span"]
