"""What has to be set before TensorFlow is imported, since it reads it then."""

import logging
import os
import warnings

from alexnet_estimator import machine


def prepare_tensorflow(has_launcher: bool = False) -> None:
    """Set what TensorFlow reads when it is imported; the user's settings stay.

    Its start-up chatter would bury our own messages.  The threads of its Intel build
    must not spin, waiting for work, on cores that the input needs.  Its matrix products
    take AVX2 on processors that are not Intel's only where they are told to, by
    MKL_DEBUG_CPU_TYPE: docs/performance.md has the difference that this variable makes.

    Args:
        has_launcher: a launcher gives each rank its share of the cores.
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
