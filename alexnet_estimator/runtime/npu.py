"""Training on Ascend NPUs: the only place that knows ``npu_bridge``.

One process drives one device.  Who it is stands in the environment, where ``launch``
has put it from the rank table; HCCL's own queries fail until its group is formed.

With ``npu.iterations_per_loop`` = N the device makes N steps in each call of
``session.run``: hooks see every Nth step only, so signals, the finite guard and the
log act up to N - 1 steps late.

``npu_bridge.npu_init`` is never imported: releases from 2023 on replace
``tf.Session.__init__`` there, and every session of the process becomes an NPU session.
"""

import atexit
import contextlib
import glob
import importlib.util
import json
import os
import tempfile
from typing import Any, ContextManager, Mapping, Optional, Sequence

import numpy as np

from alexnet_estimator import engine
from alexnet_estimator.config import Config
from alexnet_estimator.engine.graph_mode import tf
from alexnet_estimator.errors import ConfigError
from alexnet_estimator.optim.loss_scale import ScaledOptimizer, resolve_loss_scale
from alexnet_estimator.runtime.accelerator import Accelerator
from alexnet_estimator.runtime.base import ModelFn, Runtime, session_config
from alexnet_estimator.runtime.npu_environment import read_rank
from alexnet_estimator.runtime.npu_options import accepted_options, find_problems
from alexnet_estimator.schema import PRECISION_MODES

INSTALL_HINT = (
    "use an Ascend Hub image for training with TensorFlow 1.15, or install CANN "
    "(toolkit, kernels, TFPlugin), and run `source "
    "/usr/local/Ascend/ascend-toolkit/set_env.sh` and TFPlugin's set_env.sh in this "
    "shell; or use --device=cpu"
)
VALUES_PER_GATHER = 64


def has_devices() -> bool:
    """Return whether this machine shows NPUs."""
    return bool(glob.glob("/dev/davinci[0-9]*"))


class Npu(Accelerator):
    """Ascend NPUs."""

    precision_modes = (
        "allow_mix_precision",
        *(
            mode
            for mode in PRECISION_MODES
            if mode not in ("auto", "allow_mix_precision")
        ),
    )

    def is_present(self) -> bool:
        """Return whether there are NPUs that could train, without importing anything.

        Where TensorFlow is not 1.15, they are present and cannot be used: somebody who
        has NPUs would wait for weeks for a CPU that was taken without a word.
        """
        has_adapter = importlib.util.find_spec("npu_bridge") is not None
        return has_devices() and (has_adapter or not engine.is_1_15())

    def make_runtime(self, config: Config, environ: Mapping[str, str]) -> Runtime:
        """Return the runtime of one NPU."""
        return NpuRuntime(config, environ)

    def steps_per_call(self, config: Config) -> int:
        """Return the number of steps in one loop on the device."""
        return config.npu.iterations_per_loop

    def prepare_profile(self, config: Config, folder: str) -> None:
        """Ask for the vendor's profile, unless the user has chosen one."""
        if not config.npu.profiling_options:
            options = {"output": folder, "training_trace": "on", "task_trace": "on"}
            config.npu.profiling_options = json.dumps(options)


