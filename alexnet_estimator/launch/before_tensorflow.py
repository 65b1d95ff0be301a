"""Settings that TensorFlow reads when it is imported."""

import logging
import os
import warnings

from alexnet_estimator import machine


def prepare_tensorflow(has_launcher: bool = False) -> None:
    """Set environment variables and filters that TensorFlow reads when it is imported.

    Variables that the user has set are kept.  The log level hides start-up messages,
    which would bury ours.  KMP_BLOCKTIME=0 stops the threads of Intel's build from
    spinning on cores that the input pipeline needs.  MKL_DEBUG_CPU_TYPE=5 makes MKL use
    AVX2 on AMD processors, which docs/performance.md measures.

    Args:
        has_launcher: Whether a launcher gives each rank its share of the cores.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("KMP_BLOCKTIME", "0")
    if machine.is_amd_with_avx2():
        os.environ.setdefault("MKL_DEBUG_CPU_TYPE", "5")
    if not has_launcher:
        os.environ.setdefault("OMP_NUM_THREADS", str(machine.num_cores()))
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    for module in ("tensorflow", "tensorboard"):
        warnings.filterwarnings("ignore", category=FutureWarning, module=module)
