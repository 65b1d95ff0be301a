"""How this process trains: alone, with Horovod, or on an NPU."""

from alexnet_estimator.runtime.accelerator import (
    Accelerator,
    check_gradient_compression,
    find_accelerator,
    find_launch_backend,
    make_runtime,
    settle_device,
    settle_precision,
)

__all__ = [
    "Accelerator",
    "check_gradient_compression",
    "find_accelerator",
    "find_launch_backend",
    "make_runtime",
    "settle_device",
    "settle_precision",
]
