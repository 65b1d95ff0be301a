"""Queries of the rank and of the number of ranks, which fail before initialization."""

import os

from npu_bridge import device
from npu_bridge.facts import released


@released("hccl.manage.api.get_rank_id")
def get_rank_id(group: str) -> int:
    """Return the rank of this process."""
    device.require_initialised("get rank id error")
    return int(os.environ.get("RANK_ID", "0"))


@released("hccl.manage.api.get_rank_size")
def get_rank_size(group: str) -> int:
    """Return the number of ranks."""
    device.require_initialised("get rank size error")
    return device.rank_size()
