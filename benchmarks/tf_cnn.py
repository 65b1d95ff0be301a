"""Training step of the network of tf_cnn_benchmarks --model=alexnet: ours and theirs.

    git clone --branch cnn_tf_v1.15_compatible https://github.com/tensorflow/benchmarks
    python -m benchmarks.tf_cnn --output=F \\
        --tf_cnn_benchmarks=benchmarks/scripts/tf_cnn_benchmarks

Both have one tower of 64/192/384/384/256 channels, no LRN, 227 px, 1,001 classes,
momentum and the same weight decay, and use the same engine (with TensorFlow 2.15, check
out their branch ``master``).  Theirs is measured with several settings, of which the
best counts.  One setting is ``MKL_DEBUG_CPU_TYPE=5``, with which MKL uses AVX2 on AMD
processors.
"""

import argparse
import functools
import os
import re
import statistics
import sys
from typing import Dict, List

from alexnet_estimator import machine
from benchmarks import harness
from benchmarks.harness import Engine, Measure

KIND = harness.Kind("tf_cnn_step")
OUR_NETWORK = (
    "--config.model.groups=1",
    "--config.model.lrn_alpha=0",
    "--config.model.conv_channels=(64,192,384,384,256)",
    "--config.data.synthetic_classes=1001",
    "--config.optim.weight_decay=4e-5",
)
MKL_CPU_TYPE = "MKL_DEBUG_CPU_TYPE"
Variants = Dict[str, Dict[str, str]]
# Their cases, each with its environment variables.  Only the build with MKL supports
# this variable, and the layout NCHW on CPUs.
THEIRS: Variants = {"theirs": {}}
THEIRS_WITH_MKL: Variants = {**THEIRS, "theirs with AVX2": {MKL_CPU_TYPE: "5"}}


def measure_theirs(
    engine: Engine, folder: str, flags: List[str], **variables: str
) -> float:
    """Return the images/s that their script prints at its end.

    Args:
        engine: Engine that runs it.
        folder: Folder of their script.
        flags: Additional flags.
        variables: Additional environment variables.
    """
    num_cores = machine.num_cores()
    command = [
        engine.python,
        os.path.join(folder, "tf_cnn_benchmarks.py"),
        "--model=alexnet",
        "--device=cpu",
        "--optimizer=momentum",
        "--nodistortions",
        "--mkl=True",
        "--num_inter_threads=2",
        f"--num_intra_threads={num_cores}",
        *flags,
    ]
    threads = {"OMP_NUM_THREADS": str(num_cores), "KMP_BLOCKTIME": "0"}
    text = harness.run(command, **threads, **variables)
    found = re.search(r"^total images/sec: ([\d.]+)$", text, re.MULTILINE)
    if not found:
        sys.exit(f"tf_cnn_benchmarks printed no images/sec:\n{text[-2000:]}")
    return float(found.group(1))


def their_settings(
    engine: Engine, options: argparse.Namespace
) -> Dict[str, Dict[str, Measure]]:
    """Return the settings of each of their cases, by the name of the case."""
    flags = [
        f"--num_batches={options.steps}",
        "--num_warmup_batches=2",
        f"--display_every={options.steps}",
        f"--batch_size={options.batch_size}",
    ]
    has_mkl = "intel" in engine.name
    return {
        title: {
            f"{title} {engine.name} {layout}": functools.partial(
                measure_theirs,
                engine,
                options.tf_cnn_benchmarks,
                [*flags, f"--data_format={layout}"],
                **variables,
            )
            for layout in (("NHWC", "NCHW") if has_mkl else ("NHWC",))
        }
        for title, variables in (THEIRS_WITH_MKL if has_mkl else THEIRS).items()
    }


def main() -> None:
    """Run the benchmark."""
    parser = harness.make_parser(__doc__)
    parser.add_argument("--tf_cnn_benchmarks", required=True, metavar="FOLDER")
    harness.add_step_flags(parser, steps=3)
    options = parser.parse_args()
    engines = harness.engines_of(options)
    if len(engines) > 1:
        parser.error("give one --engine only: each needs another of their branches")
    (engine,) = engines
    # Our package sets the variable itself, unless the shell has set it.
    os.environ.pop(MKL_CPU_TYPE, None)
    cases: Dict[str, Measure] = {
        f"ours {engine.name}": functools.partial(
            harness.measure_step, engine, *harness.step_flags(options), *OUR_NETWORK
        )
    }
    theirs = their_settings(engine, options)
    for settings in theirs.values():
        cases.update(settings)
    versions = harness.versions_of(engine)
    values = harness.run_and_append(
        options, KIND, cases, dict.fromkeys(cases, versions)
    )
    for title, settings in theirs.items():
        best = max(settings, key=lambda name: statistics.median(values[name]))
        case, more = f"{title} {engine.name}", {"setting": best, "versions": versions}
        harness.append(options.output, KIND, case, values[best], **more)


if __name__ == "__main__":
    main()
