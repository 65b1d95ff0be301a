"""Rank tables: which devices of which servers train together, and who is rank 0.

The format is that of Huawei's HCCL library; the same table decides on CPUs and GPUs
how many processes run where.  No TensorFlow is imported here.
"""

from alexnet_estimator.rank_table.local import is_own_address, local_server
from alexnet_estimator.rank_table.parser import read
from alexnet_estimator.rank_table.topology import (
    Device,
    Topology,
    describe,
    describe_check,
    format_ranks,
)
from alexnet_estimator.rank_table.writer import make, make_file, write
