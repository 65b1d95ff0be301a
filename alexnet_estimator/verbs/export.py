"""The export subcommand."""

from alexnet_estimator import console
from alexnet_estimator.command_line import Command, Verb
from alexnet_estimator.errors import EXIT_DONE
from alexnet_estimator.verbs.settings import announce_loading, configure


def export(command: Command) -> int:
    """Export the model of a run."""
    command.require("model_dir", "output")
    announce_loading()
    from alexnet_estimator.jobs.export.job import export as run_export
    from alexnet_estimator.jobs.predict.classifier import find_record

    given = command.flags
    config = configure(command, find_record(given.model_dir))
    formats = (given.format or "saved_model,frozen").split(",")
    batch_size = command.number("batch_size", 0) or None
    done = run_export(
        config, given.model_dir, given.output, formats, batch_size, given.checkpoint
    )
    pictures = console.count(done.num_pictures, "picture")
    console.say(
        f"exported step {done.global_step} to {done.folder}: the probabilities of "
        f"{pictures} differ from the run's by at most {done.max_difference:.2g}",
        is_result=True,
    )
    if "frozen" in formats:
        script = f"sh {done.folder}/to_om.sh Ascend310"
        console.say(f"for Ascend inference: {script}", is_result=True)
    return EXIT_DONE


VERB = Verb(
    export,
    "Export a model as SavedModel, frozen graph or ONNX.",
    "model_dir data_path output batch_size checkpoint format",
    examples=(
        "export --model_dir=runs/photos --output=exported",
        "export --model_dir=runs/photos --output=exported --format=saved_model,onnx",
    ),
    texts={
        "output": "Folder of the exported model, which must be new or empty. Required, "
        "e.g. exported.",
        "batch_size": "Fixed batch size of the frozen graph and of ONNX. Default: any "
        "batch size. Example: 1.",
        "format": "Formats, separated by commas: saved_model, frozen, onnx. Default: "
        "saved_model,frozen. Example: saved_model,onnx.",
    },
    sections=("data", "convert"),
)
