"""A fictitious accelerator, written like a real one that somebody adds."""

from typing import MutableMapping

from alexnet_estimator.config import Config
from alexnet_estimator.engine.graph_mode import tf
from alexnet_estimator.runtime import Accelerator
from alexnet_estimator.runtime.local import LocalRuntime


class ToyRuntime(LocalRuntime):
    """One toy, which computes on the CPU, counts its jobs and shows no traces."""

    trace_level = tf.RunOptions.NO_TRACE
    num_made = 0

    def __init__(self) -> None:
        super().__init__("toy")
        ToyRuntime.num_made += 1

    def compute_dtype(self, precision: Config) -> tf.DType:
        """Return float32, whatever the precision is."""
        return tf.float32


class Toy(Accelerator):
    """Toys, which are always present."""

    precision_modes = ("force_fp32", "must_keep_origin_dtype")

    def is_present(self) -> bool:
        """Return True."""
        return True

    def make_runtime(
        self, config: Config, environ: MutableMapping[str, str]
    ) -> ToyRuntime:
        """Return the runtime of one toy."""
        return ToyRuntime()
