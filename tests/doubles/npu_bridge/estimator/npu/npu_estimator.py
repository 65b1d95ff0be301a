"""An Estimator that refuses the graphs and options that an NPU would refuse."""

import os
from typing import Any, List

import tensorflow as tf
from npu_bridge import device
from npu_bridge.estimator.npu.npu_config import NPURunConfig
from npu_bridge.estimator.npu.npu_hook import (
    NPUBroadcastGlobalVariablesHook,
    NPUCheckpointSaverHook,
    SetIterationsVarHook,
)
from npu_bridge.facts import RELEASE, released
from tensorflow.python.util import function_utils

# With this many threads, all collectives of a graph can wait at the same time.
NUM_THREADS = 128


class NPUEstimator(tf.estimator.Estimator):
    """Wraps the model function as the real NPUEstimator does."""

    @released("npu_bridge.estimator.npu.npu_estimator.NPUEstimator")
    def __init__(
        self,
        model_fn: Any,
        model_dir: Any,
        config: Any,
        params: Any,
        warm_start_from: Any,
        **_: Any,
    ):
        if not isinstance(config, NPURunConfig):
            raise ValueError("`config` must be provided with type `NPURunConfig`")
        if config.session_config is None:
            config = config.replace(session_config=tf.ConfigProto())
        _add_npu_optimizer(config)
        if "_2021-" in RELEASE:
            os.environ[
                "RANK_SIZE"
            ].isdigit()  # These releases fail without the variable.
        if not os.environ.get("JOB_ID"):
            raise ValueError("Load job info failed: JOB_ID is not set")
        if model_dir is not None and model_dir != config.model_dir:
            raise ValueError(f"model_dir {model_dir} and {config.model_dir}")
        fallbacks = ("LOCAL_CHECKPOINT_DIR", "RESTORE_FROM")
        found = [os.environ[name] for name in fallbacks if os.environ.get(name)]
        restore_from = found[0] if found else None
        super().__init__(
            model_fn=_wrap(model_fn, config),
            model_dir=model_dir,
            config=config,
            params=params or {},
            warm_start_from=warm_start_from or restore_from,
        )


def _add_npu_optimizer(config: NPURunConfig) -> None:
    """Write the options into the session configuration of the caller."""
    session = config.session_config
    custom = session.graph_options.rewrite_options.custom_optimizers
    if any(optimizer.name == "NpuOptimizer" for optimizer in custom):
        raise device.Refused("this NPURunConfig or ConfigProto has been used already")
    optimizer = custom.add()
    optimizer.name = "NpuOptimizer"
    optimizer.parameter_map["use_off_line"].b = True
    for name, value in config.options.items():
        if isinstance(value, bool):
            optimizer.parameter_map[name].b = value
        elif isinstance(value, int):
            optimizer.parameter_map[name].i = value
        else:
            optimizer.parameter_map[name].s = value.encode()
    session.inter_op_parallelism_threads = NUM_THREADS
    session.use_per_session_threads = True


def _wrap(model_fn: Any, config: NPURunConfig) -> Any:
    accepted = function_utils.fn_args(model_fn)

    def wrapped(features: Any, labels: Any, mode: str, params: Any) -> Any:
        options = config.session_config.graph_options.rewrite_options
        device.check_options(options.custom_optimizers[0].parameter_map)
        device.initialise()
        given = {"labels": labels, "mode": mode, "params": params, "config": config}
        kwargs = {name: given[name] for name in given if name in accepted}
        spec = model_fn(features=features, **kwargs)
        device.check_graph(tf.get_default_graph(), config.iterations_per_loop)
        if mode != tf.estimator.ModeKeys.TRAIN:
            return spec
        if config.iterations_per_loop > 1:
            spec = spec._replace(train_op=tf.group(spec.train_op, name="IterationOp"))
        hooks = _training_hooks(config) + list(spec.training_hooks)
        return spec._replace(training_hooks=tuple(hooks))

    return wrapped


def _training_hooks(config: NPURunConfig) -> List[Any]:
    hooks: List[Any] = []
    if device.rank_size() > 1:
        hooks.append(NPUBroadcastGlobalVariablesHook(0, os.environ.get("RANK_ID")))
    if config.save_checkpoints_steps or config.save_checkpoints_secs:
        hooks.append(
            NPUCheckpointSaverHook(
                checkpoint_dir=config.model_dir,
                save_secs=config.save_checkpoints_secs,
                save_steps=config.save_checkpoints_steps,
            )
        )
    if config.iterations_per_loop > 1:
        hooks.append(SetIterationsVarHook(config.iterations_per_loop))
    return hooks
