"""The timeline of a traced step for chrome://tracing and Perfetto."""

import json
import re
from typing import Any, Dict, List


def to_chrome_trace(step_stats: Any) -> str:
    """Return a traced step as JSON text in Chrome's trace event format.

    Every device becomes a process.  Operators that ran at the same time are in
    different rows, which do not correspond to threads.

    Args:
        step_stats: Field ``step_stats`` of a RunMetadata, with times in microseconds.
    """
    events: List[Dict[str, Any]] = []
    for pid, device in enumerate(step_stats.dev_stats):
        name = {"name": device.device}
        events.append({"ph": "M", "name": "process_name", "pid": pid, "args": name})
        row_ends: List[int] = []
        for node in sorted(device.node_stats, key=lambda node: node.all_start_micros):
            start, duration = node.all_start_micros, max(1, node.all_end_rel_micros)
            is_free = (row for row, end in enumerate(row_ends) if end <= start)
            row = next(is_free, len(row_ends))
            row_ends[row : row + 1] = [start + duration]
            # Conv2D in the label "LAYER/Conv2D = Conv2D(images, ...)".
            operator = re.search(r" = (\w+)\(", node.timeline_label)
            events.append(
                {
                    "ph": "X",
                    "cat": "op",
                    "name": operator.group(1) if operator else node.node_name,
                    "pid": pid,
                    "tid": row,
                    "ts": start,
                    "dur": duration,
                    "args": {"name": node.node_name, "operator": node.timeline_label},
                }
            )
    return json.dumps({"displayTimeUnit": "ms", "traceEvents": events})
