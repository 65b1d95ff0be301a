"""Training with a single rank on a CPU or GPU."""

from typing import Sequence

import numpy as np

from alexnet_estimator.config import Config
from alexnet_estimator.engine.graph_mode import tf
from alexnet_estimator.optim.loss_scale import ScaledOptimizer, scale_loss
from alexnet_estimator.runtime.base import (
    ModelFn,
    Runtime,
    session_config,
    trace_level_of,
)


class LocalRuntime(Runtime):
    """The only rank."""

    def __init__(self, device: str):
        """Create the runtime.

        Args:
            device: ``cpu`` or ``gpu``.
        """
        self.device = device
        self.trace_level = trace_level_of(device)

    def make_estimator(
        self, model_fn: ModelFn, model_dir: str, config: Config
    ) -> tf.estimator.Estimator:
        """Return an Estimator, see ``Runtime.make_estimator``."""
        session = session_config(config.runtime.num_threads, self.device)
        return host_estimator(model_fn, model_dir, config.train.seed, session)

    def wrap_optimizer(
        self, optimizer: tf.train.Optimizer, precision: Config
    ) -> ScaledOptimizer:
        """Wrap an optimizer to scale the loss; one rank has nothing to average."""
        return scale_loss(optimizer, precision)

    def all_reduce_sum(self, tensor: tf.Tensor) -> tf.Tensor:
        """Return the tensor, which is the sum over a single rank."""
        return tensor

    def gather(self, values: Sequence[float]) -> np.ndarray:
        """Return the values of the only rank, float64 [1, len(values)]."""
        return np.array([values], np.float64)


def host_estimator(
    model_fn: ModelFn, model_dir: str, seed: int, session: tf.ConfigProto
) -> tf.estimator.Estimator:
    """Return an Estimator that writes no checkpoints, logs and summaries itself."""
    return tf.estimator.Estimator(
        model_fn,
        config=tf.estimator.RunConfig(
            model_dir=model_dir,
            tf_random_seed=seed,
            session_config=session,
            save_summary_steps=0,
            save_checkpoints_steps=None,
            save_checkpoints_secs=None,
            log_step_count_steps=None,
        ),
    )
