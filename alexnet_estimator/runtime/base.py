"""What every runtime offers: who am I, how do ranks talk, which Estimator.

A runtime is the only place that knows how training is distributed.  The rest of the
package receives plain numbers (``rank``, ``num_ranks``), tensors and optimizers.
"""

import abc
import contextlib
import os
from typing import Callable, ContextManager, Iterator, List, Optional, Sequence

import numpy as np

from alexnet_estimator.config import Config
from alexnet_estimator.engine.graph_mode import tf
from alexnet_estimator.errors import RankError
from alexnet_estimator.optim.loss_scale import ScaledOptimizer
from alexnet_estimator.rank_environment import read_num_threads

ModelFn = Callable[..., tf.estimator.EstimatorSpec]


class Runtime(abc.ABC):
    """One rank's view of the group it trains in.

    Attributes:
        device: Name of the accelerator, for people and for the run record.
        rank: Number of this process, from 0.
        num_ranks: Number of processes that train together.
        heartbeat: Descriptor into which this rank beats; None: nobody listens.
        can_loop: Whether one ``session.run`` can make several training steps, the last
            of which hooks see.
        trace_level: Level of ``tf.RunOptions`` that shows all of a step's operators;
            NO_TRACE where there is none.
        can_decay_slots: Whether the weight decay may be added to slots in place.
    """

    device: str = "cpu"
    rank: int = 0
    num_ranks: int = 1
    heartbeat: Optional[int] = None
    can_loop: bool = False
    trace_level: int = tf.RunOptions.SOFTWARE_TRACE
    can_decay_slots: bool = True

    @property
    def is_chief(self) -> bool:
        """Whether this rank writes checkpoints, events and reports."""
        return self.rank == 0

    @abc.abstractmethod
    def make_estimator(
        self, model_fn: ModelFn, model_dir: str, config: Config
    ) -> tf.estimator.Estimator:
        """Return a new Estimator that leaves saving and logging to our hooks."""

    @abc.abstractmethod
    def wrap_optimizer(
        self, optimizer: tf.train.Optimizer, precision: Config
    ) -> ScaledOptimizer:
        """Return ``optimizer`` with gradients averaged over the ranks, loss scaled."""

    @abc.abstractmethod
    def all_reduce_sum(self, tensor: tf.Tensor) -> tf.Tensor:
        """Return the sum of a float32 or int32 tensor over all ranks, in the graph."""

    @abc.abstractmethod
    def gather(self, values: Sequence[float]) -> np.ndarray:
        """Return the values of all ranks, float64 [num_ranks, len(values)].

        It works outside of any graph.  Every rank must call it the same number of
        times with as many values: it is a barrier as well.
        """

    def of_chief(self, value: float) -> float:
        """Return the value that rank 0 has given, on all ranks; see ``gather``."""
        return float(self.gather([value])[0, 0])

    def compute_dtype(self, precision: Config) -> tf.DType:
        """Return the dtype of products in the graph that we build.

        Args:
            precision: Section ``precision`` of the configuration.
        """
        is_mixed = precision.mode == "allow_mix_precision"
        return tf.float16 if is_mixed else tf.float32

    def float32_scope(self) -> ContextManager[None]:
        """Keep the float32 operators that are made within it in float32.

        Nothing else happens where the graph is computed as it was built.
        """
        return contextlib.nullcontext()

    def dropout(self, x: tf.Tensor, keep_prob: float, seed: tf.Tensor) -> tf.Tensor:
        """Keep each element with ``keep_prob`` and divide it by that.

        Args:
            x: float tensor of any shape.
            keep_prob: from above 0 to 1.
            seed: int32 [2]; equal seeds give equal masks, so that a resumed step is
                the same as an uninterrupted one.
        """
        noise = tf.random.stateless_uniform(tf.shape(x), seed, dtype=tf.float32)
        kept = tf.cast(noise < keep_prob, x.dtype)
        return x * kept / tf.cast(keep_prob, x.dtype)

    def start_hooks(self) -> List[tf.train.SessionRunHook]:
        """Return the hooks that give every rank the weights of rank 0."""
        return []

    @contextlib.contextmanager
    def noticing_lost_ranks(self) -> Iterator[None]:
        """Raise RankError where an error only means that another rank has ended."""
        yield

    def agree_on(self, values: Sequence[float], what: str) -> None:
        """Check that all ranks hold the same numbers.

        Args:
            values: Numbers of this rank; whole ones are exact up to 2 ** 53.
            what: Name for people of what the numbers stand for.

        Raises:
            RankError: They do not.
        """
        rows = self.gather(values)
        if (rows != rows[0]).any():
            raise RankError(
                f"ranks disagree on {what}: give all of them the same files and flags"
            )


def session_config(num_threads: int, device: str = "cpu") -> tf.ConfigProto:
    """Return a session configuration.

    Args:
        num_threads: CPU threads; 0: as the launcher says, or all.
        device: Name of the accelerator; only ``gpu`` shows GPUs to the session.
    """
    # Not a part of the configuration: shares of the cores may differ between ranks.
    num_threads = num_threads or read_num_threads(os.environ)
    session = tf.ConfigProto(
        intra_op_parallelism_threads=num_threads,
        # An operator keeps all cores busy: two at a time would push each other out.
        inter_op_parallelism_threads=1 if device == "cpu" else min(num_threads, 2),
        allow_soft_placement=True,
        device_count={} if device == "gpu" else {"GPU": 0},
    )
    if device == "gpu":
        # TensorFlow would take all memory of the GPU at once, also from other jobs.
        session.gpu_options.allow_growth = True
    if device == "cpu":
        # Grappler would make constants of the zeros that large slots start from, and
        # keep them with the session: nearly as much memory as all weights.
        rewrite = session.graph_options.rewrite_options
        rewrite.constant_folding = rewrite.OFF
    return session


def trace_level_of(device: str) -> int:
    """Return the level of ``tf.RunOptions`` that shows a device's kernels."""
    is_gpu = device == "gpu"
    return tf.RunOptions.FULL_TRACE if is_gpu else tf.RunOptions.SOFTWARE_TRACE
