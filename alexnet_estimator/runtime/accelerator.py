"""What is known of an accelerator before a runtime is made for it."""

import abc
import importlib
import os
from typing import List, Mapping, MutableMapping, Optional, Tuple

from alexnet_estimator import engine, rank_environment
from alexnet_estimator.config import Config
from alexnet_estimator.errors import ConfigError
from alexnet_estimator.finding import Finding
from alexnet_estimator.rank_table import Topology
from alexnet_estimator.runtime.base import Runtime
from alexnet_estimator.schema import ACCELERATORS, PRECISION_ALIASES


class Accelerator(abc.ABC):
    """A kind of hardware that trains: NPUs, GPUs or the CPU itself.

    A new one is a class like this in a module of ``runtime/``, a launch environment in
    ``launch.BACKENDS`` (unless it uses one that is there) and a line of
    ``schema.ACCELERATORS``.

    Attributes:
        can_loop: See ``Runtime``.
        precision_modes: Values of ``precision.mode`` that it can do; the first one is
            what ``auto`` stands for.
    """

    can_loop = False
    precision_modes: Tuple[str, ...] = (
        "must_keep_origin_dtype",
        "allow_mix_precision",
    )

    @abc.abstractmethod
    def is_present(self) -> bool:
        """Return whether this machine has it, so that ``--device=auto`` takes it."""

    def find_problems(self) -> List[str]:
        """Return what keeps this machine from using it, and the remedies."""
        return []

    def examine(
        self, environ: Mapping[str, str], topology: Optional[Topology]
    ) -> List[Finding]:
        """Return what ``doctor`` finds of its software, devices and network.

        Args:
            environ: Variables of this process.
            topology: Ranks of the job; None: one rank without a table.
        """
        return []

    @abc.abstractmethod
    def make_runtime(
        self, config: Config, environ: MutableMapping[str, str]
    ) -> Runtime:
        """Return the runtime of this process.

        Args:
            config: Configuration, with the precision mode settled.
            environ: Variables by which a launcher tells this process its rank.

        Raises:
            ConfigError: The accelerator cannot be used.
        """

    def prepare_profile(self, config: Config, folder: str) -> None:
        """Ask for the profile that the vendor's tools write, if there is one.

        Args:
            config: Configuration, changed in place.
            folder: Existing folder for the profile.
        """


def find_accelerator(name: str) -> Accelerator:
    """Return the accelerator that is registered under a name."""
    module, _, attribute = ACCELERATORS[name].accelerator.partition(":")
    return getattr(importlib.import_module(module), attribute)()


def settle_device(device: str) -> str:
    """Return the name of the accelerator for ``runtime.device``, also for ``auto``.

    Raises:
        ConfigError: This machine or its TensorFlow has no such device.
    """
    if device == "auto":
        # In the order of registration; the last one, the CPU, is always present.
        device = next(
            name for name in ACCELERATORS if find_accelerator(name).is_present()
        )
    problems = engine.lacking(device, ACCELERATORS[device].adapter)
    problems = problems or find_accelerator(device).find_problems()
    if problems:
        raise ConfigError(problems)
    return device


def settle_precision(mode: str, device: str) -> str:
    """Return the precision mode that an accelerator uses for ``precision.mode``.

    Args:
        mode: Value of the configuration: ``auto``, a mode or an alias of one.
        device: Name of the accelerator; ``auto``: it is on another machine.

    Raises:
        ConfigError: The accelerator cannot do the mode.
    """
    if device == "auto":
        return mode
    known = find_accelerator(device).precision_modes
    mode = known[0] if mode == "auto" else PRECISION_ALIASES.get(mode, mode)
    if mode not in known:
        able = [n for n in ACCELERATORS if mode in find_accelerator(n).precision_modes]
        raise ConfigError(
            f"precision.mode is {mode!r}, which a {device} does not have "
            f"(--device={' or '.join(able)} does); use " + " or ".join(known)
        )
    return mode


def make_runtime(
    config: Config, environ: MutableMapping[str, str] = os.environ
) -> Runtime:
    """Return the runtime of this process.

    Args:
        config: Configuration, which stays as it is.
        environ: Variables by which a launcher tells this process its rank; loses
            ``TF_CONFIG``.

    Raises:
        ConfigError: The device is not there, or cannot do the precision mode; or what
            a launcher has set contradicts itself.
    """
    rank_environment.ignore_tf_config(environ)
    device = settle_device(config.runtime.device)
    settled = Config(config.to_dict())
    settled.precision.mode = settle_precision(config.precision.mode, device)
    runtime = find_accelerator(device).make_runtime(settled, environ)
    runtime.heartbeat = rank_environment.read_heartbeat(environ)
    return runtime
