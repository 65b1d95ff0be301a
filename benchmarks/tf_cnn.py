"""Training step of the network of tf_cnn_benchmarks --model=alexnet: ours and theirs.

    git clone --branch cnn_tf_v1.15_compatible https://github.com/tensorflow/benchmarks
    python -m benchmarks.tf_cnn --output=F \\
        --tf_cnn_benchmarks=benchmarks/scripts/tf_cnn_benchmarks

One tower of 64/192/384/384/256 channels, no LRN, 227 px, 1,001 classes, momentum, the
same weight decay, on the same engine (for TensorFlow 2.15, their branch ``master``).
Theirs is measured in several settings and takes its best; so that it is as fast as it
can be, also with ``MKL_DEBUG_CPU_TYPE=5``, which makes MKL use AVX2 on AMD processors.
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
# Cases of theirs with the environment of each, and layouts of images.  Only the build
# with MKL knows the variable, and channels first on CPUs.
THEIRS: Variants = {"theirs": {}}
THEIRS_WITH_MKL: Variants = {**THEIRS, "theirs with AVX2": {MKL_CPU_TYPE: "5"}}


def measure_theirs(
    engine: Engine, folder: str, flags: List[str], **variables: str
) -> float:
    """Return the images/s that their script prints at its end.

    Args:
        engine: runs it.
        folder: of their script.
        flags: besides those that are always given.
        variables: of the environment.
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
        sys.exit(f"no images/sec in what tf_cnn_benchmarks printed:\n{text[-2000:]}")
    return float(found.group(1))


def their_settings(
    engine: Engine, options: argparse.Namespace
) -> Dict[str, Dict[str, Measure]]:
    """Return the settings of each of their cases, by name."""
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
    """Measure as the flags say."""
    parser = harness.make_parser(__doc__)
    parser.add_argument("--tf_cnn_benchmarks", required=True, metavar="FOLDER")
    harness.add_step_flags(parser, steps=3)
    options = parser.parse_args()
    engines = harness.engines_of(options)
    if len(engines) > 1:
        parser.error("one --engine at a time: each needs another branch of theirs")
    (engine,) = engines
    # Ours may set the variable; what the user's shell says would hide that.
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
