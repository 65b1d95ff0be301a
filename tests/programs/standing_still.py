"""A training job of one rank whose third step never ends."""

import sys
import time
from typing import Any
from unittest import mock

from alexnet_estimator import __main__ as cli
from alexnet_estimator.hooks.stopping import AgreedStop

num_steps = 0


def stand_still(self: AgreedStop, run_context: Any, run_values: Any) -> None:
    global num_steps
    num_steps += 1
    if num_steps == 3:
        time.sleep(600)


with mock.patch.object(AgreedStop, "after_run", stand_still):
    sys.exit(cli.main(sys.argv[1:]))
