"""The star import of the vendor's examples, which no correct program here makes."""

raise ImportError(
    "npu_bridge.npu_init replaces tf.Session.__init__ for the whole process in "
    "releases from 2023 on: import explicit submodules"
)
