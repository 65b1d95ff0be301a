"""Stand-in for Huawei's ``npu_bridge``: trains on the CPU with stock TensorFlow 1.15.

Our own code, made from facts (``tests/facts/npu_bridge.json``): signatures of the
chosen release, the vendor's rules, and refusals of what the real one, its C++ side or
the device would refuse.  Several processes really talk to each other.

Environment variables beside the real ones:

* ``NPU_DOUBLE_RELEASE``: a release of the facts file, ``master_2023-12`` by default.
* ``NPU_DOUBLE_OVERFLOW``: ``RANK:STEP,...``: the overflow flag that a rank finds in its
  n-th step since the process started, from 1; ``*`` for every step.
* ``NPU_DOUBLE_WRONG``: a rank that gets wrong float numbers from collectives.
* ``NPU_DOUBLE_TIMEOUT_SECS``: how long a rank waits for the others, 120 by default.
"""
