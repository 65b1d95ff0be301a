"""Folders of runs, written without training."""

import base64
import io
import json
import pathlib
from typing import Any, Dict, List, Optional, Sequence

from PIL import Image

from alexnet_estimator.config import default_config

START = {"event": "start", "num_ranks": 1}


def write_run(
    folder: pathlib.Path,
    class_names: Sequence[str] = ("cat", "dog"),
    matrix: Optional[List[List[int]]] = None,
    events: Sequence[Dict[str, Any]] = (),
    **record: Any,
) -> str:
    """Write a run and return its folder.

    Args:
        folder: New folder of the run.
        class_names: Names of the classes of the data.
        matrix: Confusion matrix of the evaluation at step 20; None for no evaluation.
        events: Events of metrics.jsonl; by default a start, steps 10 and 20, the end.
        **record: More fields of config.json; ``config`` has sections with some fields.
    """
    folder.mkdir(parents=True)
    config = json.loads(json.dumps(default_config().to_dict()))
    for section, fields in record.pop("config", {}).items():
        config[section].update(fields)
    content = {"class_names": class_names, "num_ranks": 1, "device": "cpu", **record}
    write_json(folder / "config.json", {"config": config, **content})
    write_events(folder, events or [START, train(10), train(20), {"event": "end"}])
    if matrix is not None:
        write_evaluation(folder, 20, matrix, class_names)
    return str(folder)


def train(step: int, **values: Any) -> Dict[str, Any]:
    """Return an event of training."""
    usual = {"epoch": 1.0, "loss": 1 / step, "learning_rate": 0.1, "loss_scale": 1.0}
    return {"event": "train", "step": step, "images_per_sec": 7.0, **usual, **values}


def write_events(folder: pathlib.Path, events: Sequence[Dict[str, Any]]) -> None:
    """Write metrics.jsonl; steps continue from the last one, a second apart."""
    step, lines = 0, []
    for index, event in enumerate(events):
        step = event.get("step", step)
        lines.append({"step": step, "time_secs": 1.6e9 + index, **event})
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text, encoding="utf-8")


def write_evaluation(
    folder: pathlib.Path,
    step: int,
    matrix: List[List[int]],
    class_names: Sequence[str],
) -> None:
    """Write eval/<step>.json."""
    (folder / "eval").mkdir(exist_ok=True)
    num_images = sum(sum(row) for row in matrix)
    num_right = sum(row[label] for label, row in enumerate(matrix))
    content = {
        "global_step": step,
        "num_images": num_images,
        "loss": 0.5,
        "top_1_accuracy": num_right / num_images,
        "top_5_accuracy": 1.0,
        "confusion_matrix": matrix,
        "class_names": class_names,
    }
    write_json(folder / "eval" / f"{step}.json", content)


def write_samples(folder: pathlib.Path, samples: Sequence[Dict[str, Any]]) -> None:
    """Write samples.json; every sample gets a picture."""
    jpeg = io.BytesIO()
    Image.new("RGB", (8, 6), "red").save(jpeg, "JPEG")
    encoded = base64.b64encode(jpeg.getvalue()).decode()
    pictures = [{"jpeg": encoded, "file": "a.jpg", **sample} for sample in samples]
    counts = {"global_step": 20, "num_images": 9, "num_mistakes": 3}
    write_json(folder / "samples.json", {**counts, "pictures": pictures})


def write_json(file: pathlib.Path, content: Any) -> None:
    """Write a JSON file."""
    file.write_text(json.dumps(content), encoding="utf-8")
