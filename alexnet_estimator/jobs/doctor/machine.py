"""Checks of the machine that do not depend on the accelerator."""

import os
import pathlib
import shutil
import socket
import sys
import tempfile
import time
from typing import List, Optional

import alexnet_estimator
from alexnet_estimator import engine
from alexnet_estimator.finding import Finding, advise, require
from alexnet_estimator.machine import num_cores
from alexnet_estimator.rank_table import Topology, is_own_address

MIB = 1 << 20
MEMORY_MIB_PER_RANK = 2048  # TensorFlow, the weights and slots of AlexNet, and a batch.
DISK_MIB = 4096  # Three checkpoints of AlexNet need 1.5 GiB.
SHARED_MIB = 256
SHARED_MEMORY = "/dev/shm"
MEMINFO = "/proc/meminfo"


def examine_machine(topology: Optional[Topology], port: int) -> List[Finding]:
    """Return the findings on this machine.

    Args:
        topology: Ranks of the job; None for one rank.
        port: TCP port of the rendezvous; 0 for any free port.
    """
    servers = topology.servers if topology else ()
    here = [server for server in servers if is_own_address(server)]
    num_ranks = len(topology.devices_of(here[0])) if topology and here else 1
    return [
        _examine_interpreter(),
        Finding("TensorFlow", "ok", engine.describe_build()),
        _examine_folder(),
        _examine_disk(),
        _examine_memory(num_ranks),
        _examine_cores(num_ranks),
        _examine_shared_memory(num_ranks),
        _examine_port(here[0] if here else "127.0.0.1", port),
        _examine_clock(),
    ]


def _examine_interpreter() -> Finding:
    version = sys.version.split()[0]
    wanted = (3, 7) if engine.is_1_15() else sys.version_info[:2]
    remedy = "TensorFlow 1.15 needs Python 3.7: use the one of launch/setup_env.sh"
    is_good = sys.version_info[:2] == wanted
    return require(
        "interpreter", is_good, f"Python {version}, {sys.executable}", remedy
    )


def _examine_folder() -> Finding:
    """Check the working folder, to which the compiler of CANN writes."""
    folder = os.getcwd()
    try:
        with tempfile.TemporaryFile(dir=folder):
            return Finding("working folder", "ok", folder)
    except OSError as error:
        seen = f"{folder}: {error.strerror}"
        return Finding("working folder", "failure", seen, "change to a writable folder")


def _examine_disk() -> Finding:
    free_mib = shutil.disk_usage(os.getcwd()).free // MIB
    remedy = f"free disk space: a run of AlexNet writes up to {DISK_MIB} MiB"
    return advise("disk", free_mib >= DISK_MIB, f"{free_mib} MiB free", remedy)


def _examine_memory(num_ranks: int) -> Finding:
    lines = pathlib.Path(MEMINFO).read_text(encoding="utf-8").splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    free_mib = int(fields["MemAvailable"].split()[0]) // 1024
    needed_mib = num_ranks * MEMORY_MIB_PER_RANK
    remedy = f"{num_ranks} ranks need {needed_mib} MiB: use fewer, or a smaller batch"
    return advise("memory", free_mib >= needed_mib, f"{free_mib} MiB available", remedy)


def _examine_cores(num_ranks: int) -> Finding:
    remedy = f"{num_ranks} ranks share them: decoding pictures may be too slow"
    return advise("cores", num_cores() >= num_ranks, f"{num_cores()} cores", remedy)


def _examine_shared_memory(num_ranks: int) -> Finding:
    if not os.path.isdir(SHARED_MEMORY):
        seen, is_good = f"no {SHARED_MEMORY}", num_ranks == 1
    else:
        free_mib = shutil.disk_usage(SHARED_MEMORY).free // MIB
        seen, is_good = f"{free_mib} MiB free", free_mib >= SHARED_MIB or num_ranks == 1
    remedy = "start the container with --ipc=host or --shm-size=1g"
    return advise("shared memory", is_good, seen, remedy)


def _examine_port(address: str, port: int) -> Finding:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((address, port))
        except OSError as error:
            seen = f"{address}:{port}: {error.strerror}"
            remedy = "give another --rendezvous_port, or end the program that uses it"
            return Finding("ports", "failure", seen, remedy)
        return Finding("ports", "ok", f"{address}:{listener.getsockname()[1]} is free")


def _examine_clock() -> Finding:
    """Check the clock; if it is behind, files look new and certificates are invalid."""
    package = pathlib.Path(alexnet_estimator.__file__).parent
    newest = max(file.stat().st_mtime for file in package.rglob("*.py"))
    seen = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    remedy = "the clock is behind the files of this program: set it (NTP)"
    return advise("clock", time.time() > newest - 60, seen, remedy)
