"""The convert subcommand."""

from alexnet_estimator import console
from alexnet_estimator.command_line import Command, Verb
from alexnet_estimator.errors import EXIT_DONE
from alexnet_estimator.verbs.settings import configure


def convert(command: Command) -> int:
    """Convert a folder or zip of pictures."""
    command.require("data_path", "output")
    console.note(f"looking for pictures in {command.flags.data_path} ...")
    from alexnet_estimator.records.convert import convert as convert_pictures

    config = configure(command, command.flags.config)
    dataset = convert_pictures(config.data.path, command.flags.output, config.convert)
    lines = [
        f"{name}: {console.count(split.num_images, 'image')} in "
        + console.count(len(split.shards), "file")
        for name, split in dataset.splits.items()
    ]
    names = ", ".join(dataset.class_names[:10])
    lines.append(f"{dataset.num_classes} classes: {names}")
    console.say("\n".join(lines), is_result=True)
    return EXIT_DONE


VERB = Verb(
    convert,
    "Convert pictures to sharded TFRecords and dataset.json.",
    "data_path config output",
    examples=(
        "convert --data_path=photos/ --output=photos.data",
        "convert --data_path=photos.zip --output=data --config.convert.short_side=320",
    ),
    texts={
        "data_path": "Folder or zip of pictures. Required, e.g. /data/cats_vs_dogs.",
        "output": "Folder of the converted data. Required, e.g. photos.data.",
    },
    sections=("convert",),
)
