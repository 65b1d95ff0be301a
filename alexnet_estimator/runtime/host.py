"""CPUs and GPUs, which TensorFlow supports itself."""

from typing import TYPE_CHECKING, List, Mapping, MutableMapping

from alexnet_estimator import rank_environment
from alexnet_estimator.config import Config
from alexnet_estimator.runtime.accelerator import Accelerator
from alexnet_estimator.runtime.memory import keep_freed_memory

if TYPE_CHECKING:
    from alexnet_estimator.runtime.base import Runtime


# Milliseconds between two exchanges in which ranks on CPUs tell each other which
# gradients are complete, for each MB of gradients.  Every exchange interrupts the
# computation on the same core, and a gradient waits for the next one.
# docs/performance.md has the effect.
_CYCLE_MS_PER_MB = 0.67
_MIN_CYCLE_MS, _MAX_CYCLE_MS = 1.0, 10.0  # Horovod's default is 1.


class Cpu(Accelerator):
    """The CPU, which every machine has."""

    gradient_compressions = ("none", "fp16")

    def is_present(self) -> bool:
        """Return True."""
        return True

    def make_runtime(
        self, config: Config, environ: MutableMapping[str, str]
    ) -> "Runtime":
        """Return a runtime that keeps the memory of one step for the next."""
        keep_freed_memory()
        cycle_time = rank_environment.HOROVOD_CYCLE_TIME
        if rank_environment.is_horovod_rank(environ) and cycle_time not in environ:
            environ[cycle_time] = f"{_cycle_ms(config):.1f}"
        return _make_runtime("cpu", environ)


class Gpu(Accelerator):
    """NVIDIA's GPUs."""

    gradient_compressions = ("none", "fp16")

    def is_present(self) -> bool:
        """Return whether TensorFlow sees a GPU."""
        from alexnet_estimator.engine.graph_mode import tf

        return bool(tf.config.experimental.list_physical_devices("GPU"))

    def find_problems(self) -> List[str]:
        """Return a problem with its remedy if TensorFlow sees no GPU."""
        if self.is_present():
            return []
        return [
            "runtime.device is gpu, but TensorFlow sees no GPU: create an environment "
            "with ALEXNET_TF=2.15-cuda (docs/gpu.md), or use --device=cpu"
        ]

    def make_runtime(
        self, config: Config, environ: MutableMapping[str, str]
    ) -> "Runtime":
        """Return a runtime on one GPU."""
        return _make_runtime("gpu", environ)


def _cycle_ms(config: Config) -> float:
    """Return the interval in which ranks on CPUs exchange the state of gradients."""
    from alexnet_estimator.networks.graphs import count_parameters

    # The number of classes is not known yet.  It changes the size of the head only.
    num_weights = count_parameters(2, config.data.image_size, config.model)
    gradient_mb = 4 * num_weights / 1e6
    return min(max(_CYCLE_MS_PER_MB * gradient_mb, _MIN_CYCLE_MS), _MAX_CYCLE_MS)


def _make_runtime(device: str, environ: Mapping[str, str]) -> "Runtime":
    if rank_environment.is_horovod_rank(environ):
        rank_environment.check_horovod(environ)
        from alexnet_estimator.runtime.horovod import HorovodRuntime

        return HorovodRuntime(device)
    from alexnet_estimator.runtime.local import LocalRuntime

    return LocalRuntime(device)
