"""What every runtime offers: who am I, how do ranks talk, which Estimator.

A runtime is the only place that knows how training is distributed.  The rest of the
package receives plain numbers (``rank``, ``num_ranks``), tensors and optimizers.
"""

import abc
import contextlib
import os
from typing import Callable, Iterator, List, Optional, Sequence

from alexnet_estimator.config import Config
from alexnet_estimator.engine.graph_mode import tf
from alexnet_estimator.errors import RankError
from alexnet_estimator.optim.loss_scale import ScaledOptimizer
from alexnet_estimator.rank_environment import read_num_threads

ModelFn = Callable[..., tf.estimator.EstimatorSpec]


class Runtime(abc.ABC):
    """One rank's view of the group it trains in.

    Attributes:
        device: ``cpu``, ``gpu`` or ``npu``.
        rank: this process, from 0.
        num_ranks: processes that train together.
        heartbeat: Descriptor into which this rank beats; None: nobody listens.
        steps_per_call: training steps in one ``session.run``; hooks see the last only.
    """

    device: str = "cpu"
    rank: int = 0
    num_ranks: int = 1
    heartbeat: Optional[int] = None
    steps_per_call: int = 1

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
        """Return the sum of a float32 tensor over all ranks, in the graph."""

    @abc.abstractmethod
    def sum_over_ranks(self, values: Sequence[float]) -> List[float]:
        """Return element-wise sums over all ranks, outside of any graph.

        Every rank must call it the same number of times: it is a barrier as well.
        """

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

    def agree_on(self, value: int, what: str) -> None:
        """Check that all ranks hold the same number, from 0 to 2 ** 20.

        Raises:
            RankError: they do not.
        """
        # Of equal values the sum of squares is the square of the mean; whole numbers
        # below 2 ** 20 keep that exact for 64 ranks.
        total, squares = self.sum_over_ranks([value, value * value])
        if squares * self.num_ranks != total * total:
            raise RankError(
                f"ranks disagree on {what}: give all of them the same files and flags"
            )


def session_config(num_threads: int, device: str = "cpu") -> tf.ConfigProto:
    """Return a session configuration.

    Args:
        num_threads: CPU threads; 0: as the launcher says, or all.
        device: ``cpu``, ``gpu`` or ``npu``; only ``gpu`` shows GPUs to the session.
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
    if device == "cpu":
        # Grappler would make constants of the zeros that large slots start from, and
        # keep them with the session: nearly as much memory as all weights.
        rewrite = session.graph_options.rewrite_options
        rewrite.constant_folding = rewrite.OFF
    return session
