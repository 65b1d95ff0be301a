"""The module that the vendor's examples import with a star; this package must not."""

raise ImportError(
    "npu_bridge.npu_init replaces tf.Session.__init__ for the whole process in "
    "releases from 2023 on: import explicit submodules"
)
