"""What a run's weights start as: random numbers, or another network's weights."""

from typing import Dict, Optional

import numpy as np

from alexnet_estimator import checkpoints, warm_start
from alexnet_estimator.config import Config
from alexnet_estimator.jobs.run import Run, fitting_record
from alexnet_estimator.model import weight_shapes
from alexnet_estimator.warm_start import WarmStart


def check_source(config: Config, model_dir: str) -> None:
    """Refuse a wrong --warm_start_from before pictures are converted for it.

    Raises:
        UserError: see ``warm_start.locate``.
    """
    if checkpoints.latest(model_dir) is None:
        warm_start.locate(config.warm_start.path)


def plan_first_weights(run: Run) -> Optional[WarmStart]:
    """Return what the run takes or took over from another network; None: nothing.

    A run that has a checkpoint does not need the source any more.

    Raises:
        UserError: the source cannot be used, or the run there is another one.
    """
    if not run.config.warm_start.path:
        return None
    fitting_record(run, is_training=True)
    if checkpoints.latest(run.model_dir) is not None:
        return warm_start.read_record(run.model_dir)
    data = run.config.data
    return warm_start.plan_warm_start(
        warm_start.open_source(run.config.warm_start.path),
        weight_shapes(run.dataset.num_classes, data.image_size, run.config.model),
        run.dataset.class_names,
        run.config,
    )


def read_first_weights(run: Run, plan: WarmStart) -> Dict[str, np.ndarray]:
    """Return the weights that a plan takes over, by the names of their variables.

    Raises:
        DataError: the source has changed or gone meanwhile.
    """
    source = warm_start.open_source(plan.source)
    return warm_start.weights_to_assign(source, plan, run.config.data)
