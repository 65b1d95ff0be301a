"""Training on several CPUs or GPUs with Horovod (Gloo or NCCL).

Only this module imports Horovod.  Only rank 0 reads and writes ``model_dir``.  The
other ranks use a temporary folder and receive all variables from rank 0: weights,
slots, averages, loss scale and global step.
"""

import contextlib
import os
import tempfile
from typing import Iterator, List, Sequence

import horovod.tensorflow as hvd
import numpy as np

from alexnet_estimator.config import Config
from alexnet_estimator.engine.graph_mode import tf
from alexnet_estimator.errors import ConfigError, RankError
from alexnet_estimator.optim.loss_scale import ScaledOptimizer, scale_loss
from alexnet_estimator.rank_environment import read_gpu
from alexnet_estimator.runtime.base import (
    ModelFn,
    Runtime,
    session_config,
    trace_level_of,
)
from alexnet_estimator.runtime.local import host_estimator


class HorovodRuntime(Runtime):
    """A rank of a Horovod group."""

    def __init__(self, device: str):
        """Join the group; this waits until all ranks have joined.

        Args:
            device: ``cpu`` or ``gpu``.
        """
        hvd.init()
        self.device = device
        self.trace_level = trace_level_of(device)
        self.rank = hvd.rank()
        self.num_ranks = hvd.size()
        self._scratch = tempfile.TemporaryDirectory(prefix="alexnet-rank-")
        # gather() runs after every step, so the graph and the session are kept.
        with tf.Graph().as_default() as graph:
            self._own = tf.placeholder(tf.float64, [1, None])
            self._all = hvd.allgather(self._own, name="host_gather")
        self._session = tf.Session(graph=graph, config=session_config(1))

    def make_estimator(
        self, model_fn: ModelFn, model_dir: str, config: Config
    ) -> tf.estimator.Estimator:
        """Return an Estimator on the GPU of this rank, or on its share of the CPU."""
        session = session_config(config.runtime.num_threads, self.device)
        if self.device == "gpu":
            gpu = read_gpu(os.environ, hvd.local_rank())
            num_gpus = len(tf.config.experimental.list_physical_devices("GPU"))
            if gpu >= num_gpus:
                raise ConfigError(
                    f"rank {self.rank} has GPU {gpu}, but TensorFlow sees only "
                    f"{num_gpus} on this server: correct device_id in the rank table"
                )
            session.gpu_options.visible_device_list = str(gpu)
        own_dir = model_dir if self.is_chief else self._scratch.name
        return host_estimator(model_fn, own_dir, config.train.seed, session)

    def wrap_optimizer(
        self, optimizer: tf.train.Optimizer, precision: Config
    ) -> ScaledOptimizer:
        """Wrap an optimizer to average gradients, and then to scale the loss."""
        compression = getattr(hvd.Compression, precision.gradient_compression)
        averaging = hvd.DistributedOptimizer(optimizer, compression=compression)
        return scale_loss(averaging, precision)

    def all_reduce_sum(self, tensor: tf.Tensor) -> tf.Tensor:
        """Return the sum of a float32 or int32 tensor over all ranks, in the graph."""
        return hvd.allreduce(tensor, op=hvd.Sum)

    def gather(self, values: Sequence[float]) -> np.ndarray:
        """Return the values of all ranks, float64 [num_ranks, len(values)]."""
        with self.noticing_lost_ranks():
            return self._session.run(self._all, {self._own: [values]})

    @contextlib.contextmanager
    def noticing_lost_ranks(self) -> Iterator[None]:
        """Replace errors that mean that another rank has ended by a RankError."""
        try:
            yield
        except tf.errors.UnknownError as error:
            if "Horovod" not in str(error):
                raise
            raise RankError("another rank has ended: see its log") from error

    def start_hooks(self) -> List[tf.train.SessionRunHook]:
        """Return the hook that sends all variables of rank 0 to the others."""
        return [hvd.BroadcastGlobalVariablesHook(0)]