class NpuRuntime(Runtime):
    """One NPU; with a rank table, one of several that train together."""

    device = "npu"
    trace_level = tf.RunOptions.NO_TRACE

    def __init__(self, config: Config, environ: Mapping[str, str] = os.environ):
        """Find out who this process is; neither devices nor HCCL are touched yet.

        Args:
            config: validated, ``precision.mode`` settled.
            environ: says rank, size, rank table and device.

        Raises:
            ConfigError: npu_bridge is missing, or all that is wrong with the
                environment or with the options for this release of npu_bridge.
        """
        problems = find_problems(config, _import_npu_bridge())
        if problems:
            raise ConfigError(problems, "configuration")
        self.rank, self.num_ranks = read_rank(environ)
        self.steps_per_call = config.npu.iterations_per_loop
        self._config = config
        self._options = accepted_options(config.npu)
        self._group: Optional[_Group] = None
        # NPUEstimator wants both of one that is alone, too; the first is any name.
        os.environ.setdefault("JOB_ID", "alexnet_estimator")
        os.environ.setdefault("RANK_SIZE", "1")

    def make_estimator(
        self, model_fn: ModelFn, model_dir: str, config: Config
    ) -> tf.estimator.Estimator:
        """Return a new NPUEstimator; it calls ``model_fn(features=..., ...)``.

        It broadcasts rank 0's trainable variables when training starts, but neither
        slots nor the global step: every rank must restore the same checkpoint.
        """
        from npu_bridge.estimator.npu.npu_estimator import NPUEstimator

        if self.num_ranks > 1 and config.npu.gradient_split:
            self._open_group()
        return NPUEstimator(
            model_fn=model_fn,
            config=self._run_config(config, model_dir, config.npu.iterations_per_loop),
        )

    def wrap_optimizer(
        self, optimizer: tf.train.Optimizer, precision: Config
    ) -> ScaledOptimizer:
        """Average over HCCL, and scale the loss with the vendor's managers.

        Arithmetic on a 910 saturates, so overflow shows in a flag of the device and
        not in the gradients; only ``NPULossScaleOptimizer`` reads it, and only with
        ``is_distributed`` do all ranks skip the same steps.
        """
        from npu_bridge.estimator.npu.npu_loss_scale_optimizer import (
            NPULossScaleOptimizer,
        )
        from npu_bridge.estimator.npu.npu_optimizer import NPUDistributedOptimizer

        averaging = NPUDistributedOptimizer(optimizer)
        kind = resolve_loss_scale(precision)
        if kind == "none":
            return ScaledOptimizer(averaging, tf.constant(1.0), tf.zeros([], tf.int64))
        # The manager's variables must not be made under control dependencies.
        with tf.control_dependencies(None), tf.variable_scope("loss_scale"):
            manager = _make_manager(kind, precision)
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

        # Unfused: the default would mix it into the groups of gradients.
        return hccl_ops.allreduce(tensor, "sum", fusion=0)

    def compute_dtype(self, precision: Config) -> tf.DType:
        """Return float32: the compiler lowers the graph (``precision_mode``)."""
        return tf.float32

    def float32_scope(self) -> ContextManager[None]:
        """Keep what is made within it from being lowered to float16.

        Releases before February 2021 have no such scope: there the compiler's lists
        decide.
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
        """Drop with the device's generator, whose sequence of masks is its own.

        Args:
            x: float tensor of any shape.
            keep_prob: from above 0 to 1.
            seed: int32 [2]; the first must be a constant and tells masks of layers and
                ranks apart.  The step is not used: a resumed run has other masks than
                an uninterrupted one.
        """
        from npu_bridge.estimator import npu_ops

        stream = tf.get_static_value(seed, partial=True)[0]
        return npu_ops.dropout(x, float(keep_prob), seed=int(stream))

    def _open_group(self) -> "_Group":
        if self._group is None:
            self._group = _Group(
                self._session_config(), self.num_ranks, self._config.npu.gradient_split
            )
        return self._group

    def _run_config(
        self, config: Config, model_dir: str, iterations_per_loop: int
    ) -> Any:
        """Return a new NPURunConfig: NPUEstimator writes into the one that it gets.

        It saves nothing: our hook does, on rank 0.  The vendor's saving hook is
        TensorFlow's with one more ``session.run``, and ``tf.train.Saver`` fetches
        variables from the device just as its saver does, between two loops; ours also
        checks that values are finite and writes whole files or none.
        """
        from npu_bridge.estimator.npu.npu_config import NPURunConfig

        return NPURunConfig(
            model_dir=model_dir,
            iterations_per_loop=iterations_per_loop,
            tf_random_seed=config.train.seed,
            precision_mode=config.precision.mode,
            session_config=session_config(config.runtime.num_threads, self.device),
            save_summary_steps=0,
            # Nothing at all would mean every 100 steps.
            save_checkpoints_steps=0,
            log_step_count_steps=None,
            **self._options,
        )

    def _session_config(self) -> tf.ConfigProto:
        """Return the configuration that an Estimator's session would have."""
        from npu_bridge.estimator.npu.npu_estimator import NPUEstimator

        def no_model(features: Any) -> None:
            """Stand where a model function has to."""

        # Nothing is written there; without a folder NPUEstimator would make one.
        run_config = self._run_config(self._config, tempfile.gettempdir(), 1)
        return NPUEstimator(model_fn=no_model, config=run_config).config.session_config


