"""A rank that has a limit on the size of its files from a given step on.

``python -m tests.faults.limited STEP VERB FLAGS...``
"""

import resource
import sys
from typing import Any
from unittest import mock

from alexnet_estimator import __main__ as cli
from alexnet_estimator.checkpoints import store

MAX_BYTES = 100_000  # A checkpoint is larger than this, and a log is smaller.

save = store.save


def save_within_limit(*arguments: Any) -> str:
    """Save a checkpoint; from the given step on, limit the size of all files."""
    if arguments[3] >= int(sys.argv[1]):
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (MAX_BYTES, hard))
    return save(*arguments)


if __name__ == "__main__":
    patch = mock.patch.object
    with patch(store, "save", save_within_limit), patch(store, "RETRY_SECS", 0):
        sys.exit(cli.main(sys.argv[2:]))
