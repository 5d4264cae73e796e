"""What holds k3s on a machine without a service manager: a supervisor, and the fuse beside k3s.

Programs of their own, which outlive the daemon, run as `python -I -S meshd/holder`. They import the
standard library and one another only, so they stay small and start whatever became of the rest.
"""

from pathlib import Path

PROGRAM = Path(__file__).absolute().parent
"""What `python -I -S` is to run."""
