"""Several processes on CPUs or GPUs through Horovod (Gloo or NCCL).

The only importer of horovod.  Rank 0 alone reads and writes ``model_dir``; the others
work in a temporary folder and receive every variable from rank 0: weights, slots,
averages, loss scale and global step.
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
    """One rank of a Horovod group."""

    def __init__(self, device: str):
        """Join the group; every rank must.

        Args:
            device: ``cpu`` or ``gpu``.
        """
        hvd.init()
        self.device = device
        self.trace_level = trace_level_of(device)
        self.rank = hvd.rank()
        self.num_ranks = hvd.size()
        self._scratch = tempfile.TemporaryDirectory(prefix="alexnet-rank-")
        # Called after every step, so that graph and session are kept.
        with tf.Graph().as_default() as graph:
            self._own = tf.placeholder(tf.float64, [1, None])
            self._all = hvd.allgather(self._own, name="host_gather")
        self._session = tf.Session(graph=graph, config=session_config(1))

    def make_estimator(
        self, model_fn: ModelFn, model_dir: str, config: Config
    ) -> tf.estimator.Estimator:
        """Return a stock Estimator on this rank's own GPU or share of the CPU."""
        session = session_config(config.runtime.num_threads, self.device)
        if self.device == "gpu":
            gpu = read_gpu(os.environ, hvd.local_rank())
            num_gpus = len(tf.config.experimental.list_physical_devices("GPU"))
            if gpu >= num_gpus:
                raise ConfigError(
                    f"rank {self.rank} is to use GPU {gpu}, but TensorFlow sees "
                    f"{num_gpus} on this server: correct device_id in the rank table"
                )
            session.gpu_options.visible_device_list = str(gpu)
        own_dir = model_dir if self.is_chief else self._scratch.name
        return host_estimator(model_fn, own_dir, config.train.seed, session)

    def wrap_optimizer(
        self, optimizer: tf.train.Optimizer, precision: Config
    ) -> ScaledOptimizer:
        """Average gradients, then scale the loss around that."""
        return scale_loss(hvd.DistributedOptimizer(optimizer), precision)

    def all_reduce_sum(self, tensor: tf.Tensor) -> tf.Tensor:
        """Return the sum of a float32 or int32 tensor over all ranks, in the graph."""
        return hvd.allreduce(tensor, op=hvd.Sum)

    def gather(self, values: Sequence[float]) -> np.ndarray:
        """Return the values of all ranks, float64 [num_ranks, len(values)]."""
        with self.noticing_lost_ranks():
            return self._session.run(self._all, {self._own: [values]})

    @contextlib.contextmanager
    def noticing_lost_ranks(self) -> Iterator[None]:
        """Raise RankError where an error only means that another rank has ended."""
        try:
            yield
        except tf.errors.UnknownError as error:
            if "Horovod" not in str(error):
                raise
            raise RankError("another rank has ended: see its log") from error

    def start_hooks(self) -> List[tf.train.SessionRunHook]:
        """Return the hook that sends all variables of rank 0 to the others."""
        return [hvd.BroadcastGlobalVariablesHook(0)]
