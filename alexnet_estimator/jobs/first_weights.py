"""What a run's weights start as: random numbers, or another network's weights."""

from typing import Dict, Optional

import numpy as np

from alexnet_estimator import checkpoints, warm_start
from alexnet_estimator.config import Config
from alexnet_estimator.errors import DataError
from alexnet_estimator.jobs.session import Run
from alexnet_estimator.networks import find_network
from alexnet_estimator.networks.graphs import variable_shapes
from alexnet_estimator.warm_start import WarmStart


def check_source(config: Config, model_dir: str) -> None:
    """Refuse a wrong --warm_start_from before pictures are converted for it.

    Raises:
        UserError: see ``warm_start.locate``.
    """
    if checkpoints.latest(model_dir) is None:
        warm_start.locate(config.warm_start.path)


def choose_first_weights(run: Run, is_needed: bool = True) -> Optional[WarmStart]:
    """Return what the run takes or took over from another network; None: nothing.

    A run that has a checkpoint does not need the source any more.

    Args:
        run: an opened run.
        is_needed: False: None as well where the source is on another server.

    Raises:
        UserError: the source cannot be used, or the run there is another one.
    """
    path = run.config.warm_start.path
    if not path:
        return None
    network = find_network(run.config.model.network)
    if checkpoints.latest(run.model_dir) is not None:
        return warm_start.read_record(run.model_dir, network)
    if not is_needed and not warm_start.is_there(path):
        return None
    weights, others = variable_shapes(
        run.dataset.num_classes, run.config.data.image_size, run.config.model
    )
    return warm_start.choose_layers(
        warm_start.read_source(warm_start.locate(path), network),
        {**weights, **others},
        run.dataset.class_names,
        run.config,
    )


def read_first_weights(run: Run, chosen: WarmStart) -> Dict[str, np.ndarray]:
    """Return the weights that are taken over, by the names of their variables.

    Raises:
        DataError: the source has changed or gone meanwhile.
    """
    try:
        is_same = warm_start.digest_of(chosen.source) == chosen.sha256
    except OSError as error:
        raise DataError(f"{error.strerror}: restore it", chosen.source) from error
    if not is_same:
        raise DataError(
            "changed or gone since the run began: restore it, or run the same command "
            "again to start from what is there",
            chosen.source,
        )
    # Found valid when the layers were chosen, and the same since then.
    source = warm_start.read_source(
        chosen.source, find_network(run.config.model.network)
    )
    return warm_start.weights_to_assign(source, chosen, run.config)
