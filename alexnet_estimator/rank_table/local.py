"""Finds this machine among the servers of a table, and the addresses of its devices."""

import fcntl
import ipaddress
import re
import shutil
import socket
import struct
import subprocess
from typing import Dict, List, Optional

from alexnet_estimator.errors import ConfigError
from alexnet_estimator.rank_table.topology import Topology

SIOCGIFADDR = 0x8915  # Request of Linux for the IPv4 address of an interface.
HCCN_CONF = "/etc/hccn.conf"
HCCN_TOOL = "hccn_tool"
HCCN_TOOL_DIRECTORY = "/usr/local/Ascend/driver/tools"
HCCN_TOOL_SECS = 10


def local_server(topology: Topology, server_id: Optional[str] = None) -> str:
    """Return the id of the server on which this process runs.

    Args:
        topology: Topology of the job.
        server_id: Id of this server; None to find it by the addresses of the machine.
            It has to be given in a container that has a separate network, because the
            container does not know the address of the server.

    Raises:
        ConfigError: The server is not in the table, or cannot be determined.
    """
    servers = topology.servers
    if server_id is not None:
        if server_id in servers:
            return server_id
        raise ConfigError(
            f"server {server_id} is not in the table; it has {', '.join(servers)}",
            topology.path,
        )
    if len(servers) == 1:
        return servers[0]
    own = [server for server in servers if is_own_address(server)]
    if len(own) == 1:
        return own[0]
    if own:
        found = f"{' and '.join(own)} are all addresses of this machine"
    else:
        addresses = ", ".join(sorted(set(own_addresses().values())))
        found = f"this machine has none of these addresses, but {addresses}"
    raise ConfigError(
        f"the servers are {', '.join(servers)}; {found}: say which one this is "
        "with --server_id",
        topology.path,
    )


def is_own_address(server_id: str) -> bool:
    """Return whether an IP address or host name belongs to this machine."""
    try:
        address = ipaddress.ip_address(server_id)
    except ValueError:
        return server_id == socket.gethostname()
    if address.is_unspecified:
        return False
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            # The kernel refuses to bind an address of another machine.
            probe.bind((server_id, 0))
    except OSError:
        return False
    return True


def own_addresses() -> Dict[str, str]:
    """Return the first IPv4 address of each network interface, by its name."""
    addresses = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode()[:15])
            try:
                reply = fcntl.ioctl(control.fileno(), SIOCGIFADDR, request)
            except OSError:
                continue  # This interface has no IPv4 address.
            addresses[name] = socket.inet_ntoa(reply[20:24])
    return addresses


def interface_of(server_id: str) -> Optional[str]:
    """Return the network interface that has an address; None if there is none."""
    for name, address in own_addresses().items():
        # All of 127.0.0.0/8 belongs to the interface that has 127.0.0.1.
        is_loopback = address.startswith("127.") and server_id.startswith("127.")
        if address == server_id or is_loopback:
            return name
    return None


def local_device_ips(
    num_devices: int, conf_path: str = HCCN_CONF, tool: str = HCCN_TOOL
) -> List[str]:
    """Return the addresses of this server's devices; [] unless all of them are known.

    Args:
        num_devices: Number of devices, which are numbered from 0.
        conf_path: Path of the file that is read if the tool is missing or does not
            return all addresses.
        tool: Command of the driver that reads the configuration of the network ports.
    """
    command = shutil.which(tool) or shutil.which(tool, path=HCCN_TOOL_DIRECTORY)
    ips = [
        _ask_tool(command, device) if command else "" for device in range(num_devices)
    ]
    if not all(ips):
        try:
            with open(conf_path, encoding="utf-8", errors="replace") as file:
                known = parse_hccn_conf(file.read())
        except OSError:
            return []
        ips = [known.get(device, "") for device in range(num_devices)]
    return ips if all(ips) else []


def parse_hccn_conf(text: str) -> Dict[int, str]:
    """Return the addresses in the text of an ``hccn.conf``, by device."""
    found = re.findall(r"^\s*address_(\d{1,2})\s*=\s*([^\s#]+)", text, re.MULTILINE)
    return {int(device): address for device, address in found}


def parse_hccn_tool(text: str) -> str:
    """Return the address in the output of ``hccn_tool -i N -ip -g``, or ""."""
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
