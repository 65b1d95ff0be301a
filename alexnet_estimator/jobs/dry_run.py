"""What a training job would do, without touching a device."""

from typing import Optional

from alexnet_estimator import checkpoints, rank_table
from alexnet_estimator.config import Config
from alexnet_estimator.jobs import cards
from alexnet_estimator.jobs.first_weights import choose_first_weights
from alexnet_estimator.jobs.session import check_fit, open_run
from alexnet_estimator.rank_table import Topology, is_own_address
from alexnet_estimator.runtime import find_accelerator, settle_device
from alexnet_estimator.runtime.local import LocalRuntime


class _PlannedRank(LocalRuntime):
    """Rank 0 of a group that is not started."""

    def __init__(self, config: Config, device: str, num_ranks: int):
        super().__init__(device)
        self.num_ranks = num_ranks
        if device != "auto":
            self.steps_per_call = find_accelerator(device).steps_per_call(config)


def dry_run(config: Config, model_dir: str, topology: Optional[Topology]) -> str:
    """Check configuration, table and data; return a description of the job.

    Raw pictures are converted, as training would do first.  The job may be meant for
    another machine: a device that is named need not be here, and if none of several
    servers is this machine, ``auto`` stays what it is.

    Args:
        config: validated.
        model_dir: of the run.
        topology: of the rank table; None: one rank.

    Raises:
        UserError: what training would stop at.
    """
    servers = topology.servers if topology else ()
    has_one_server = len(servers) < 2
    device = config.runtime.device
    if device == "auto" and (has_one_server or any(map(is_own_address, servers))):
        device = settle_device(device)
    num_ranks = topology.num_ranks if topology else 1
    run = open_run(config, model_dir, _PlannedRank(config, device, num_ranks))
    check_fit(run, is_training=True)
    warm = choose_first_weights(run, is_needed=has_one_server)
    newest = checkpoints.latest(run.model_dir)
    step = checkpoints.step_of(newest) if newest else None
    card = cards.start_card(run, step, warm=warm)
    parts = [rank_table.describe(topology)] if topology else []
    source = config.warm_start.path if warm is None else ""
    parts += [f"{source} is not here: the first server needs it"] if source else []
    return "\n".join([*parts, card, "dry run: nothing was trained"])
