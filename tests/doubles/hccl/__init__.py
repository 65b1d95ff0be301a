"""Stand-in for CANN's Python package ``hccl``; see the stand-in ``npu_bridge``."""
