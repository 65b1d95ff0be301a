"""Rank tables, which list the servers, devices and ranks of a job.

The format is that of Huawei's HCCL library.  With CPUs and GPUs, the same table states
how many processes run on each server.  This package does not import TensorFlow.
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
