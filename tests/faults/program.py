"""``python -m alexnet_estimator`` with the faults that the environment describes."""

import os
import sys
from typing import Any, List, Sequence

from alexnet_estimator import __main__ as alexnet
from alexnet_estimator import rank_environment
from alexnet_estimator.launch import job
from tests.faults import fault

COMMAND = (sys.executable, "-m", "tests.faults.program")


def main() -> int:
    """Run the command line as a launcher or as a rank; return its exit code."""
    job.COMMAND = COMMAND
    if rank_environment.is_rank(os.environ):
        faults = fault.read(os.environ)
        for each in faults:
            each.strike("load", 0)
        _inject(faults)
        from tests.training import without_report

        with without_report():
            return alexnet.main()
    return alexnet.main()


def _inject(faults: Sequence[fault.Fault]) -> None:
    """Insert the hook with the faults before the hooks that synchronize the ranks."""
    from alexnet_estimator.jobs import train
    from tests.faults.hook import FaultHook

    make_hooks = train._Trainer._group_hooks

    def make_hooks_with_faults(trainer: Any, phase: str) -> List[Any]:
        return [FaultHook(faults, phase), *make_hooks(trainer, phase)]

    setattr(train._Trainer, "_group_hooks", make_hooks_with_faults)


if __name__ == "__main__":
    sys.exit(main())
