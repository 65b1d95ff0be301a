"""The initial weights of a run: random numbers, or weights of another network."""

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
    """Check --warm_start_from before pictures are converted.

    Raises:
        UserError: The source cannot be used, see ``warm_start.locate``.
    """
    if checkpoints.latest(model_dir) is None:
        warm_start.locate(config.warm_start.path)


def choose_first_weights(run: Run, is_needed: bool = True) -> Optional[WarmStart]:
    """Return the warm start of a run, or None if it starts with random weights.

    For a run with a checkpoint, the recorded warm start is returned; its source may
    have been deleted.

    Args:
        run: Opened run.
        is_needed: Whether the source must be on this machine.  If it need not, the
            result is None for a source that is missing here.

    Raises:
        UserError: The source cannot be used, or it belongs to another network.
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
    """Return the restored weights by the names of their variables.

    Raises:
        DataError: The source is missing, or it has changed since the layers were
            chosen.
    """
    try:
        is_same = warm_start.digest_of(chosen.source) == chosen.sha256
    except OSError as error:
        raise DataError(f"{error.strerror}: restore it", chosen.source) from error
    if not is_same:
        raise DataError(
            "has changed since the run was started: restore it, or run the same "
            "command again to start from the changed weights",
            chosen.source,
        )
    # The source was valid when the layers were chosen, and it has not changed.
    source = warm_start.read_source(
        chosen.source, find_network(run.config.model.network)
    )
    return warm_start.weights_to_assign(source, chosen, run.config)
