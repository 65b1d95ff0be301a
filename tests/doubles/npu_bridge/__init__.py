"""Stand-in for Huawei's ``npu_bridge``: trains on the CPU with stock TensorFlow 1.15.

This code was written for this project from facts (``tests/facts/npu_bridge.json``).  It
has the signatures of the chosen release, follows the vendor's rules, and refuses what
the real package, its C++ part or the device would refuse.  Several processes
communicate with each other.

It reads these environment variables in addition to the real ones:

* ``NPU_DOUBLE_RELEASE``: Name of a release in the facts file; ``master_2023-12`` by
  default.
* ``NPU_DOUBLE_OVERFLOW``: ``RANK:STEP,...``, the steps in which a rank finds the
  overflow flag set, counted from 1 since its process started; ``*`` for every step.
* ``NPU_DOUBLE_WRONG``: Number of a rank whose collectives return wrong floats.
* ``NPU_DOUBLE_TIMEOUT_SECS``: Time that a rank waits for the others; 120 by default.
"""
