"""The model card of an export: what the model is, how good it is, how to serve it."""

import json
from typing import Any, Mapping, Optional, Sequence

from alexnet_estimator import report
from alexnet_estimator.jobs.export.graphs import ENCODED
from alexnet_estimator.records import SAMPLE_PREFIX, sample
from alexnet_estimator.run_record import RunRecord
from alexnet_estimator.schema import CROP_FRACTION

_MAX_NAMED_CLASSES = 50
_UNKNOWN_LICENCE = """\
The job does not know the licence of the training pictures. Write it here before you
pass the model on.
"""
_CARD = """\
# {title}, step {step}

Classifies pictures into {num_classes} classes. The files of this folder were written by
alexnet-estimator {version}, and each was compared with the checkpoint.

## Data

Trained on {num_train} pictures of `{data}` (SHA-256 of the data: `{digest}`).

{classes}

## Accuracy

{accuracy}

## Input

The signature `serving_default` takes encoded files (JPEG, PNG, GIF or BMP) as
`{encoded}`. It cuts out the central square, {percent:.0f} % of the shorter side, and
resizes it to {size} x {size} pixels. The signature `images`, `model.pb` and
`model.onnx` take such squares as float32 [batch, {size}, {size}, 3], RGB from 0 to 255.
The subtraction of the mean and the division by the scale are in the graph.

## Limits

- The model gives every picture one of its classes, also a picture of something else.
- Its probabilities were not calibrated.
- The accuracy holds for pictures like those above, prepared in the same way.

## Licence of the data

{licence}"""
_SERVING = """
## Serving

```
docker run --rm -p 8501:8501 -v "$PWD/saved_model:/models/alexnet" \\
    -e MODEL_NAME=alexnet tensorflow/serving
```

```
printf '{"instances": [{"ENCODED": {"b64": "%s"}}]}' "$(base64 -w0 photo.jpg)" |
    curl -d @- http://localhost:8501/v1/models/alexnet:predict
```
"""


def describe_model(
    record: RunRecord,
    step: Optional[int],
    evaluation: Optional[Mapping[str, Any]],
    formats: Sequence[str],
) -> str:
    """Return the card, in Markdown.

    Args:
        record: Record of the run.
        step: Global step of the checkpoint; None if its name has no step.
        evaluation: Evaluation of the checkpoint; None if there is none.
        formats: Names of the exported formats.
    """
    path = record.config.data.path
    is_sample = path.startswith(SAMPLE_PREFIX)
    # The path of the folder may be private, and the card is passed on with the model.
    data = path if is_sample else path.rstrip("/").rsplit("/", 1)[-1]
    size = record.config.data.image_size
    card = _CARD.format(
        title=record.network.get("title", "AlexNet"),
        step="unknown" if step is None else step,
        num_classes=len(record.class_names),
        version=record.versions.get("alexnet_estimator", "unknown"),
        num_train=sum(record.class_counts.get("train", ())),
        data="synthetic pictures" if record.config.data.synthetic else data,
        digest=record.data_digest,
        classes=_list_classes(record),
        accuracy=_describe_accuracy(evaluation),
        encoded=ENCODED,
        size=size,
        percent=100 * CROP_FRACTION,
        licence=sample.LICENCE if is_sample else _UNKNOWN_LICENCE,
    )
    serving = _SERVING.replace("ENCODED", ENCODED)
    return card + (serving if "saved_model" in formats else "")


def _list_classes(record: RunRecord) -> str:
    if len(record.class_names) > _MAX_NAMED_CLASSES:
        return "`class_names.txt` lists the classes."
    # JSON escapes line breaks, which would break the list.
    names = [json.dumps(name, ensure_ascii=False) for name in record.class_names]
    counts = record.class_counts.get("train", [0] * len(names))
    pairs = zip(names, counts)
    return "\n".join(f"- {name}: {count} for training" for name, count in pairs)


def _describe_accuracy(evaluation: Optional[Mapping[str, Any]]) -> str:
    if evaluation is None:
        return "This checkpoint was not evaluated."
    accuracy, num_images = evaluation["top_1_accuracy"], evaluation["num_images"]
    low, high = report.wilson_interval(accuracy, num_images)
    answers = report.decode_answers(evaluation)
    text = (
        f"{accuracy:.4f} on {num_images} pictures that were held out of training "
        f"(95 % confidence interval {low:.4f} to {high:.4f})."
    )
    if answers is None:
        return text
    worst = answers.by_recall[0]
    name = json.dumps(answers.class_names[worst], ensure_ascii=False)
    return (
        f"{text}\nAlways answering the most frequent class would give "
        f"{answers.majority[1]:.4f}. The class recognised least is {name}:\n"
        f"{answers.num_right[worst]} of {answers.num_images[worst]}."
    )
