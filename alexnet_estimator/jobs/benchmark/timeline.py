"""A traced step as a timeline for chrome://tracing and Perfetto."""

import json
import re
from typing import Any, Dict, Iterator, List


def to_chrome_trace(step_stats: Any) -> str:
    """Return a step in Chrome's trace event format, as JSON text.

    Every device is a process there.  Operators that ran at the same time are in
    different rows, which are no threads of the machine.

    Args:
        step_stats: of a RunMetadata; microseconds.
    """
    events: List[Dict[str, Any]] = []
    for pid, device in enumerate(step_stats.dev_stats):
        name = {"name": device.device}
        events.append({"ph": "M", "name": "process_name", "pid": pid, "args": name})
        events.extend(_device_events(device.node_stats, pid))
    return json.dumps({"displayTimeUnit": "ms", "traceEvents": events})


def _device_events(nodes: Any, pid: int) -> Iterator[Dict[str, Any]]:
    row_ends: List[int] = []
    for node in sorted(nodes, key=lambda node: node.all_start_micros):
        start, duration = node.all_start_micros, max(1, node.all_end_rel_micros)
        is_free = (row for row, end in enumerate(row_ends) if end <= start)
        row = next(is_free, len(row_ends))
        row_ends[row : row + 1] = [start + duration]
        yield {
            "ph": "X",
            "cat": "op",
            "name": _type_of(node),
            "pid": pid,
            "tid": row,
            "ts": start,
            "dur": duration,
            "args": {"name": node.node_name, "operator": node.timeline_label},
        }


def _type_of(node: Any) -> str:
    """Return ``Conv2D`` for the label ``conv1/Conv2D = Conv2D(images, ...)``."""
    found = re.search(r" = (\w+)\(", node.timeline_label)
    return found.group(1) if found else node.node_name
