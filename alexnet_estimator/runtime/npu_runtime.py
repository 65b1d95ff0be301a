"""Training on Ascend NPUs with ``npu_bridge``.

One process drives one device.  Its rank comes from environment variables, which
``launch`` sets from the rank table, because the queries of HCCL fail until the group is
formed.

With ``npu.iterations_per_loop`` = N, the device takes N steps in each call of
``session.run``.  Hooks only see every Nth step, so that signals, the finite guard and
the log act up to N - 1 steps late.

``npu_bridge.npu_init`` must not be imported.  Releases since 2023 replace
``tf.Session.__init__`` in it, so that every session of the process would run on the
NPU.
"""

import atexit
import contextlib
import os
import tempfile
from typing import Any, ContextManager, MutableMapping, Optional, Sequence

import numpy as np

from alexnet_estimator import rank_environment as names
from alexnet_estimator.config import Config
from alexnet_estimator.engine.graph_mode import tf
from alexnet_estimator.errors import ConfigError
from alexnet_estimator.optim.loss_scale import ScaledOptimizer, resolve_loss_scale
from alexnet_estimator.runtime.base import ModelFn, Runtime, session_config
from alexnet_estimator.runtime.npu import import_npu_bridge
from alexnet_estimator.runtime.npu_environment import (
    find_folder_problems,
    leave_out_rivals,
    read_rank,
)
from alexnet_estimator.runtime.npu_loss_scale import make_manager
from alexnet_estimator.runtime.npu_options import (
    KEEP_FUNCTION,
    KEPT_TYPES,
    accepted_options,
    find_problems,
)

# Numbers of values in one call of HCCL, whose shapes must be static.  The smaller one
# is for flags and digests, the larger one for the answers to a whole validation split.
GATHER_SIZES = (64, 1 << 16)


