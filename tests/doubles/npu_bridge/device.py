"""The device of this process, and the graphs and options that it refuses."""

import hashlib
import json
import os
import threading
from typing import Any, List, Optional

import numpy as np
import tensorflow as tf
from npu_bridge.facts import FACTS, RELEASE
from npu_bridge.ranks import Group


class Refused(RuntimeError):
    """Raised if the real package, its C++ part or the device would refuse or hang."""


gradient_split: Optional[List[float]] = None
# Whether a session.run is a step within a loop, which a real device takes by itself.
is_looping = False
_lock = threading.Lock()
_group: Optional[Group] = None
_is_initialised = False
_num_steps = 0


def rank_size() -> int:
    """Return RANK_SIZE as npu_bridge reads it."""
    if "CM_WORKER_SIZE" in os.environ and "RANK_SIZE" in os.environ:
        raise ValueError("RANK_SIZE and CM_WORKER_SIZE are both set")
    return int(os.environ.get("RANK_SIZE", os.environ.get("CM_WORKER_SIZE", "1")))


def initialise() -> None:
    """Start the device, and also HCCL if there is a rank table."""
    global _group, _is_initialised
    device_id = os.environ.get("ASCEND_DEVICE_ID", "0")
    if not device_id.isdigit():
        raise Refused(f"ASCEND_DEVICE_ID is invalid: {device_id}")
    with _lock:
        if _group is None and rank_size() > 1:
            _check_table(os.environ.get("RANK_TABLE_FILE", ""), int(device_id))
            timeout_secs = float(os.environ.get("NPU_DOUBLE_TIMEOUT_SECS", "120"))
            rank = int(os.environ["RANK_ID"])
            _group = Group(rank, rank_size(), _address(), timeout_secs)
        _is_initialised = True


def shut_down() -> None:
    """Stop the device; HCCL's queries fail from now on."""
    global _is_initialised
    _is_initialised = False


def require_initialised(what: str) -> None:
    """Fail like HCCL's Python functions if the group is not formed yet."""
    if not _is_initialised:
        raise ValueError(f"{what}. ret[4]")


def group() -> Group:
    """Return the ranks that this process trains with."""
    initialise()
    if _group is None:
        raise Refused("a collective operator, but RANK_SIZE is not above 1")
    return _group


def read_overflow(*gradients: np.ndarray) -> np.ndarray:
    """Return the overflow flag of this step, float32 [1], and clear it."""
    global _num_steps
    _num_steps += 1
    rank = os.environ.get("RANK_ID", "0")
    marks = os.environ.get("NPU_DOUBLE_OVERFLOW", "").split(",")
    is_marked = f"{rank}:{_num_steps}" in marks or f"{rank}:*" in marks
    has_overflowed = not all(np.isfinite(gradient).all() for gradient in gradients)
    return np.array([is_marked or has_overflowed], np.float32)


def spoil(value: np.ndarray) -> np.ndarray:
    """Return the result of a collective, slightly changed on the configured rank."""
    is_asked = os.environ.get("NPU_DOUBLE_WRONG") == os.environ.get("RANK_ID", "0")
    return value * np.float32(1.001) if is_asked and value.dtype == "f4" else value


def check_options(options: Any) -> None:
    """Refuse options that the C++ part of the adapter refuses when a session starts.

    Args:
        options: Parameter map of the NpuOptimizer.
    """
    era = "from_2023" if RELEASE[-7:] >= "2023" else "before_2023"
    known = FACTS["precision_modes"][era]
    mode = options["precision_mode"].s.decode() if "precision_mode" in options else ""
    if mode and mode not in known:
        raise Refused(f"precision_mode {mode} is not one of {known}")
    if "modify_mixlist" in options and not mode.startswith("allow_mix_precision"):
        raise Refused(f"modify_mixlist with precision_mode {mode}")


def check_graph(graph: tf.Graph, iterations_per_loop: int) -> None:
    """Refuse operators that do not run on the device, or not in its loop."""
    for op in graph.get_operations():
        if op.type == "OneShotIterator" and iterations_per_loop > 1:
            raise Refused("a one-shot iterator with iterations_per_loop > 1")
        if op.type in ("IteratorGetNext", "Placeholder"):
            for tensor in op.outputs:
                if not tensor.shape.is_fully_defined():
                    raise Refused(f"dynamic shape {tensor.shape} of {tensor.name}")
        if op.type.endswith("Summary") or op.type.startswith("WriteSummary"):
            raise Refused(f"the summary {op.name} outside of a host_call")
        is_ours = op.name.split("/")[-1].startswith(("Hcom", "Npu"))
        if op.type in ("PyFunc", "EagerPyFunc") and not is_ours:
            raise Refused(f"the Python function {op.name} in the offloaded graph")


def _check_table(path: str, device_id: int) -> None:
    if not path.endswith(".json") or not os.path.isfile(path):
        raise Refused(f"EI0004: RANK_TABLE_FILE is {path!r}")
    with open(path, encoding="utf-8") as file:
        table = json.load(file)
    if table.get("status") != "completed":
        raise Refused(f"the rank table's status is {table.get('status')}")
    if "server_list" not in table:
        return  # The ranks of a legacy format are not checked here.
    devices = {
        int(device["rank_id"]): int(device["device_id"])
        for server in table["server_list"]
        for device in server["device"]
    }
    rank = int(os.environ["RANK_ID"])
    if len(devices) != rank_size() or devices.get(rank) != device_id:
        raise Refused(
            f"EI0004: rank {rank} of {rank_size()} on device {device_id}, but the rank "
            f"table has {devices}"
        )


def _address() -> str:
    job = os.environ.get("JOB_ID", "") + os.environ["RANK_TABLE_FILE"]
    return "npu-double-" + hashlib.sha1(job.encode()).hexdigest()
