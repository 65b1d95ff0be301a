"""The interface of accelerators, which create the runtimes."""

import abc
import importlib
import os
from typing import TYPE_CHECKING, List, Mapping, MutableMapping, Optional, Tuple

from alexnet_estimator import engine, rank_environment
from alexnet_estimator.config import Config
from alexnet_estimator.errors import ConfigError
from alexnet_estimator.finding import Finding
from alexnet_estimator.rank_table import Topology
from alexnet_estimator.schema import ACCELERATORS, PRECISION_ALIASES

if TYPE_CHECKING:  # This module is used without TensorFlow, too.
    from alexnet_estimator.runtime.base import Runtime


class Accelerator(abc.ABC):
    """A kind of hardware for training: NPUs, GPUs or the CPU.

    A new accelerator needs a subclass in a module of ``runtime/``, a line in
    ``schema.ACCELERATORS`` and, unless it uses an existing one, a launch backend in
    ``launch.BACKENDS``.

    Attributes:
        can_loop: Whether one call can take several steps, see ``Runtime``.
        precision_modes: Supported values of ``precision.mode``; ``auto`` stands for the
            first one.
        gradient_compressions: Supported values of ``precision.gradient_compression``.
    """

    can_loop = False
    precision_modes: Tuple[str, ...] = (
        "must_keep_origin_dtype",
        "allow_mix_precision",
    )
    gradient_compressions: Tuple[str, ...] = ("none",)

    @abc.abstractmethod
    def is_present(self) -> bool:
        """Return whether ``--device=auto`` finds this accelerator on the machine."""

    def find_problems(self) -> List[str]:
        """Return the problems that prevent its use on this machine, with remedies."""
        return []

    def examine(
        self, environ: Mapping[str, str], topology: Optional[Topology]
    ) -> List[Finding]:
        """Return the findings of ``doctor`` on its software, devices and network.

        Args:
            environ: Environment variables of this process.
            topology: Ranks of the job; None for one rank without a rank table.
        """
        return []

    @abc.abstractmethod
    def make_runtime(
        self, config: Config, environ: MutableMapping[str, str]
    ) -> "Runtime":
        """Return the runtime of this process.

        Args:
            config: Configuration whose precision mode is resolved.
            environ: Environment variables, which tell this process its rank.

        Raises:
            ConfigError: The accelerator cannot be used.
        """

    def prepare_profile(self, config: Config, folder: str) -> None:
        """Enable the profiler of the vendor, if there is one.

        Args:
            config: Configuration, which is changed in place.
            folder: Existing folder for the profile.
        """


def find_accelerator(name: str) -> Accelerator:
    """Return the accelerator that is registered under a name."""
    module, _, attribute = ACCELERATORS[name].accelerator.partition(":")
    return getattr(importlib.import_module(module), attribute)()


def settle_device(device: str) -> str:
    """Return the name of the accelerator for ``runtime.device``, resolving ``auto``.

    Raises:
        ConfigError: The machine or its TensorFlow does not have this device.
    """
    if device == "auto":
        # The first one that is present is chosen; the last one, the CPU, always is.
        device = next(
            name for name in ACCELERATORS if find_accelerator(name).is_present()
        )
    problems = engine.lacking(device, ACCELERATORS[device].adapter)
    problems = problems or find_accelerator(device).find_problems()
    if problems:
        raise ConfigError(problems)
    return device


def find_launch_backend(device: str) -> str:
    """Return the name of the launch backend for ``runtime.device``.

    GPUs and CPU have the same backend, so ``auto`` does not ask TensorFlow for GPUs.

    Raises:
        ConfigError: The machine or its TensorFlow does not have this device.
    """
    names = list(ACCELERATORS) if device == "auto" else [settle_device(device)]
    while len({ACCELERATORS[name].launch_backend for name in names}) > 1:
        is_present = find_accelerator(names[0]).is_present()
        names = [settle_device(names[0])] if is_present else names[1:]
    return ACCELERATORS[names[0]].launch_backend


def settle_precision(mode: str, device: str) -> str:
    """Return the precision mode that an accelerator uses for ``precision.mode``.

    Args:
        mode: Value of the configuration: ``auto``, a mode or an alias of a mode.
        device: Name of the accelerator; ``auto`` if it is on another machine.

    Raises:
        ConfigError: The accelerator does not support the mode.
    """
    if device == "auto":
        return mode
    known = find_accelerator(device).precision_modes
    mode = known[0] if mode == "auto" else PRECISION_ALIASES.get(mode, mode)
    if mode not in known:
        able = [n for n in ACCELERATORS if mode in find_accelerator(n).precision_modes]
        raise ConfigError(
            f"precision.mode is {mode!r}, which --device={device} does not support "
            f"(--device={' or '.join(able)} does): use " + " or ".join(known)
        )
    return mode


def check_gradient_compression(kind: str, device: str) -> None:
    """Check that an accelerator supports ``precision.gradient_compression``.

    Args:
        kind: Value of the configuration.
        device: Name of the accelerator; ``auto`` if it is on another machine.

    Raises:
        ConfigError: The accelerator does not support this compression.
    """
    if device != "auto":
        known = find_accelerator(device).gradient_compressions
        if kind not in known:
            raise ConfigError(
                f"precision.gradient_compression is {kind!r}, which --device={device} "
                "does not support: use " + " or ".join(known)
            )


def make_runtime(
    config: Config, environ: MutableMapping[str, str] = os.environ
) -> "Runtime":
    """Return the runtime of this process.

    Args:
        config: Configuration, which stays unchanged.
        environ: Environment variables, which tell this process its rank; ``TF_CONFIG``
            is removed from them.

    Raises:
        ConfigError: The device is missing or does not support the precision mode, or
            the environment variables of the rank are wrong.
    """
    rank_environment.ignore_tf_config(environ)
    device = settle_device(config.runtime.device)
    settled = Config(config.to_dict())
    settled.precision.mode = settle_precision(config.precision.mode, device)
    runtime = find_accelerator(device).make_runtime(settled, environ)
    runtime.heartbeat = rank_environment.read_heartbeat(environ)
    return runtime
