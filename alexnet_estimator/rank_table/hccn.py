"""The addresses of this server's devices, as its driver knows them."""

import re
import shutil
import subprocess
from typing import Dict, List

HCCN_CONF = "/etc/hccn.conf"
HCCN_TOOL = "hccn_tool"
HCCN_TOOL_DIRECTORY = "/usr/local/Ascend/driver/tools"
HCCN_TOOL_SECS = 10


def local_device_ips(
    num_devices: int, conf_path: str = HCCN_CONF, tool: str = HCCN_TOOL
) -> List[str]:
    """Return the addresses of this server's devices; [] unless all are known.

    Args:
        num_devices: numbered from 0.
        conf_path: read where the tool is not installed or does not answer.
        tool: the driver's command that reads the network ports.
    """
    command = shutil.which(tool) or shutil.which(tool, path=HCCN_TOOL_DIRECTORY)
    ips: List[str] = []
    if command:
        ips = [_ask_tool(command, device) for device in range(num_devices)]
    if not all(ips) or not ips:
        conf = _read_conf(conf_path)
        ips = [conf.get(device, "") for device in range(num_devices)]
    return ips if all(ips) else []


def parse_hccn_conf(text: str) -> Dict[int, str]:
    """Return the addresses in an ``hccn.conf``, by device."""
    found = re.findall(r"^\s*address_(\d{1,2})\s*=\s*([^\s#]+)", text, re.MULTILINE)
    return {int(device): address for device, address in found}


def parse_hccn_tool(text: str) -> str:
    """Return the address that ``hccn_tool -i N -ip -g`` printed, or ""."""
    found = re.search(r"^\s*ipaddr\s*:\s*(\S+)", text, re.MULTILINE)
    return found.group(1) if found else ""


def _ask_tool(command: str, device: int) -> str:
    try:
        answer = subprocess.run(
            [command, "-i", str(device), "-ip", "-g"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=HCCN_TOOL_SECS,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return parse_hccn_tool(answer.stdout.decode("utf-8", "replace"))


def _read_conf(path: str) -> Dict[int, str]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return parse_hccn_conf(file.read())
    except OSError:
        return {}
