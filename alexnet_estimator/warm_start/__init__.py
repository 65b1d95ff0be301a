"""Transfer learning: what a new run takes over from another network, and how."""

from alexnet_estimator.warm_start.plan import (
    RECORD_FILE,
    WarmStart,
    initializing_scaffold,
    plan_warm_start,
    read_record,
    weights_to_assign,
    write_record,
)
from alexnet_estimator.warm_start.sources import (
    Source,
    digest_of,
    is_there,
    locate,
    open_source,
    read_source,
)

__all__ = [
    "RECORD_FILE",
    "Source",
    "WarmStart",
    "digest_of",
    "initializing_scaffold",
    "is_there",
    "locate",
    "open_source",
    "plan_warm_start",
    "read_record",
    "read_source",
    "weights_to_assign",
    "write_record",
]
