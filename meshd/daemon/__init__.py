"""The daemon: opens what the node needs, drives the node, lets its users look."""

from meshd.daemon._start import run_daemon

__all__ = ["run_daemon"]