class _Group:
    """HCCL outside of Estimator's sessions.

    A session of its own stays open until the process ends, because the adapter shuts
    the device and HCCL down with its last session: between training and evaluation
    all ranks would have to connect again, and the gradient split would be forgotten.
    Its configuration is the Estimator's, since the first session of a process settles
    the options (precision, profiling) of all.
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

        # HCCL sums no float64, and float32 cannot hold large counts.  Two int32 hold
        # any float64, and gathering does not look at them.
        with tf.Graph().as_default() as graph:
            self._own = tf.placeholder(tf.int32, [VALUES_PER_GATHER, 2])
            self._all = hccl_ops.allgather(self._own, num_ranks)
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
        """Return all ranks' values, float64 [num_ranks, len(values)], at most 64."""
        own = np.zeros([VALUES_PER_GATHER], np.float64)
        own[: len(values)] = values
        words = self._session.run(
            self._all, {self._own: own.view(np.int32).reshape(-1, 2)}
        )
        rows = np.ascontiguousarray(words).view(np.float64)
        return rows.reshape(-1, VALUES_PER_GATHER)[:, : len(values)]

    def _close(self) -> None:
        self._session.run(self._shutdown)
        self._session.close()


def _import_npu_bridge() -> Any:
    """Return the class NPURunConfig.

    Raises:
        ConfigError: npu_bridge is not installed, or CANN is not found.
    """
    try:
        from npu_bridge.estimator.npu.npu_config import NPURunConfig
    except ImportError as error:
        raise ConfigError(
            f"runtime.device is npu, but npu_bridge cannot be imported ({error}): "
            + INSTALL_HINT
        ) from error
    return NPURunConfig


def _make_manager(kind: str, precision: Config) -> Any:
    """Return the vendor's loss-scale manager with a ``num_skipped`` variable."""
    from npu_bridge.estimator.npu import npu_loss_scale_manager

    if kind != "dynamic":
        fixed = _counting(npu_loss_scale_manager.FixedLossScaleManager, None)
        return fixed(loss_scale=float(kind))
    dynamic = _counting(
        npu_loss_scale_manager.ExponentialUpdateLossScaleManager, precision
    )
    return dynamic(
        init_loss_scale=precision.initial_loss_scale,
        incr_every_n_steps=precision.growth_steps,
        decr_every_n_nan_or_inf=precision.decrease_after_overflows,
        incr_ratio=precision.growth_factor,
        decr_ratio=precision.decrease_factor,
    )


def _counting(manager_class: Any, limits: Optional[Config]) -> Any:
    """Return a manager class that counts skipped steps and keeps to limits.

    ``update_loss_scale`` is the one place that learns whether a step was skipped; on
    all ranks alike, as the flag is summed over them.

    Args:
        manager_class: of npu_bridge.
        limits: the ``precision`` section of a dynamic scale; None: it is fixed.
    """

    class CountingManager(manager_class):
        def __init__(self, **settings: Any):
            super().__init__(**settings)
            self.num_skipped = tf.get_variable(
                "num_skipped", [], tf.int64, tf.zeros_initializer(), trainable=False
            )

        def update_loss_scale(self, finite_grads: tf.Tensor) -> tf.Operation:
            is_skipped = tf.cast(tf.logical_not(finite_grads), tf.int64)
            count = tf.assign_add(self.num_skipped, is_skipped)
            update = super().update_loss_scale
            if limits is None:
                return tf.group(count, update(finite_grads))
            scale = tf.convert_to_tensor(self.get_loss_scale())
            next_scale = scale * tf.where(
                finite_grads, limits.growth_factor, limits.decrease_factor
            )
            # The vendor's rule knows no upper limit, and 1 as the lower one.
            is_allowed = tf.logical_and(
                next_scale >= limits.min_loss_scale,
                next_scale <= limits.max_loss_scale,
            )
            return tf.group(
                count, tf.cond(is_allowed, lambda: update(finite_grads), tf.no_op)
            )

    return CountingManager