class NpuRuntime(Runtime):
    """A rank on one NPU."""

    device = "npu"
    can_loop = True
    trace_level = tf.RunOptions.NO_TRACE
    # The vendor's models never use ApplyGradientDescent on a slot, so it is avoided.
    can_decay_slots = False

    def __init__(self, config: Config, environ: MutableMapping[str, str] = os.environ):
        """Read the rank of this process, without using the device or HCCL yet.

        Args:
            config: Validated configuration whose precision mode is resolved.
            environ: Environment variables, which tell rank, size, rank table and
                device.

        Raises:
            ConfigError: The package npu_bridge is missing, or environment variables or
                options are wrong; the message lists all problems.
        """
        problems = find_problems(config, import_npu_bridge())
        problems += find_folder_problems(os.getcwd())
        if problems:
            raise ConfigError(problems, "configuration")
        leave_out_rivals(environ)
        self.rank, self.num_ranks = read_rank(environ)
        self._config = config
        self._options = accepted_options(config.npu)
        self._group: Optional[_HcclGroup] = None
        # NPUEstimator requires both variables even of a single rank.  Any ID will do.
        os.environ.setdefault(names.JOB_ID, "alexnet_estimator")
        os.environ.setdefault(names.RANK_SIZE, "1")

    def make_estimator(
        self, model_fn: ModelFn, model_dir: str, config: Config
    ) -> tf.estimator.Estimator:
        """Return a new NPUEstimator, which passes keyword arguments to ``model_fn``.

        When training starts, it broadcasts the trainable variables of rank 0, but not
        the slots or the global step.  Every rank must restore the same checkpoint.
        """
        from npu_bridge.estimator.npu.npu_estimator import NPUEstimator

        if self.num_ranks > 1 and config.npu.gradient_split:
            self._open_group()

        def keeping_dtypes(features: Any, labels: Any, mode: str) -> Any:
            spec = model_fn(features=features, labels=labels, mode=mode)
            _keep_dtypes(tf.get_default_graph())
            return spec

        return NPUEstimator(
            model_fn=keeping_dtypes,
            config=self._run_config(
                config, model_dir, config.npu.iterations_per_loop or 1
            ),
        )

    def wrap_optimizer(
        self, optimizer: tf.train.Optimizer, precision: Config
    ) -> ScaledOptimizer:
        """Average gradients with HCCL, and scale the loss with the vendor's managers.

        An Ascend 910 saturates instead of returning Inf, so a flag of the device and
        not the gradients shows an overflow.  Only ``NPULossScaleOptimizer`` reads this
        flag.  With ``is_distributed``, all ranks skip the same steps.
        """
        from npu_bridge.estimator.npu.npu_loss_scale_optimizer import (
            NPULossScaleOptimizer,
        )
        from npu_bridge.estimator.npu.npu_optimizer import NPUDistributedOptimizer

        averaging = NPUDistributedOptimizer(optimizer)
        kind = resolve_loss_scale(precision)
        if kind == "none":
            return ScaledOptimizer(averaging, tf.constant(1.0), tf.zeros([], tf.int64))
        # The manager's variables must not be created under control dependencies.
        with tf.control_dependencies(None), tf.variable_scope("loss_scale"):
            manager = make_manager(kind, precision)
        scaling = NPULossScaleOptimizer(
            averaging, manager, is_distributed=self.num_ranks > 1
        )
        return ScaledOptimizer(
            scaling,
            tf.convert_to_tensor(manager.get_loss_scale()),
            tf.convert_to_tensor(manager.num_skipped),
        )

    def all_reduce_sum(self, tensor: tf.Tensor) -> tf.Tensor:
        """Return the sum over all ranks by HCCL."""
        if self.num_ranks == 1:
            return tensor
        from npu_bridge.hccl import hccl_ops

        # By default, HCCL would fuse this sum with the gradients.
        return hccl_ops.allreduce(tensor, "sum", fusion=0)

    def compute_dtype(self, precision: Config) -> tf.DType:
        """Return float32, because the compiler lowers the graph to float16 itself."""
        return tf.float32

    def float32_scope(self) -> ContextManager[None]:
        """Return a scope whose operators the compiler does not lower to float16.

        Releases before February 2021 have no such scope, so the compiler's own lists
        decide about each operator.
        """
        from npu_bridge.estimator.npu import npu_scope

        scope = getattr(npu_scope, "keep_dtype_scope", contextlib.nullcontext)
        return scope()

    def gather(self, values: Sequence[float]) -> np.ndarray:
        """Return the values of all ranks, float64 [num_ranks, len(values)]."""
        if self.num_ranks == 1:
            return np.array([values], np.float64)
        return self._open_group().gather(values)

    def dropout(self, x: tf.Tensor, keep_prob: float, seed: tf.Tensor) -> tf.Tensor:
        """Apply dropout with the random number generator of the device.

        The operator takes its seeds as attributes, and has no input for the step.  With
        fixed seeds, some releases may repeat the same mask in every step.  Without
        seeds, as in the vendor's own AlexNet, the masks differ.

        Args:
            x: float tensor of any shape.
            keep_prob: Probability above 0, at most 1.
            seed: int32 [2], which is used only with ``npu.seed_dropout``.  The first
                number must be a constant; it differs between layers and ranks.  The
                second one, the step, is not used, so the masks of a resumed run differ.
        """
        from npu_bridge.estimator import npu_ops

        if self._config.npu.seed_dropout:
            stream = tf.get_static_value(seed, partial=True)[0]
            return npu_ops.dropout(x, float(keep_prob), seed=int(stream))
        # Otherwise TensorFlow would derive a seed for the operator from the graph's.
        graph = tf.get_default_graph()
        graph_seed, graph.seed = graph.seed, None
        try:
            return npu_ops.dropout(x, float(keep_prob))
        finally:
            graph.seed = graph_seed

    def _open_group(self) -> "_HcclGroup":
        if self._group is None:
            self._group = _HcclGroup(
                self._session_config(), self.num_ranks, self._config.npu.gradient_split
            )
        return self._group

    def _run_config(
        self, config: Config, model_dir: str, iterations_per_loop: int
    ) -> Any:
        """Return a new NPURunConfig, because NPUEstimator changes the one that it gets.

        Saving is switched off, because ``SaveHook`` saves on rank 0.  The hook of the
        vendor also uses ``tf.train.Saver`` between two loops, but it does not check
        that values are finite, and may leave incomplete files.
        """
        from npu_bridge.estimator.npu.npu_config import NPURunConfig

        return NPURunConfig(
            model_dir=model_dir,
            iterations_per_loop=iterations_per_loop,
            tf_random_seed=config.train.seed,
            precision_mode=config.precision.mode,
            session_config=session_config(config.runtime.num_threads, self.device),
            save_summary_steps=0,
            # Without this argument, the vendor's hook would save every 100 steps.
            save_checkpoints_steps=0,
            log_step_count_steps=None,
            **self._options,
        )

    def _session_config(self) -> tf.ConfigProto:
        """Return the configuration that an Estimator's session would have."""
        from npu_bridge.estimator.npu.npu_estimator import NPUEstimator

        def no_model(features: Any) -> None:
            """Replace the model function, which is never called."""

        # Nothing is written there.  Without a folder, NPUEstimator would create one.
        run_config = self._run_config(self._config, tempfile.gettempdir(), 1)
        return NPUEstimator(model_fn=no_model, config=run_config).config.session_config


