"""The report subcommand."""

from alexnet_estimator import console
from alexnet_estimator.command_line import Command, Verb
from alexnet_estimator.errors import EXIT_DONE


def report(command: Command) -> int:
    """Write a page about runs."""
    from alexnet_estimator.report import write_report

    console.say(write_report(command.arguments, command.flags.output), is_result=True)
    return EXIT_DONE


VERB = Verb(
    report,
    "Write a page about a run, or about several side by side.",
    "output",
    examples=(
        "report runs/photos",
        "report runs/photos runs/photos_2 --output=compared.html",
    ),
    texts={
        "output": "File for the page. Default: report.html in the run, or the current "
        "folder's for several; e.g. compared.html.",
    },
    usage="RUN [RUN...]",
    max_arguments=100,
    sections=(),
)
