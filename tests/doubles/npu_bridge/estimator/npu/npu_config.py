"""The configuration of an NPUEstimator."""

import json
import os
from typing import Any, Dict

import tensorflow as tf
from npu_bridge.facts import released


class NPURunConfig(tf.estimator.RunConfig):
    """A RunConfig with the options of the device."""

    @released("npu_bridge.estimator.npu.npu_config.NPURunConfig")
    def __init__(self, **arguments: Any):
        """Store the arguments; options are checked only when a session starts."""
        steps_per_loop = arguments["iterations_per_loop"]
        if not isinstance(steps_per_loop, int):
            raise TypeError(f"iterations_per_loop must be int, got {steps_per_loop!r}")
        if steps_per_loop <= 0:
            raise ValueError(f"iterations_per_loop is {steps_per_loop}")
        if arguments["mix_compile_mode"] and steps_per_loop != 1:
            raise ValueError("iterations_per_loop must be 1 with mix_compile_mode")
        if json.loads(os.environ.get("TF_CONFIG", "{}")).get("cluster"):
            raise ValueError("cluster and distribute must both be set")
        for name, kind in (
            ("profiling_config", ProfilingConfig),
            ("dump_config", DumpConfig),
        ):
            if not isinstance(arguments[name], (kind, type(None))):
                raise ValueError(f"{name} must be of type {kind.__name__}")
        secs, steps = (
            arguments["save_checkpoints_secs"],
            arguments["save_checkpoints_steps"],
        )
        stock = {
            name: arguments[name]
            for name in (
                "model_dir",
                "tf_random_seed",
                "save_summary_steps",
                "session_config",
                "keep_checkpoint_max",
                "keep_checkpoint_every_n_hours",
                "log_step_count_steps",
            )
        }
        super().__init__(
            save_checkpoints_secs=secs,
            save_checkpoints_steps=100 if secs is None and steps is None else steps,
            **stock,
        )
        self.iterations_per_loop = steps_per_loop
        self.options: Dict[str, Any] = {
            name: value
            for name, value in arguments.items()
            if name not in stock and isinstance(value, (bool, int, str))
        }


class ProfilingConfig:
    """The options of the profiler."""

    @released("npu_bridge.estimator.npu.npu_config.ProfilingConfig")
    def __init__(self, **arguments: Any):
        self.arguments = arguments


class DumpConfig:
    """The options of the dump of tensors."""

    @released("npu_bridge.estimator.npu.npu_config.DumpConfig")
    def __init__(self, **arguments: Any):
        self.arguments = arguments
