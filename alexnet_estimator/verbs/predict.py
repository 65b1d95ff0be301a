"""The predict subcommand."""

from alexnet_estimator import console
from alexnet_estimator.command_line import Command, Verb
from alexnet_estimator.errors import EXIT_DONE
from alexnet_estimator.verbs.settings import announce_loading, configure


def predict(command: Command) -> int:
    """Classify pictures and write one row for each."""
    command.require("model_dir")
    announce_loading()
    from alexnet_estimator.jobs.predict.classifier import find_record, open_classifier
    from alexnet_estimator.jobs.predict.job import predict as run_prediction

    given = command.flags
    config = configure(command, find_record(given.model_dir))
    summary = run_prediction(
        open_classifier(given.model_dir, config, given.checkpoint),
        command.arguments,
        given.output or console.STDOUT,
        command.number("top_k", 1),
        given.format or "",
    )
    # This message goes to stderr, because standard output may hold the rows.
    console.note(
        f"{console.count(summary.num_images, 'picture')}, "
        f"{len(summary.rejects)} unreadable, "
        f"{summary.images_per_sec:.1f} images/s"
    )
    return EXIT_DONE


VERB = Verb(
    predict,
    "Classify pictures: files, folders, zips, or .txt lists of these.",
    "model_dir output batch_size device checkpoint top_k format",
    examples=(
        "predict --model_dir=runs/photos new_photos/ --output=rows.csv",
        "predict --model_dir=exported a.jpg b.zip list.txt --top_k=5 --format=jsonl",
    ),
    texts={
        "model_dir": "Folder of a run or of an exported model. Required, e.g. "
        "runs/cats_vs_dogs.",
        "output": "File of the rows, which appears when it is complete; - writes the "
        "rows to standard output. Default: -. Example: rows.csv.",
        "batch_size": "Pictures in a batch. Default: that of the training. "
        "Example: 64.",
        "format": "Format of the rows: csv or jsonl. Default: jsonl if --output ends "
        "with .jsonl, otherwise csv. Example: jsonl.",
    },
    usage="PICTURES...",
    max_arguments=1 << 20,
    sections=("data", "train", "runtime"),
)
