"""The environment variables by which a launcher tells a process its rank.

A launcher (that of this package, of Horovod or of a cluster) sets them, and the
runtimes read them.  Their names are spelled in this module only.  A wrong value raises
an error that names the variable.  Otherwise ranks would hang, or use the wrong device.
"""

import json
import os
import stat
from typing import List, Mapping, MutableMapping, Optional

from alexnet_estimator.console import warn
from alexnet_estimator.errors import ConfigError

# Variables of this package's launcher.
NUM_THREADS = "ALEXNET_NUM_THREADS"  # CPU threads of a rank.
GPU = "ALEXNET_GPU"  # Index of the rank's GPU: its device_id in the rank table.
HEARTBEAT = "ALEXNET_HEARTBEAT"  # Open descriptor to which a rank writes heartbeats.

# Variables of Ascend's HCCL and npu_bridge.
JOB_ID = "JOB_ID"
RANK_ID = "RANK_ID"
RANK_SIZE = "RANK_SIZE"
RANK_TABLE_FILE = "RANK_TABLE_FILE"
ASCEND_DEVICE_ID = "ASCEND_DEVICE_ID"  # Number of the device in this container.
DEVICE_ID = "DEVICE_ID"  # Number of the device on the server.
VISIBLE_DEVICES = "ASCEND_VISIBLE_DEVICES"
POD_NAME = "POD_NAME"  # npu_bridge uses it in place of RANK_ID.
HCCL_CONNECT_TIMEOUT = "HCCL_CONNECT_TIMEOUT"
# ascend-operator sets these in pods that also have a rank table.  HCCL refuses both
# together.
CM_WORKER_SIZE = "CM_WORKER_SIZE"
CM_VARIABLES = (
    "CM_CHIEF_IP",
    "CM_CHIEF_PORT",
    "CM_CHIEF_DEVICE",
    "CM_WORKER_IP",
    CM_WORKER_SIZE,
    "CM_RANK",
)

# Variables of Horovod.
HOROVOD_RANK = "HOROVOD_RANK"
HOROVOD_SIZE = "HOROVOD_SIZE"
HOROVOD_LOCAL_RANK = "HOROVOD_LOCAL_RANK"
HOROVOD_LOCAL_SIZE = "HOROVOD_LOCAL_SIZE"
HOROVOD_CROSS_RANK = "HOROVOD_CROSS_RANK"
HOROVOD_CROSS_SIZE = "HOROVOD_CROSS_SIZE"
HOROVOD_HOSTNAME = "HOROVOD_HOSTNAME"
HOROVOD_CONTROLLER = "HOROVOD_CONTROLLER"
HOROVOD_CPU_OPERATIONS = "HOROVOD_CPU_OPERATIONS"
HOROVOD_INTERFACE = "HOROVOD_GLOO_IFACE"
HOROVOD_ADDRESS = "HOROVOD_GLOO_RENDEZVOUS_ADDR"
HOROVOD_PORT = "HOROVOD_GLOO_RENDEZVOUS_PORT"
HOROVOD_TIMEOUT = "HOROVOD_GLOO_TIMEOUT_SECONDS"
HOROVOD_START_TIMEOUT = "HOROVOD_START_TIMEOUT"
HOROVOD_CYCLE_TIME = "HOROVOD_CYCLE_TIME"

# Variable of TensorFlow's distribution strategies.
TF_CONFIG = "TF_CONFIG"
TF_CONFIG_IS_IGNORED = (
    f"{TF_CONFIG} is ignored: the ranks of this program come from a rank table"
)

_HOROVOD_PLACES = (
    (HOROVOD_RANK, HOROVOD_SIZE),
    (HOROVOD_LOCAL_RANK, HOROVOD_LOCAL_SIZE),
    (HOROVOD_CROSS_RANK, HOROVOD_CROSS_SIZE),
)


def is_rank(environ: Mapping[str, str]) -> bool:
    """Return whether any launcher started this process as a rank."""
    return is_horovod_rank(environ) or {RANK_ID, RANK_SIZE} <= set(environ)


def is_horovod_rank(environ: Mapping[str, str]) -> bool:
    """Return whether a launcher started this process as a rank of Horovod."""
    return HOROVOD_RANK in environ


def is_first_rank(environ: Mapping[str, str]) -> bool:
    """Return whether this process is rank 0 or not a rank."""
    rank = environ.get(HOROVOD_RANK) or environ.get(RANK_ID) or "0"
    return rank.strip("0") == ""


def read_number(
    environ: Mapping[str, str],
    name: str,
    problems: List[str],
    default: Optional[int] = None,
) -> int:
    """Return the whole number in a variable.

    Args:
        environ: Environment variables of the process.
        name: Name of the variable.
        problems: List to which a message is appended if the value is missing or is not
            a number.
        default: Value of a variable that is empty or not set; None if it must be set.

    Returns:
        The number.  After a problem, the default, or 0 without one.
    """
    text = environ.get(name, "")
    if text.isdecimal() and len(text) <= 9:
        return int(text)
    if text or default is None:
        seen = f"is {text!r}" if text else "is not set"
        problems.append(f"{name} {seen}: must be a whole number, e.g. 1")
    return default or 0


