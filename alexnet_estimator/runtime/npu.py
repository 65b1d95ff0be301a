"""Ascend NPUs as an accelerator, described without TensorFlow or ``npu_bridge``."""

import glob
import importlib.util
import json
from typing import TYPE_CHECKING, Any, List, Mapping, MutableMapping, Optional

from alexnet_estimator import engine
from alexnet_estimator.config import Config
from alexnet_estimator.errors import ConfigError
from alexnet_estimator.finding import Finding
from alexnet_estimator.rank_table import Topology
from alexnet_estimator.runtime.accelerator import Accelerator
from alexnet_estimator.runtime.npu_checks import examine_npu
from alexnet_estimator.schema import PRECISION_MODES

if TYPE_CHECKING:
    from alexnet_estimator.runtime.npu_runtime import NpuRuntime

INSTALL_HINT = (
    "use an Ascend Hub image for training with TensorFlow 1.15, or install CANN "
    "(toolkit, kernels, TF Adapter), and in this shell run `source "
    "/usr/local/Ascend/cann/set_env.sh` (before CANN 8.5 "
    "/usr/local/Ascend/ascend-toolkit/set_env.sh) and make TF Adapter known: `export "
    "PYTHONPATH=$TFPLUGIN_INSTALL_PATH:$PYTHONPATH` for its wheel, or `source "
    "/usr/local/Ascend/tfplugin/set_env.sh` before CANN 8.0; or use --device=cpu"
)


def has_devices() -> bool:
    """Return whether this machine has NPUs."""
    return bool(glob.glob("/dev/davinci[0-9]*"))


class Npu(Accelerator):
    """Ascend NPUs."""

    can_loop = True
    precision_modes = (
        "allow_mix_precision",
        *(
            mode
            for mode in PRECISION_MODES
            if mode not in ("auto", "allow_mix_precision")
        ),
    )

    def is_present(self) -> bool:
        """Return whether there are NPUs, without importing their software.

        With a TensorFlow other than 1.15, NPUs count as present although they cannot be
        used: an error is better than training on the CPU for weeks without notice.
        """
        has_adapter = importlib.util.find_spec("npu_bridge") is not None
        return has_devices() and (has_adapter or not engine.is_1_15())

    def make_runtime(
        self, config: Config, environ: MutableMapping[str, str]
    ) -> "NpuRuntime":
        """Return the runtime of one NPU."""
        from alexnet_estimator.runtime.npu_runtime import NpuRuntime

        return NpuRuntime(config, environ)

    def examine(
        self, environ: Mapping[str, str], topology: Optional[Topology]
    ) -> List[Finding]:
        """Return the findings on CANN, npu_bridge, the driver and the network."""
        return examine_npu(environ, topology, import_npu_bridge)

    def prepare_profile(self, config: Config, folder: str) -> None:
        """Enable Ascend's profiler, unless the user has set its options."""
        if not config.npu.profiling_options:
            options = {"output": folder, "training_trace": "on", "task_trace": "on"}
            config.npu.profiling_options = json.dumps(options)


def import_npu_bridge() -> Any:
    """Return the class NPURunConfig.

    Raises:
        ConfigError: The package npu_bridge is not installed, or CANN is not found.
    """
    try:
        from npu_bridge.estimator.npu.npu_config import NPURunConfig
    except ImportError as error:
        raise ConfigError(
            f"runtime.device is npu, but npu_bridge cannot be imported ({error}): "
            + INSTALL_HINT
        ) from error
    return NPURunConfig
