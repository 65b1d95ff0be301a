"""The environment variables by which a launcher tells a process its rank.

Our launcher writes them, as Horovod's and a cluster's do; the runtimes read them.  No
other module spells their names.  What is read here is checked: a wrong value is an
error that names the variable, and not a hang or the wrong device.
"""

import json
import os
import stat
from typing import List, Mapping, MutableMapping, Optional

from alexnet_estimator.console import warn
from alexnet_estimator.errors import ConfigError

# Of our launcher alone.
NUM_THREADS = "ALEXNET_NUM_THREADS"  # Threads of TensorFlow: a rank's share of cores.
GPU = "ALEXNET_GPU"  # Number of the rank's GPU: its device_id in the rank table.
HEARTBEAT = "ALEXNET_HEARTBEAT"  # An open descriptor, into which a rank beats.

# Of Ascend's HCCL and npu_bridge.
JOB_ID = "JOB_ID"
RANK_ID = "RANK_ID"
RANK_SIZE = "RANK_SIZE"
RANK_TABLE_FILE = "RANK_TABLE_FILE"
ASCEND_DEVICE_ID = "ASCEND_DEVICE_ID"  # As this container numbers its devices.
DEVICE_ID = "DEVICE_ID"  # As the server numbers its devices.
VISIBLE_DEVICES = "ASCEND_VISIBLE_DEVICES"
POD_NAME = "POD_NAME"  # npu_bridge takes it in place of RANK_ID.
HCCL_CONNECT_TIMEOUT = "HCCL_CONNECT_TIMEOUT"
# ascend-operator describes a group by these to pods that also have a rank table.  HCCL
# refuses both together.
CM_WORKER_SIZE = "CM_WORKER_SIZE"
CM_VARIABLES = (
    "CM_CHIEF_IP",
    "CM_CHIEF_PORT",
    "CM_CHIEF_DEVICE",
    "CM_WORKER_IP",
    CM_WORKER_SIZE,
    "CM_RANK",
)

# Of Horovod.
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

# Of TensorFlow's own way to train on several servers.
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
    """Return whether a launcher, ours or another, made this process a rank."""
    return is_horovod_rank(environ) or {RANK_ID, RANK_SIZE} <= set(environ)


def is_horovod_rank(environ: Mapping[str, str]) -> bool:
    """Return whether a launcher made this process a rank of a Horovod group."""
    return HOROVOD_RANK in environ


def is_first_rank(environ: Mapping[str, str]) -> bool:
    """Return whether this process is rank 0, or is no rank at all."""
    rank = environ.get(HOROVOD_RANK) or environ.get(RANK_ID) or "0"
    return rank.strip("0") == ""


def read_number(
    environ: Mapping[str, str],
    name: str,
    problems: List[str],
    default: Optional[int] = None,
) -> int:
    """Return the whole number in a variable, and append what is wrong to ``problems``.

    Args:
        environ: Variables of a process.
        name: Name of the variable.
        problems: List that gets a message where the value is missing or no number.
        default: Value of a variable that is empty or not set; None: it has to be set.

    Returns:
        The number, or the default (0 for None) after a problem.
    """
    text = environ.get(name, "")
    if text.isdecimal() and len(text) <= 9:
        return int(text)
    if text or default is None:
        seen = f"is {text!r}" if text else "is not set"
        problems.append(f"{name} {seen}: must be a whole number, e.g. 1")
    return default or 0


def read_num_threads(environ: Mapping[str, str]) -> int:
    """Return the number of CPU threads that the launcher grants; 0: all.

    Raises:
        ConfigError: The value is no number.
    """
    return _read_alone(environ, NUM_THREADS, 0)


def read_gpu(environ: Mapping[str, str], local_rank: int) -> int:
    """Return the number of this rank's GPU among those that CUDA shows.

    Args:
        environ: Variables of the process.
        local_rank: Number of the rank on its server, which other launchers count on.

    Raises:
        ConfigError: The value is no number.
    """
    return _read_alone(environ, GPU, local_rank)


def read_heartbeat(environ: Mapping[str, str]) -> Optional[int]:
    """Return the descriptor into which this rank beats; None: nobody listens.

    It is that of an open file without a name, so that no file of the user's can be
    overwritten, whatever stands in the variable.

    Raises:
        ConfigError: The value is no such descriptor.
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
    """Check what Horovod is going to read, which would hang or crash on mistakes.

    Raises:
        ConfigError: All that is wrong with the variables.
    """
    problems: List[str] = []
    num_ranks = 1
    for rank_name, size_name in _HOROVOD_PLACES:
        if rank_name == HOROVOD_CROSS_RANK and rank_name not in environ:
            continue  # Older launchers leave it to Horovod.
        before = len(problems)
        rank = read_number(environ, rank_name, problems)
        size = read_number(environ, size_name, problems)
        num_ranks = max(num_ranks, size)
        if len(problems) == before and rank >= size:
            problems.append(
                f"{rank_name} is {rank}: must be below {size_name} = {size}"
            )
    # With MPI, the other controller, ranks find each other without a rendezvous.
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
    """Return for how many seconds the launchers of several servers wait.

    Raises:
        ConfigError: The value is no number.
    """
    return _read_alone(environ, HOROVOD_START_TIMEOUT, 600)


def ignore_tf_config(environ: MutableMapping[str, str]) -> None:
    """Remove TF_CONFIG, with a warning, or refuse the cluster that it describes.

    Kubeflow, TonY and Spark set it.  An Estimator that sees it waits for parameter
    servers that nobody starts, while the ranks of this program are those of a rank
    table.  A process that is a rank, or that is alone in the cluster, needs none of it.

    Raises:
        ConfigError: It describes several tasks, and this process knows of no other.
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
    """Return the tasks in the value of TF_CONFIG; 0 where it describes no cluster."""
    try:
        cluster = json.loads(tf_config)["cluster"]
        return sum(len(tasks) for tasks in cluster.values())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return 0


def _read_alone(environ: Mapping[str, str], name: str, default: int) -> int:
    """Return the number in a variable that is read apart from others.

    Raises:
        ConfigError: The value is no number.
    """
    problems: List[str] = []
    number = read_number(environ, name, problems, default)
    _raise(problems)
    return number


def _raise(problems: List[str]) -> None:
    if problems:
        raise ConfigError(problems, "environment")
