"""The dry run, which uses no device and converts no pictures."""

import os
import shutil
from typing import List, Optional, Tuple

from alexnet_estimator import checkpoints, launch, rank_table
from alexnet_estimator.config import Config
from alexnet_estimator.console import count
from alexnet_estimator.errors import ConfigError
from alexnet_estimator.jobs import cards
from alexnet_estimator.jobs.data import preview_data
from alexnet_estimator.jobs.first_weights import choose_first_weights
from alexnet_estimator.jobs.session import Run, check_fit, open_run
from alexnet_estimator.networks.graphs import count_parameters
from alexnet_estimator.rank_table import Topology, is_own_address
from alexnet_estimator.runtime import find_accelerator, settle_device
from alexnet_estimator.runtime.local import LocalRuntime
from alexnet_estimator.schema import ACCELERATORS, OPTIMIZERS
from alexnet_estimator.warm_start import WarmStart


class _PlannedRank(LocalRuntime):
    """A runtime of rank 0 of a group that is not started."""

    def __init__(self, device: str, num_ranks: int):
        super().__init__(device)
        self.num_ranks = num_ranks
        if device != "auto":
            self.can_loop = find_accelerator(device).can_loop


def dry_run(
    config: Config, model_dir: str, topology: Optional[Topology]
) -> Tuple[str, List[str]]:
    """Check the configuration, the rank table and the data, and describe the job.

    Pictures that have not been converted are only counted.  If the rank table has
    several servers and this machine is none of them, the checks of the device and of
    the disk are skipped, and a device of ``auto`` is not resolved.

    Args:
        config: Valid configuration.
        model_dir: Folder of the run.
        topology: Ranks of the rank table; None for one rank.

    Returns:
        The description of the job, and a list of problems of this machine for which
        training would fail.

    Raises:
        UserError: Training would fail on every machine.
    """
    servers = topology.servers if topology else ()
    has_one_server = len(servers) < 2
    is_here = has_one_server or any(map(is_own_address, servers))
    device, missing = config.runtime.device, []
    if is_here:
        try:
            device = settle_device(device)
            if not find_accelerator(device).is_present():
                missing.append(
                    f"runtime.device is {device}, but this machine has none, or its "
                    "software is missing: use another --device or another machine"
                )
        except ConfigError as error:
            missing += error.problems
    num_ranks = topology.num_ranks if topology else 1
    rank = _PlannedRank(device, num_ranks)
    run = open_run(config, model_dir, rank, preview_data(config, model_dir))
    check_fit(run, is_training=True)
    warm = choose_first_weights(run, is_needed=has_one_server)
    if is_here and topology and device in ACCELERATORS:
        missing += launch.BACKENDS[ACCELERATORS[device].launch_backend].find_missing()
    missing += _find_lack_of_space(run) if is_here else []
    parts = [rank_table.describe(topology)] if topology else []
    return "\n".join([*parts, _describe(run, warm)]), missing


def _describe(run: Run, warm: Optional[WarmStart]) -> str:
    """Return the start card, with notes on what training does before it."""
    config, newest = run.config, checkpoints.latest(run.model_dir)
    step = checkpoints.step_of(newest) if newest else None
    source = config.warm_start.path if warm is None else ""
    parts = [f"{source} is not on this machine: rank 0 needs it"] if source else []
    parts.append(cards.start_card(run, step, warm=warm))
    if not config.data.synthetic and not os.path.isdir(run.dataset.directory):
        total = sum(split.num_images for split in run.dataset.splits.values())
        parts.append(f"training will first convert {count(total, 'picture')}")
    return "\n".join([*parts, "dry run: nothing was trained"])


def _find_lack_of_space(run: Run) -> List[str]:
    """Return a problem if the checkpoints do not fit on the disk."""
    folder = run.model_dir
    while not os.path.exists(folder):
        folder = os.path.dirname(folder)
    if not os.path.isdir(folder) or not os.access(folder, os.W_OK):
        return [f"{folder} is not a writable folder: give another --model_dir"]
    data, model = run.config.data, run.config.model
    num_weights = count_parameters(run.dataset.num_classes, data.image_size, model)
    optim, num_kept = run.config.optim, run.config.train.keep_checkpoints
    copies = 1 + OPTIMIZERS[optim.optimizer] + (optim.ema_decay > 0)
    checkpoint_bytes = 4 * copies * num_weights
    # The disk must hold the newest checkpoints, the best one, and a new one, which is
    # written before an old one is deleted.
    need_mib = checkpoint_bytes * (num_kept + 2) >> 20
    free_mib = shutil.disk_usage(folder).free >> 20
    if free_mib >= need_mib:
        return []
    return [
        f"{folder} has {free_mib} MiB free, but the checkpoints need {need_mib} MiB"
    ]
