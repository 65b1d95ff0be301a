"""The environment of each rank: who it is, whom it talks to, which cores it has."""

import dataclasses
import os
import re
from typing import Dict, List, Mapping, Optional, Sequence, Set, Tuple

from alexnet_estimator.errors import ConfigError
from alexnet_estimator.rank_environment import GPU, NUM_THREADS
from alexnet_estimator.rank_table.local import interface_of
from alexnet_estimator.rank_table.topology import Device, Topology

LOOPBACK = "127.0.0.1"
# HCCL takes the members of a group from a table or from these, never from both.
TABLE_RIVALS = (
    "CM_CHIEF_IP",
    "CM_CHIEF_PORT",
    "CM_CHIEF_DEVICE",
    "CM_WORKER_SIZE",
    "CM_WORKER_IP",
)


@dataclasses.dataclass(frozen=True)
class Rank:
    """One process to start.

    Args:
        rank: over all servers.
        local_rank: on this server.
        environment: all of its variables.
        cores: the CPU cores it is bound to; () for no binding.
    """

    rank: int
    local_rank: int
    environment: Dict[str, str] = dataclasses.field(repr=False)
    cores: Tuple[int, ...] = ()


def plan(
    topology: Topology,
    server_id: str,
    backend: str,
    rendezvous_port: int = 0,
    environ: Optional[Mapping[str, str]] = None,
) -> List[Rank]:
    """Return the processes that one server has to start.

    Args:
        topology: the whole job.
        server_id: the server.
        backend: ``npu`` (HCCL) or ``horovod`` (Gloo).
        rendezvous_port: where Horovod's ranks find each other, on the first server.
        environ: the user's variables, all of which reach the ranks; by default those
            of this process.

    Raises:
        ConfigError: variables that contradict the table.
    """
    base = dict(os.environ if environ is None else environ)
    devices = topology.devices_of(server_id)
    if backend == "npu":
        specific = _npu_variables(topology, devices, base)
        base.pop("POD_NAME", None)  # npu_bridge would take it in place of RANK_ID.
    elif backend == "horovod":
        specific = _horovod_variables(topology, server_id, rendezvous_port, base)
    else:
        raise ValueError(f"backend is {backend!r}: must be npu or horovod")
    shares = _share_cores(sorted(os.sched_getaffinity(0)), len(devices))
    return [
        Rank(device.rank, i, {**_defaults(shares[i]), **base, **specific[i]}, shares[i])
        for i, device in enumerate(devices)
    ]


def _defaults(cores: Sequence[int]) -> Dict[str, str]:
    """Return the variables that give way to the user's."""
    num_threads = str(max(1, len(cores)))
    return {
        "OMP_NUM_THREADS": num_threads,
        NUM_THREADS: num_threads,
        "PYTHONUNBUFFERED": "1",
        "PYTHONFAULTHANDLER": "1",
    }


def _share_cores(cores: Sequence[int], num_ranks: int) -> List[Tuple[int, ...]]:
    """Divide the cores; nobody is bound where they are fewer than the ranks."""
    if len(cores) < num_ranks:
        return [()] * num_ranks
    ends = [len(cores) * i // num_ranks for i in range(num_ranks + 1)]
    return [tuple(cores[start:end]) for start, end in zip(ends, ends[1:])]


def _npu_variables(
    topology: Topology, devices: Sequence[Device], base: Mapping[str, str]
) -> List[Dict[str, str]]:
    rivals = [name for name in TABLE_RIVALS if name in base]
    if rivals:
        raise ConfigError(
            f"{', '.join(rivals)} in the environment and a rank table exclude each "
            "other: unset the former or leave out --rank_table",
            topology.path,
        )
    logical_ids = _logical_ids(topology, devices, base)
    return [
        {
            "JOB_ID": base.get("JOB_ID", "alexnet_estimator"),
            "RANK_ID": str(device.rank),
            "RANK_SIZE": str(topology.num_ranks),
            "RANK_TABLE_FILE": topology.path,
            "ASCEND_DEVICE_ID": str(logical_id),
            "DEVICE_ID": str(device.device_id),
            "HCCL_CONNECT_TIMEOUT": base.get("HCCL_CONNECT_TIMEOUT", "600"),
        }
        for device, logical_id in zip(devices, logical_ids)
    ]


def _logical_ids(
    topology: Topology, devices: Sequence[Device], base: Mapping[str, str]
) -> List[int]:
    """Number the devices as this container does: from 0, those that it sees."""
    visible = _parse_ids(base.get("ASCEND_VISIBLE_DEVICES", ""))
    if not visible:
        return [device.device_id for device in devices]
    hidden = [str(d.device_id) for d in devices if d.device_id not in visible]
    if hidden:
        raise ConfigError(
            f"device {', '.join(hidden)} is not visible here: ASCEND_VISIBLE_DEVICES "
            f"is {base['ASCEND_VISIBLE_DEVICES']}",
            topology.path,
        )
    return [visible.index(device.device_id) for device in devices]


def _parse_ids(text: str) -> List[int]:
    """Read ``0,2``, ``0-3,6`` or ``Ascend910-0,Ascend910-1``; [] for other words."""
    ids: Set[int] = set()
    for part in text.split(","):
        found = re.fullmatch(r"\s*(?:(\d{1,3})-|Ascend\w+-)?(\d{1,3})\s*", part)
        if not found:
            return []
        last = int(found.group(2))
        ids.update(range(int(found.group(1) or last), last + 1))
    return sorted(ids)


def _horovod_variables(
    topology: Topology, server_id: str, port: int, base: Mapping[str, str]
) -> List[Dict[str, str]]:
    """Return what Horovod's own launcher would set, for each rank of a server."""
    servers, devices = topology.servers, topology.devices_of(server_id)
    address = rendezvous_address(topology)
    shared = {
        "HOROVOD_SIZE": str(topology.num_ranks),
        "HOROVOD_LOCAL_SIZE": str(len(devices)),
        "HOROVOD_CROSS_RANK": str(servers.index(server_id)),
        "HOROVOD_CROSS_SIZE": str(len(servers)),
        "HOROVOD_HOSTNAME": server_id,
        "HOROVOD_CONTROLLER": "gloo",
        "HOROVOD_CPU_OPERATIONS": "gloo",
        "HOROVOD_GLOO_RENDEZVOUS_ADDR": address,
        "HOROVOD_GLOO_RENDEZVOUS_PORT": str(port),
        # Its 30 s are short where eight ranks load TensorFlow on few cores.
        "HOROVOD_GLOO_TIMEOUT_SECONDS": base.get("HOROVOD_GLOO_TIMEOUT_SECONDS", "120"),
    }
    own_address = server_id if len(servers) > 1 else LOOPBACK
    interface = base.get("HOROVOD_GLOO_IFACE") or interface_of(own_address)
    if interface:
        shared["HOROVOD_GLOO_IFACE"] = interface
    return [
        {
            **shared,
            "HOROVOD_RANK": str(device.rank),
            "HOROVOD_LOCAL_RANK": str(local_rank),
            GPU: str(device.device_id),
        }
        for local_rank, device in enumerate(devices)
    ]


def rendezvous_address(topology: Topology) -> str:
    """Return the address at which Horovod's ranks find each other."""
    return topology.servers[0] if len(topology.servers) > 1 else LOOPBACK
