"""`python -I -S meshd/holder FOLDER`, or `… fuse FOLDER PID READY`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).absolute().parents[2]))

from meshd.holder import fuse, supervisor

if sys.argv[1] == "fuse":
    fuse.main(Path(sys.argv[2]), pid=int(sys.argv[3]), ready=int(sys.argv[4]))
else:
    supervisor.main(Path(sys.argv[1]).absolute())
