"""The interface of runtimes: rank, Estimator, optimizer and collectives.

Only a runtime knows how training is distributed.  The rest of the package gets plain
numbers (``rank``, ``num_ranks``), tensors and optimizers from it.
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
    """A rank and its connection to the other ranks.

    Attributes:
        device: Name of the accelerator in ``schema.ACCELERATORS``; a subclass sets it.
        rank: Number of this rank, from 0.
        num_ranks: Number of ranks that train together.
        heartbeat: Descriptor to which this rank writes heartbeats; None for no
            heartbeats.
        can_loop: Whether one ``session.run`` can take several training steps, of which
            hooks only see the last one.
        trace_level: Level of ``tf.RunOptions`` that traces all operators of a step;
            NO_TRACE if they cannot be traced.
        can_decay_slots: Whether the weight decay can be added to slots in place.
    """

    # A default would choose the precision modes of another accelerator.
    device: str
    rank: int = 0
    num_ranks: int = 1
    heartbeat: Optional[int] = None
    can_loop: bool = False
    trace_level: int = tf.RunOptions.SOFTWARE_TRACE
    can_decay_slots: bool = True

    @property
    def is_chief(self) -> bool:
        """Return whether this rank writes checkpoints, events and reports."""
        return self.rank == 0

    @abc.abstractmethod
    def make_estimator(
        self, model_fn: ModelFn, model_dir: str, config: Config
    ) -> tf.estimator.Estimator:
        """Return an Estimator that does not save or log; the job's hooks do both."""

    @abc.abstractmethod
    def wrap_optimizer(
        self, optimizer: tf.train.Optimizer, precision: Config
    ) -> ScaledOptimizer:
        """Wrap an optimizer to average gradients over the ranks and scale the loss."""

    @abc.abstractmethod
    def all_reduce_sum(self, tensor: tf.Tensor) -> tf.Tensor:
        """Return the sum of a float32 or int32 tensor over all ranks, in the graph."""

    @abc.abstractmethod
    def gather(self, values: Sequence[float]) -> np.ndarray:
        """Return the values of all ranks, float64 [num_ranks, len(values)].

        This runs outside of the training graph.  It is a barrier: every rank must call
        it equally often and with the same number of values.
        """

    def of_chief(self, value: float) -> float:
        """Return the value of rank 0 on all ranks; see ``gather``."""
        return float(self.gather([value])[0, 0])

    def compute_dtype(self, precision: Config) -> tf.DType:
        """Return the dtype of convolutions and matrix products in the graph.

        Args:
            precision: Section ``precision`` of the configuration.
        """
        is_mixed = precision.mode == "allow_mix_precision"
        return tf.float16 if is_mixed else tf.float32

    def float32_scope(self) -> ContextManager[None]:
        """Return a scope whose float32 operators the device computes in float32.

        A runtime that never changes the dtypes of a graph needs no such scope.
        """
        return contextlib.nullcontext()

    def dropout(self, x: tf.Tensor, keep_prob: float, seed: tf.Tensor) -> tf.Tensor:
        """Apply dropout: keep an element with ``keep_prob``, and divide it by that.

        Args:
            x: float tensor of any shape.
            keep_prob: Probability above 0, at most 1.
            seed: int32 [2].  Equal seeds give equal masks, so that a resumed run takes
                the same steps as a run without interruption.
        """
        noise = tf.random.stateless_uniform(tf.shape(x), seed, dtype=tf.float32)
        kept = tf.cast(noise < keep_prob, x.dtype)
        return x * kept / tf.cast(keep_prob, x.dtype)

    def start_hooks(self) -> List[tf.train.SessionRunHook]:
        """Return the hooks that send the variables of rank 0 to the other ranks."""
        return []

    @contextlib.contextmanager
    def noticing_lost_ranks(self) -> Iterator[None]:
        """Replace errors that mean that another rank has ended by a RankError."""
        yield

    def agree_on(self, values: Sequence[float], what: str) -> None:
        """Check that all ranks have the same numbers.

        Args:
            values: Numbers of this rank; integers are exact up to 2 ** 53.
            what: Meaning of the numbers for the error message.

        Raises:
            RankError: The numbers differ.
        """
        rows = self.gather(values)
        if (rows != rows[0]).any():
            raise RankError(
                f"ranks disagree on {what}: give all of them the same files and flags"
            )


def session_config(num_threads: int, device: str = "cpu") -> tf.ConfigProto:
    """Return a session configuration.

    Args:
        num_threads: Number of CPU threads; 0 for the share that the launcher has set,
            or all cores without a launcher.
        device: Name of the accelerator; the session sees GPUs only for ``gpu``.
    """
    # The launcher's share is not written to the configuration, because it may differ
    # between ranks, which must agree on the configuration.
    num_threads = num_threads or read_num_threads(os.environ)
    session = tf.ConfigProto(
        intra_op_parallelism_threads=num_threads,
        # One operator uses all cores.  Two at a time would compete for them.
        inter_op_parallelism_threads=1 if device == "cpu" else min(num_threads, 2),
        allow_soft_placement=True,
        device_count={} if device == "gpu" else {"GPU": 0},
    )
    if device == "gpu":
        # By default, TensorFlow allocates all memory of the GPU, even if other jobs
        # use it.
        session.gpu_options.allow_growth = True
    if device == "cpu":
        # Constant folding would turn the initial zeros of the slots into constants,
        # which the session keeps.  They need nearly as much memory as all weights.
        rewrite = session.graph_options.rewrite_options
        rewrite.constant_folding = rewrite.OFF
    return session


def trace_level_of(device: str) -> int:
    """Return the level of ``tf.RunOptions`` that traces the kernels of a device."""
    is_gpu = device == "gpu"
    return tf.RunOptions.FULL_TRACE if is_gpu else tf.RunOptions.SOFTWARE_TRACE
