"""What others than meshd say to k3s in its configuration files."""

from __future__ import annotations

from collections.abc import Iterator

import yaml

from meshd.cluster.paths import K3sPaths


def other_configuration(paths: K3sPaths) -> Iterator[tuple[str, list[str] | None]]:
    """Yield (path, keys) of k3s' configuration files that are not meshd's.

    The keys are those of all documents of the file; None: the file cannot be read as YAML here,
    which says nothing about what k3s reads in it.

    Raises:
        OSError: a file cannot be read at all.
    """
    drop_ins = sorted(paths.drop_in.parent.glob("*.y*ml"))
    for path in [paths.config, *drop_ins]:
        if path == paths.drop_in or not path.is_file():
            continue
        try:
            documents = list(yaml.safe_load_all(path.read_bytes()))
        except (yaml.YAMLError, ValueError):  # ValueError: such as a date that there is not.
            yield str(path), None
        else:
            mappings = [document for document in documents if isinstance(document, dict)]
            yield str(path), [str(key) for mapping in mappings for key in mapping]
