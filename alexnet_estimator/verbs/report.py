"""The report subcommand."""

from alexnet_estimator import console
from alexnet_estimator.command_line import Command, Verb
from alexnet_estimator.errors import EXIT_DONE


def report(command: Command) -> int:
    """Write the report of one or more runs."""
    console.note("writing the report ...")
    from alexnet_estimator.report import describe_folds, write_report

    path = write_report(command.arguments, command.flags.output)
    lines = [describe_folds(command.arguments), path]
    console.say("\n".join(filter(None, lines)), is_result=True)
    return EXIT_DONE


VERB = Verb(
    report,
    "Write the HTML report of a run, or a comparison of several runs.",
    "output",
    examples=(
        "report runs/photos",
        "report runs/photos runs/photos_2 --output=compared.html",
    ),
    texts={
        "output": "File of the report. Default: report.html in the folder of the run, "
        "or in the current folder for several runs. Example: compared.html.",
    },
    usage="RUN [RUN...]",
    max_arguments=100,
    sections=(),
)
