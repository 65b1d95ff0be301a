"""What has to be set before TensorFlow is imported, since it reads it then."""

import logging
import os
import warnings


def prepare_tensorflow(has_launcher: bool = False) -> None:
    """Set what TensorFlow reads when it is imported; the user's settings stay.

    Its start-up chatter would bury our own messages; and the threads of its Intel
    build must not spin, waiting for work, on cores that the input needs.

    Args:
        has_launcher: a launcher gives each rank its share of the cores.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("KMP_BLOCKTIME", "0")
    if not has_launcher:
        os.environ.setdefault("OMP_NUM_THREADS", str(len(os.sched_getaffinity(0))))
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    for module in ("tensorflow", "tensorboard"):
        warnings.filterwarnings("ignore", category=FutureWarning, module=module)
