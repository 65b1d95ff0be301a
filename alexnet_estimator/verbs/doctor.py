"""The doctor subcommand."""

import os
import shutil
import tempfile

from alexnet_estimator import console, files
from alexnet_estimator.command_line import Command, Verb
from alexnet_estimator.errors import EXIT_DONE, EXIT_USAGE
from alexnet_estimator.rank_environment import is_first_rank, is_rank
from alexnet_estimator.verbs.ranks import RANK_FLAGS, launch_ranks, read_table
from alexnet_estimator.verbs.settings import announce_loading, configure


def doctor(command: Command) -> int:
    """Check this machine, and train on its device for a moment."""
    config = configure(command, None)
    config.data.synthetic = True
    topology = read_table(command)
    is_launched = topology is not None and is_rank(os.environ)
    announce_loading()
    from alexnet_estimator.jobs.doctor import job

    device = config.runtime.device
    # In a rank, the launcher itself listens at the port.
    port = 0 if is_launched else command.number("rendezvous_port", 0)
    findings = job.examine(device, topology, port, os.environ)
    if topology and not is_launched and not job.has_failed(findings):
        console.show(job.to_text(findings))
        folder = tempfile.mkdtemp(prefix="alexnet-doctor-")
        code = launch_ranks(command, config, folder, topology)
        if code == EXIT_DONE:
            shutil.rmtree(folder)  # The message of a failure names the logs in it.
        return code
    tried = job.try_out(device, findings)
    has_failed = job.has_failed(findings + tried)
    if has_failed or is_first_rank(os.environ):
        # The launcher has already shown the findings about this machine.
        is_shown = is_launched and not job.has_failed(findings)
        console.show(job.to_text(tried if is_shown else findings + tried))
    if command.flags.output and is_first_rank(os.environ):
        report = job.to_report(device, findings + tried)
        files.write_bytes(command.flags.output, files.encode_json(report, indent=2))
    return EXIT_USAGE if has_failed else EXIT_DONE


VERB = Verb(
    doctor,
    "Check this machine, and the device with a short training.",
    "device output " + RANK_FLAGS,
    examples=(
        "doctor --device=cpu",
        "doctor --device=npu --rank_table=8p.json --output=doctor.json",
    ),
    texts={
        "output": "JSON file of the findings, for bug reports. Default: no file. "
        "Example: doctor.json.",
    },
    sections=("runtime",),
)
