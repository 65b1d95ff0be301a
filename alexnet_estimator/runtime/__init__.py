"""Chooses how this process trains: alone, with Horovod, or on an NPU."""

import os
from typing import MutableMapping

from alexnet_estimator import engine, rank_environment
from alexnet_estimator.config import Config
from alexnet_estimator.errors import ConfigError
from alexnet_estimator.runtime.base import Runtime
from alexnet_estimator.runtime.memory import keep_freed_memory

ON_HOST = ("allow_mix_precision", "must_keep_origin_dtype")


def make_runtime(
    config: Config, environ: MutableMapping[str, str] = os.environ
) -> Runtime:
    """Return the runtime of this process and settle ``precision.mode`` for it.

    Args:
        config: ``runtime.device`` is read; ``precision.mode`` of ``auto`` is replaced.
        environ: tells the rank, where a launcher has set it; loses ``TF_CONFIG``.

    Raises:
        ConfigError: the device is not there, or cannot do the precision mode; what a
            launcher has set contradicts itself.
    """
    rank_environment.ignore_tf_config(environ)
    device = settle_device(config.runtime.device)
    settle_precision(config, device)
    if device == "cpu":
        keep_freed_memory()
    runtime = _runtime_of(device, config, environ)
    runtime.heartbeat = rank_environment.read_heartbeat(environ)
    return runtime


def _runtime_of(
    device: str, config: Config, environ: MutableMapping[str, str]
) -> Runtime:
    if device == "npu":
        from alexnet_estimator.runtime.npu import NpuRuntime

        return NpuRuntime(config, environ)
    if rank_environment.is_horovod_rank(environ):
        rank_environment.check_horovod(environ)
        from alexnet_estimator.runtime.horovod import HorovodRuntime

        return HorovodRuntime(device)
    from alexnet_estimator.runtime.local import LocalRuntime

    return LocalRuntime(device)


def settle_device(device: str) -> str:
    """Return ``cpu``, ``gpu`` or ``npu`` for ``runtime.device``, also for ``auto``.

    Raises:
        ConfigError: there is no such device.
    """
    from alexnet_estimator.runtime import npu

    # Not the CPU unasked: who has NPUs would wait for it for weeks.
    asked = "npu" if device == "auto" and npu.has_devices() else device
    problems = engine.lacking(asked)
    if problems:
        raise ConfigError(problems)
    if device not in ("auto", "gpu"):
        return device
    if device == "auto" and npu.is_available():
        return "npu"
    from alexnet_estimator.engine.graph_mode import tf

    has_gpu = bool(tf.config.experimental.list_physical_devices("GPU"))
    if device == "gpu" and not has_gpu:
        raise ConfigError(
            "runtime.device is gpu, but TensorFlow sees no GPU: install a TensorFlow "
            "1.15 with CUDA support, or use --device=cpu"
        )
    return "gpu" if has_gpu else "cpu"


def settle_precision(config: Config, device: str) -> None:
    """Replace ``precision.mode`` of ``auto`` by that of ``cpu``, ``gpu`` or ``npu``.

    Raises:
        ConfigError: the device cannot do the mode.
    """
    mode = config.precision.mode
    if mode == "auto":
        is_npu = device == "npu"
        mode = "allow_mix_precision" if is_npu else "must_keep_origin_dtype"
    elif device != "npu" and mode not in ON_HOST:
        raise ConfigError(
            f"precision.mode is {mode!r}, which only an NPU has (--device=npu); "
            f"on a {device} use " + " or ".join(ON_HOST)
        )
    config.precision.mode = mode
