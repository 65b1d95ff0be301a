"""Checks of the environment variables of an NPU's process against the rank table.

``npu_bridge`` and HCCL read these variables themselves.  If the variables contradict
the table, they wait until a time-out or use the wrong device.
"""

import os
import tempfile
from typing import List, Mapping, MutableMapping, Tuple

from alexnet_estimator import rank_environment as names
from alexnet_estimator import rank_table
from alexnet_estimator.errors import ConfigError
from alexnet_estimator.rank_table import Topology

START_HINT = "start ranks with --rank_table, which sets it"
SILENT_WARM_STARTS = ("RESTORE_FROM", "LOCAL_CHECKPOINT_DIR")
CONNECT_TIMEOUT_SECS = range(120, 7201)


def read_rank(environ: Mapping[str, str]) -> Tuple[int, int]:
    """Return the rank and the number of ranks from the environment variables.

    Raises:
        ConfigError: Variables contradict each other or the rank table; the message
            lists all problems.
    """
    problems = _misleading_variables(environ)
    rank = names.read_number(environ, names.RANK_ID, problems, 0)
    num_ranks = names.read_number(environ, names.RANK_SIZE, problems, 1)
    table = environ.get(names.RANK_TABLE_FILE, "")
    if rank >= num_ranks:
        problems.append(f"RANK_ID is {rank}: must be below RANK_SIZE = {num_ranks}")
    if table:
        problems.extend(_table_problems(environ, table, rank, num_ranks))
    elif num_ranks > 1:
        problems.append(
            f"RANK_SIZE is {num_ranks} without RANK_TABLE_FILE: {START_HINT}"
        )
    if table or num_ranks > 1:
        problems.extend(
            f"{name} is not set: {START_HINT}"
            for name in (names.JOB_ID, names.RANK_ID)
            if not environ.get(name)
        )
    if problems:
        raise ConfigError(problems, "environment")
    return rank, num_ranks


def find_folder_problems(folder: str) -> List[str]:
    """Return the problems of a working folder, to which the compiler of CANN writes."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return []
    except OSError as error:
        return [
            f"the working folder {folder} cannot be written to ({error.strerror}), but "
            "CANN's compiler creates kernel_meta in it: change to a writable folder"
        ]


def leave_out_rivals(environ: MutableMapping[str, str]) -> None:
    """Remove the variables by which ascend-operator describes a group.

    HCCL reads the members of a group either from them or from a rank table, and refuses
    both together.  The operator also sets them for pods with a rank table and for a pod
    that trains alone.

    Args:
        environ: Environment variables of this process, which are changed in place.

    Raises:
        ConfigError: They describe several ranks, but there is no rank table.
    """
    rivals = sorted(name for name in names.CM_VARIABLES if name in environ)
    is_alone = environ.get(names.CM_WORKER_SIZE, "1") in ("", "0", "1")
    if rivals and not is_alone and not environ.get(names.RANK_TABLE_FILE):
        raise ConfigError(
            f"{', '.join(rivals)} describe a group without a rank table, which is not "
            "supported: mount the table that ascend-operator writes (hccl.json) and "
            "give --rank_table=FILE",
            "environment",
        )
    for name in rivals:
        del environ[name]


def _misleading_variables(environ: Mapping[str, str]) -> List[str]:
    """Return a message for each variable that would mislead npu_bridge or HCCL."""
    problems = []
    for name in SILENT_WARM_STARTS:
        if environ.get(name):
            problems.append(
                f"{name} is {environ[name]}: NPUEstimator would silently start "
                "from it: unset it and use --warm_start_from"
            )
    timeout = environ.get(names.HCCL_CONNECT_TIMEOUT, "600")
    if not timeout.isdecimal() or int(timeout) not in CONNECT_TIMEOUT_SECS:
        problems.append(
            f"HCCL_CONNECT_TIMEOUT is {timeout}: must be from 120 to 7200 (seconds)"
        )
    return problems


def _table_problems(
    environ: Mapping[str, str], table: str, rank: int, num_ranks: int
) -> List[str]:
    """Return the contradictions between the environment and the rank table."""
    if not os.path.isabs(table):
        return [f"RANK_TABLE_FILE is {table}: must be an absolute path"]
    try:
        topology = rank_table.read(table)
    except ConfigError as error:
        return [f"{table}: {problem}" for problem in error.problems]
    problems = []
    if topology.num_ranks != num_ranks:
        problems.append(
            f"RANK_SIZE is {num_ranks}, but {table} has {topology.num_ranks} ranks"
        )
    if environ.get(names.POD_NAME) and topology.version in ("1.0", "1.2"):
        problems.append(
            f"POD_NAME is {environ['POD_NAME']}, and npu_bridge takes it in place of "
            f"RANK_ID, but {table} has no pods: unset it"
        )
    return problems + _device_problems(environ, topology, rank)


def _device_problems(
    environ: Mapping[str, str], topology: Topology, rank: int
) -> List[str]:
    device_id = environ.get(names.ASCEND_DEVICE_ID) or environ.get(names.DEVICE_ID)
    if not device_id:
        return [f"ASCEND_DEVICE_ID is not set: device 0 would be used; {START_HINT}"]
    # A container that sees only some devices numbers them from 0.
    is_renumbered = bool(environ.get(names.VISIBLE_DEVICES))
    if is_renumbered or rank >= topology.num_ranks:
        return []
    expected = str(topology.devices[rank].device_id)
    if device_id == expected:
        return []
    return [
        f"ASCEND_DEVICE_ID is {device_id}, but rank {rank} of {topology.path} has "
        f"device {expected}"
    ]
