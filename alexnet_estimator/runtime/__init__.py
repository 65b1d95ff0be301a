"""How this process trains: alone, with Horovod, or on an NPU."""

from alexnet_estimator.runtime.accelerator import (
    Accelerator,
    find_accelerator,
    make_runtime,
    settle_device,
    settle_precision,
)

__all__ = [
    "Accelerator",
    "find_accelerator",
    "make_runtime",
    "settle_device",
    "settle_precision",
]
