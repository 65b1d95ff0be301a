"""CPUs and GPUs, which TensorFlow supports itself."""

from typing import TYPE_CHECKING, List, Mapping, MutableMapping

from alexnet_estimator import rank_environment
from alexnet_estimator.config import Config
from alexnet_estimator.runtime.accelerator import Accelerator
from alexnet_estimator.runtime.memory import keep_freed_memory

if TYPE_CHECKING:
    from alexnet_estimator.runtime.base import Runtime


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


def _make_runtime(device: str, environ: Mapping[str, str]) -> "Runtime":
    if rank_environment.is_horovod_rank(environ):
        rank_environment.check_horovod(environ)
        from alexnet_estimator.runtime.horovod import HorovodRuntime

        return HorovodRuntime(device)
    from alexnet_estimator.runtime.local import LocalRuntime

    return LocalRuntime(device)
