"""The two TensorFlows that run this job, 1.15 and 2.15, and where they differ.

All code is written to what both have: 1.15 itself and ``tf.compat.v1`` of 2.15.  Rooms
take it from ``graph_mode``; what one of them lacks is told here, without importing
either.
"""

import importlib.util

NPU_NEEDS_1_15 = (
    "npu_bridge, the vendor's adapter, is made for TensorFlow 1.15, and another one is "
    "installed here: set PYTHON to a Python 3.7 with TensorFlow 1.15 and npu_bridge, "
    "or use --device=cpu"
)


def is_1_15() -> bool:
    """Return whether the installed TensorFlow is 1.15: it has ``tf.contrib``, NPUs."""
    # Where its code is, whatever its distribution is called.
    return importlib.util.find_spec("tensorflow_core") is not None
