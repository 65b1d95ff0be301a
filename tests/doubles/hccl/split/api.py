"""The grouping of gradients for the communication."""

from typing import List

from npu_bridge import device
from npu_bridge.facts import released


@released("hccl.split.api.set_split_strategy_by_size")
def set_split_strategy_by_size(dataSizeList: List[float], group: str) -> None:
    """Send the gradients in parts whose sizes are given in percent."""
    device.require_initialised("set split strategy by size error")
    if not isinstance(dataSizeList, list) or len(dataSizeList) > 8:
        raise ValueError(f"set_split_strategy_by_size of {dataSizeList}")
    if sum(dataSizeList) != 100 or min(dataSizeList) < 0:
        raise ValueError(f"set_split_strategy_by_size: the sum of {dataSizeList}")
    device.gradient_split = dataSizeList
