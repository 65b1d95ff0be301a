"""Checks of the software, devices and network that an NPU needs."""

import glob
import inspect
import os
import shutil
from typing import Callable, List, Mapping, Optional, Sequence

from alexnet_estimator.finding import Finding, advise, require
from alexnet_estimator.rank_table import Topology, is_own_address
from alexnet_estimator.rank_table.local import local_device_ips
from alexnet_estimator.rank_table.topology import Device

# The script of the newest release comes first.
SET_ENV_SCRIPTS = (
    "/usr/local/Ascend/cann/set_env.sh",
    "/usr/local/Ascend/ascend-toolkit/set_env.sh",
    "/usr/local/Ascend/nnae/set_env.sh",
)
DEVICES = "/dev/davinci[0-9]*"
CONTROL_DEVICES = ("/dev/davinci_manager", "/dev/devmm_svm", "/dev/hisi_hdc")
DRIVER_VERSION = "/usr/local/Ascend/driver/version.info"
NPU_SMI_FOLDERS = "/usr/local/bin:/usr/local/sbin"


def examine_npu(
    environ: Mapping[str, str],
    topology: Optional[Topology],
    import_adapter: Callable[[], type],
) -> List[Finding]:
    """Return the findings on the vendor's software, the devices and their network.

    Args:
        environ: Environment variables of this process.
        topology: Ranks of the job; None for one rank without a rank table.
        import_adapter: Function that returns the class NPURunConfig of npu_bridge.
    """
    findings = [_examine_adapter(import_adapter), _examine_cann(environ)]
    devices = topology.devices if topology else ()
    own = [device for device in devices if is_own_address(device.server_id)]
    findings += [_examine_devices(len(own)), _examine_driver(), _examine_npu_smi()]
    return findings + ([_examine_network(topology, own)] if topology else [])


def _examine_adapter(import_adapter: Callable[[], type]) -> Finding:
    try:
        parameters = inspect.signature(import_adapter()).parameters
    except Exception as error:  # Incompatible libraries can raise any error.
        message = str(error).splitlines()[0]
        return Finding(
            "npu_bridge", "failure", message, "see docs/ascend.md, section 2"
        )
    age = "of 2023 or later" if "precision_mode_v2" in parameters else "before 2023"
    return Finding("npu_bridge", "ok", f"a release {age}")


def _examine_cann(environ: Mapping[str, str]) -> Finding:
    home = environ.get("ASCEND_HOME_PATH") or environ.get("ASCEND_OPP_PATH") or ""
    scripts = [script for script in SET_ENV_SCRIPTS if os.path.isfile(script)]
    remedy = f"run `source {(scripts or SET_ENV_SCRIPTS)[0]}` in this shell"
    seen = home or "neither ASCEND_HOME_PATH nor ASCEND_OPP_PATH is set"
    return require("CANN", os.path.isdir(home), seen, remedy)


def _examine_devices(num_needed: int) -> Finding:
    devices = glob.glob(DEVICES)
    closed = [
        path
        for path in (*devices, *CONTROL_DEVICES)
        if not os.access(path, os.R_OK | os.W_OK)
    ]
    seen = f"{len(devices)} NPUs" + (
        f", no access to {', '.join(closed)}" * bool(closed)
    )
    num_needed = max(1, num_needed)
    remedy = (
        f"{num_needed} are needed: give the container its devices (`docker run "
        "--device=...`, docs/ascend.md) and the user their group, HwHiAiUser"
    )
    is_good = len(devices) >= num_needed and not closed
    return require("devices", is_good, seen, remedy)


def _examine_driver() -> Finding:
    try:
        with open(DRIVER_VERSION, encoding="utf-8", errors="replace") as file:
            seen = file.readline().strip()
    except OSError as error:
        seen = f"{DRIVER_VERSION}: {error.strerror}"
        remedy = "install the driver, or mount /usr/local/Ascend/driver"
        return Finding("driver", "failure", seen, remedy)
    return Finding("driver", "ok", seen)


def _examine_npu_smi() -> Finding:
    path = shutil.which("npu-smi") or shutil.which("npu-smi", path=NPU_SMI_FOLDERS)
    remedy = "mount it to see temperature and memory of the devices (docs/ascend.md)"
    return advise("npu-smi", path is not None, path or "not found", remedy)


def _examine_network(topology: Topology, devices: Sequence[Device]) -> Finding:
    """Compare the addresses in the rank table with those of this server's devices."""
    numbers = [device.device_id for device in devices]
    own = local_device_ips(max(numbers, default=-1) + 1)
    if not devices or not own:
        seen = "the addresses of the devices are unknown"
        remedy = "mount /etc/hccn.conf, or give the ports addresses with hccn_tool"
        is_needed = topology.num_ranks > 1
        return advise("hccn.conf", not is_needed, seen, remedy)
    wrong = [
        f"device {d.device_id} has {own[d.device_id]}, the rank table has {d.device_ip}"
        for d in devices
        if d.device_ip and d.device_ip != own[d.device_id]
    ]
    seen = "; ".join(wrong) or "its addresses match the rank table"
    return require("hccn.conf", not wrong, seen, "create a new one: rank_table make")
