"""The section ``npu`` of the configuration as arguments of the installed npu_bridge."""

import inspect
import json
import os
from typing import Any, Callable, Dict, List, Mapping

from alexnet_estimator.config import Config
from alexnet_estimator.console import warn

# Precision modes of releases before 2023, whose compiler supports no other mode.
OLD_PRECISION_MODES = (
    "allow_fp32_to_fp16",
    "force_fp16",
    "must_keep_origin_dtype",
    "allow_mix_precision",
)


# Operators that square activations, in the forward and in the backward pass, and the
# function of npu_bridge that keeps them in float32.
KEPT_TYPES = ("LRN", "LRNGrad")
KEEP_FUNCTION = "keep_tensors_dtypes"


def find_problems(config: Config, run_config_class: Any) -> List[str]:
    """Return problems that the device would report only after minutes, or never."""
    npu, mode = config.npu, config.precision.mode
    problems = []
    is_old = "precision_mode_v2" not in inspect.signature(run_config_class).parameters
    if is_old and mode not in OLD_PRECISION_MODES:
        problems.append(
            f"precision.mode is {mode}: the installed npu_bridge predates 2023 and "
            f"supports only {', '.join(OLD_PRECISION_MODES)}"
        )
    if npu.modify_mixlist and mode != "allow_mix_precision":
        problems.append(
            f"npu.modify_mixlist needs precision.mode allow_mix_precision, not {mode}"
        )
    if npu.modify_mixlist and not os.path.isfile(npu.modify_mixlist):
        problems.append(f"npu.modify_mixlist is {npu.modify_mixlist}: no such file")
    if npu.dump_path and not os.path.isdir(npu.dump_path):
        problems.append(f"npu.dump_path is {npu.dump_path}: no such folder; create it")
    if npu.dump_steps and (not npu.dump_path or npu.dump_mode == "overflow"):
        problems.append(
            f"npu.dump_steps is {npu.dump_steps}: it needs npu.dump_path, and has no "
            "meaning for npu.dump_mode overflow"
        )
    if npu.profiling_options and not _is_json(npu.profiling_options):
        problems.append(f"npu.profiling_options is {npu.profiling_options}: not JSON")
    return problems


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def accepted_options(npu: Config) -> Dict[str, Any]:
    """Return the arguments that the user has set, if this release supports them."""
    from npu_bridge.estimator.npu.npu_config import NPURunConfig

    chosen = {**_chosen_options(npu), **_debugging_options(npu)}
    return _accepted_by(NPURunConfig, chosen)


def _chosen_options(npu: Config) -> Dict[str, Any]:
    """Return the arguments of NPURunConfig that the user has set."""
    switches = ("hcom_parallel", "enable_data_pre_proc", "variable_format_optimize")
    options: Dict[str, Any] = {
        name: npu[name] == "on" for name in switches if npu[name] != "auto"
    }
    if npu.deterministic != "auto":
        options["deterministic"] = int(npu.deterministic == "on")
    from npu_bridge.estimator.npu import util

    # Releases before April 2021 cannot be told to keep an operator in float32.
    precise = npu.high_precision_ops or (
        () if hasattr(util, KEEP_FUNCTION) else KEPT_TYPES[:1]
    )
    if precise:
        options["op_select_implmode"] = "high_precision"
        options["optypelist_for_implmode"] = ",".join(precise)
    values = {
        "hccl_timeout": npu.hccl_timeout_secs,
        "op_execute_timeout": npu.op_execute_timeout_secs,
        "modify_mixlist": npu.modify_mixlist,
        "aoe_mode": npu.aoe_mode,
        "auto_tune_mode": npu.auto_tune_mode,
    }
    is_set = {name: value not in (0, "", "auto") for name, value in values.items()}
    return {**options, **{name: values[name] for name in values if is_set[name]}}


def _debugging_options(npu: Config) -> Dict[str, Any]:
    """Return the arguments of profiling and dump, which are instances of classes."""
    from npu_bridge.estimator.npu.npu_config import DumpConfig, ProfilingConfig

    options: Dict[str, Any] = {}
    if npu.profiling_options:
        profiling = _accepted_by(
            ProfilingConfig, {"profiling_options": npu.profiling_options}
        )
        if profiling:
            options["profiling_config"] = ProfilingConfig(
                enable_profiling=True, **profiling
            )
    if npu.dump_path and npu.dump_mode == "overflow":
        options["dump_config"] = DumpConfig(
            enable_dump_debug=True, dump_path=npu.dump_path, dump_debug_mode="all"
        )
    elif npu.dump_path:
        options["dump_config"] = DumpConfig(
            enable_dump=True,
            dump_path=npu.dump_path,
            dump_step=npu.dump_steps or None,
            dump_mode=npu.dump_mode,
        )
    return options


def _accepted_by(
    function: Callable[..., Any], options: Mapping[str, Any]
) -> Dict[str, Any]:
    """Remove options that the installed release does not have, with a warning."""
    known = inspect.signature(function).parameters
    for name in options:
        if name not in known:
            warn(
                f"the installed npu_bridge has no option {name}: {options[name]!r} "
                "has no effect"
            )
    return {name: value for name, value in options.items() if name in known}