def read_num_threads(environ: Mapping[str, str]) -> int:
    """Return the number of CPU threads of this rank; 0 means all cores.

    Raises:
        ConfigError: The value is not a number.
    """
    return _read_alone(environ, NUM_THREADS, 0)


def read_gpu(environ: Mapping[str, str], local_rank: int) -> int:
    """Return the index of this rank's GPU among the devices that CUDA shows.

    Args:
        environ: Environment variables of the process.
        local_rank: Rank within its server, which is the index under other launchers.

    Raises:
        ConfigError: The value is not a number.
    """
    return _read_alone(environ, GPU, local_rank)


def read_heartbeat(environ: Mapping[str, str]) -> Optional[int]:
    """Return the descriptor to which this rank writes heartbeats, or None.

    It must belong to an open file without a name.  A wrong value can therefore never
    overwrite a file of the user.

    Raises:
        ConfigError: The value is not such a descriptor.
    """
    text = environ.get(HEARTBEAT, "")
    if not text:
        return None
    try:
        status = os.fstat(int(text))
    except (ValueError, OverflowError, OSError):
        status = None
    if not status or not stat.S_ISREG(status.st_mode) or status.st_nlink:
        raise ConfigError(
            f"{HEARTBEAT} is {text!r}: only the launcher of --rank_table sets this "
            "variable; unset it",
            "environment",
        )
    return int(text)


def check_horovod(environ: Mapping[str, str]) -> None:
    """Check the variables of Horovod, which hangs or crashes if they are wrong.

    Raises:
        ConfigError: Variables are wrong; the message names all of them.
    """
    problems: List[str] = []
    num_ranks = 1
    for rank_name, size_name in _HOROVOD_PLACES:
        if rank_name == HOROVOD_CROSS_RANK and rank_name not in environ:
            continue  # Older launchers do not set it, and Horovod computes it.
        before = len(problems)
        rank = read_number(environ, rank_name, problems)
        size = read_number(environ, size_name, problems)
        num_ranks = max(num_ranks, size)
        if len(problems) == before and rank >= size:
            problems.append(
                f"{rank_name} is {rank}: must be below {size_name} = {size}"
            )
    # The other controller, MPI, needs no rendezvous.
    if num_ranks > 1 and environ.get(HOROVOD_CONTROLLER, "gloo") == "gloo":
        if not environ.get(HOROVOD_ADDRESS):
            problems.append(f"{HOROVOD_ADDRESS} is not set: must be a server's address")
        before = len(problems)
        port = read_number(environ, HOROVOD_PORT, problems)
        if len(problems) == before and not 0 < port < 1 << 16:
            problems.append(f"{HOROVOD_PORT} is {port}: must be a port, 1 to 65535")
    if problems:
        problems.append("start ranks with --rank_table, which sets all of these")
    _raise(problems)


def read_start_timeout_secs(environ: Mapping[str, str]) -> int:
    """Return how many seconds the launchers of several servers wait for each other.

    Raises:
        ConfigError: The value is not a number.
    """
    return _read_alone(environ, HOROVOD_START_TIMEOUT, 600)


def ignore_tf_config(environ: MutableMapping[str, str]) -> None:
    """Remove TF_CONFIG with a warning, or raise an error if it describes a cluster.

    Kubeflow, TonY and Spark set it.  With it, an Estimator would wait for parameter
    servers that nobody starts, because the ranks of this program come from a rank
    table.  A rank and a process that is alone in its cluster do not need it.

    Raises:
        ConfigError: It describes several tasks, but this process is not a rank.
    """
    text = environ.get(TF_CONFIG)
    if text is None:
        return
    num_tasks = _count_tasks(text)
    if num_tasks > 1 and not is_rank(environ):
        raise ConfigError(
            f"{TF_CONFIG} describes a cluster of {num_tasks} tasks, but the ranks of "
            "this program come from a rank table: give --rank_table=FILE on every "
            f"server, or unset {TF_CONFIG} to train on this one alone",
            "environment",
        )
    warn(TF_CONFIG_IS_IGNORED)
    del environ[TF_CONFIG]


def _count_tasks(tf_config: str) -> int:
    """Return the number of tasks in TF_CONFIG; 0 if it describes no cluster."""
    try:
        cluster = json.loads(tf_config)["cluster"]
        return sum(len(tasks) for tasks in cluster.values())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return 0


def _read_alone(environ: Mapping[str, str], name: str, default: int) -> int:
    """Return the number in a variable, or raise an error if it is wrong."""
    problems: List[str] = []
    number = read_number(environ, name, problems, default)
    _raise(problems)
    return number


def _raise(problems: List[str]) -> None:
    if problems:
        raise ConfigError(problems, "environment")
