"""The evaluate subcommand."""

from alexnet_estimator import console
from alexnet_estimator.command_line import Command, Verb
from alexnet_estimator.errors import EXIT_DONE
from alexnet_estimator.verbs.ranks import (
    RANK_FLAGS,
    launch_ranks,
    read_topology,
    watching_alone,
)
from alexnet_estimator.verbs.settings import (
    announce_loading,
    configure,
    find_stored_config,
)


def evaluate(command: Command) -> int:
    """Evaluate a checkpoint of a run and print its accuracy."""
    command.require("model_dir")
    model_dir = command.flags.model_dir
    config = configure(command, find_stored_config(model_dir))
    topology = read_topology(command)
    announce_loading()
    if topology is not None:
        return launch_ranks(command, config, model_dir, topology)
    from alexnet_estimator.jobs.evaluate import evaluate as run_evaluation
    from alexnet_estimator.jobs.session import open_run

    run = open_run(config, model_dir, verb="evaluate")
    with watching_alone(command, run.runtime):
        result = run_evaluation(run, command.flags.checkpoint)
    if run.runtime.is_chief:
        console.show(
            f"step {result['global_step']}: accuracy {result['top_1_accuracy']:.4f}, "
            f"top-5 {result['top_5_accuracy']:.4f}, loss {result['loss']:.4f} "
            f"on {console.count(result['num_images'], 'image')}"
        )
    return EXIT_DONE


VERB = Verb(
    evaluate,
    "Evaluate a checkpoint of a run on the held-out pictures.",
    "model_dir data_path batch_size device checkpoint " + RANK_FLAGS,
    examples=(
        "evaluate --model_dir=runs/photos",
        "evaluate --model_dir=runs/photos --checkpoint=runs/photos/model.ckpt-2000",
    ),
    texts={
        "batch_size": "Images of one rank in a step. Default: that of the training. "
        "Example: 64.",
    },
)