class _HcclGroup:
    """Communication over HCCL outside of Estimator's sessions.

    A separate session stays open until the process ends.  The adapter shuts down the
    device and HCCL together with the last session, so that otherwise all ranks would
    have to connect again between training and evaluation, without the gradient split.
    Its configuration is that of the Estimator, because the first session of a process
    fixes the options of all sessions, such as precision and profiling.
    """

    def __init__(
        self,
        config: tf.ConfigProto,
        num_ranks: int,
        gradient_split: Sequence[float],
    ):
        """Connect to the other ranks; all of them must do so."""
        from npu_bridge.estimator import npu_ops
        from npu_bridge.hccl import hccl_ops

        # HCCL does not support float64, and float32 cannot hold large counts exactly.
        # A float64 is therefore sent as two int32, which gathering copies unchanged.
        with tf.Graph().as_default() as graph:
            self._gathers = {}
            for size in GATHER_SIZES:
                own = tf.placeholder(tf.int32, [size, 2])
                self._gathers[size] = own, hccl_ops.allgather(own, num_ranks)
            initialize = npu_ops.initialize_system()
            self._shutdown = npu_ops.shutdown_system()
        self._session = tf.Session(graph=graph, config=config)
        self._session.run(initialize)
        # Runs before npu_bridge's own exit handler, which was registered earlier.
        atexit.register(self._close)
        if gradient_split:
            from hccl.split.api import set_split_strategy_by_size

            set_split_strategy_by_size(list(gradient_split))
        self.gather([])

    def gather(self, values: Sequence[float]) -> np.ndarray:
        """Return all ranks' values, float64 [num_ranks, len(values)]."""
        size = GATHER_SIZES[len(values) > GATHER_SIZES[0]]
        own, everyone = self._gathers[size]
        padded = np.zeros([max(1, -(-len(values) // size)), size], np.float64)
        padded.flat[: len(values)] = values
        parts = []
        for part in padded:
            # float64 [size] -> int32 [size, 2] -> float64 [num_ranks, size]
            feed = {own: part.view(np.int32).reshape(-1, 2)}
            words = np.ascontiguousarray(self._session.run(everyone, feed))
            parts.append(words.view(np.float64).reshape(-1, size))
        return np.concatenate(parts, axis=1)[:, : len(values)]

    def _close(self) -> None:
        self._session.run(self._shutdown)
        self._session.close()


def _keep_dtypes(graph: tf.Graph) -> None:
    """Keep operators that square activations in float32; float16 would overflow.

    Loss scaling would skip the step of every such overflow.  Casts in the graph do not
    help, because the compiler lowers a float32 graph.
    """
    from npu_bridge.estimator.npu import util

    # Releases before April 2021 do not have this function, see npu_options.
    keep = getattr(util, KEEP_FUNCTION, None)
    if keep is not None:
        operations = graph.get_operations()
        keep(graph, [op.outputs[0].name for op in operations if op.type in KEPT_TYPES])
