"""The report has the right content, is complete and safe, and fits a browser."""

import html.parser
import json
import math
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import xml.etree.ElementTree
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import pytest
from PIL import Image

from alexnet_estimator.errors import ConfigError
from alexnet_estimator.report import charts, describe_folds, scores, write_report
from alexnet_estimator.report.history import History, read_runs
from tests import run_folder
from tests.run_folder import START, train, write_run

HOSTILE = (
    "<script>document.title='owned'</script>",
    '"><img src=x onerror="document.title=1">',
    "</style></title><i>&amp;",
    r"$\frac{1}{0}$",
    "猫\x00",
    "_under",
)
DEEP: Any = json.loads("[" * 700 + "]" * 700)
MATRIX = [[90, 10], [5, 45]]
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
BROWSER_FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-background-networking "
    "--disable-component-update --disable-sync --allow-file-access-from-files "
    "--virtual-time-budget=10000 --dump-dom"
).split()
# This page opens the page given after # at three widths, and records its findings.
PROBE = """<!DOCTYPE html><body><script>
const found = [];
for (const width of [360, 800, 1400]) {
  const frame = document.createElement("iframe");
  frame.style.width = width + "px";
  frame.onload = () => {
    const page = frame.contentDocument;
    const charts = [...page.querySelectorAll(".chart > img")];
    found.push({
      title: page.title,
      width: width,
      overflow: page.documentElement.scrollWidth - width,
      charts: charts.filter((image) => image.height > 100 && image.naturalWidth).length,
      images: [...page.images].slice(charts.length).map((image) => image.naturalWidth),
    });
    if (found.length == 3) document.body.textContent = JSON.stringify(found);
  };
  frame.src = location.hash.slice(1);
  document.body.append(frame);
}
</script></body>
"""


class Tag(NamedTuple):
    """A start tag."""

    name: str
    attributes: Dict[str, Optional[str]]


class Page(html.parser.HTMLParser):
    """A parsed page; tags that do not match raise an error."""

    def __init__(self, path: str):
        super().__init__()
        self.tags: List[Tag] = []
        self.source = pathlib.Path(path).read_text(encoding="utf-8")
        self._texts: List[str] = []
        self._open: List[str] = []
        self.feed(self.source)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: List[Tuple[str, Optional[str]]]) -> None:
        self.tags.append(Tag(tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self._open:
            self._texts.append(data)

    @property
    def text(self) -> str:
        """Return all text, with single spaces."""
        return re.sub("[ \n]+", " ", " ".join(self._texts))

    def all(self, name: str) -> List[Tag]:
        return [tag for tag in self.tags if tag.name == name]


def count_matrix(matrix: np.ndarray, names: Sequence[str]) -> scores.Answers:
    values = {"confusion_matrix": matrix.tolist(), "class_names": list(names)}
    answers = scores.decode_answers(values)
    assert answers is not None
    return answers


def report(*model_dirs: str, output: Optional[str] = None) -> Page:
    return Page(write_report(model_dirs, output))


def read(model_dir: str) -> History:
    return read_runs([model_dir])[0]


def write_full_run(folder: pathlib.Path, names: Sequence[str] = HOSTILE) -> str:
    """Write a run that fills every section."""
    matrix = (np.eye(len(names), dtype=int) * 7 + 1).tolist()
    again = {**START, "changes": ["<i>x</i>"]}
    counts = {"train": [9] * len(names), "validation": [8] * len(names)}
    write_run(
        folder,
        names,
        matrix,
        [START, train(10, loss_scale=4.0), again, train(20)],
        class_counts=counts,
        versions={"tensorflow": "<i>1.15"},
    )
    mistake = {"label": 0, "answers": [[1, 0.9], [2, 0.05]], "file": HOSTILE[0]}
    right = {"label": 1, "answers": [[1, 0.8], [0, 0.1]]}
    run_folder.write_samples(folder, [mistake, right])
    Image.new("RGB", (9, 9)).save(folder / "conv1_kernels.png")
    return str(folder)


@pytest.fixture(scope="module")
def full_page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Write the report of a run whose names contain markup."""
    folder = tmp_path_factory.mktemp("full")
    return write_report([write_full_run(folder / "<i>run & co")])


EVALUATED = {"event": "evaluation", "step": 10, "top_1_accuracy": 0.25, "loss": None}


@pytest.mark.parametrize(
    "run, words",
    [
        (
            {"matrix": MATRIX},
            [
                "90.0\u202f% of 150 unseen pictures recognised, against 66.7\u202f% "
                "for always answering “cat”",
                "84.2\u202f% to 93.8\u202f%",  # Wilson's interval of 135 / 150.
                "Finished at step 20 (2020-09-13 12:26:43 UTC)",
            ],
        ),
        # A result that chance explains is not called better.
        (
            {"matrix": [[75, 25], [21, 29]]},
            ["69.3\u202f% of 150 unseen pictures recognised: not clearly better than"],
        ),
        (
            {"events": [START, train(20), {"event": "stop"}]},
            ["Stopped on request at step 20", "Not evaluated yet"],
        ),
        (
            {"events": [START, train(20), {"event": "train", "step": 30}]},
            ["Not finished: still training, or interr"],
        ),
        # The log replaces evaluations that are lost.
        (
            {"events": [START, {**EVALUATED, "num_images": 8}]},
            ["25.0\u202f% of 8 unseen pictures recognised", "No confusion matrix"],
        ),
    ],
)
def test_it_says_what_came_out(
    tmp_path: pathlib.Path, run: Dict[str, Any], words: List[str]
) -> None:
    page = report(write_run(tmp_path / "run", **run))
    for expected in words:
        assert expected in page.text


def test_every_section_is_filled(full_page: str) -> None:
    page = Page(full_page)
    assert len(page.all("h3")) == 2  # Mistakes and right answers.
    assert "None in this folder" not in page.text
    for words in (
        "61.54\u202f% 100.00\u202f%",  # 48 of 78 images, and the top-5 accuracy.
        "true class: <script>",
        "a.jpg",
        "54: <script>document.title='owned'</script> 9, ",
        "mean recall, is 61.5\u202f%",
        "changes: (<i>x</i>)",
    ):
        assert words in page.text


def test_names_are_shown_as_they_are(full_page: str) -> None:
    page = Page(full_page)
    for name in (*HOSTILE, "<i>run & co", "<i>1.15"):
        assert name in page.text
    assert not [tag for tag in page.tags if tag.name in ("script", "i", "link")]
    names = [name for tag in page.tags for name in tag.attributes]
    assert not [name for name in names if name.startswith("on")]
    policies = [tag.attributes.get("content") or "" for tag in page.all("meta")]
    assert any("default-src 'none'" in policy for policy in policies)


def test_it_needs_nothing_else(full_page: str) -> None:
    page = Page(full_page)
    for tag in page.tags:
        for name in ("src", "href", "xlink:href", "srcset", "data"):
            assert (tag.attributes.get(name) or "#")[:5] in ("data:", "#") or (
                tag.attributes[name] or ""
            ).startswith("#")
    assert "@import" not in page.source
    assert not re.search(r"url\((?!#)", page.source)


def test_it_is_accessible(full_page: str) -> None:
    page = Page(full_page)
    assert page.all("html")[0].attributes["lang"] == "en"
    texts = [tag.attributes["alt"] or "" for tag in page.all("img")]
    assert len(texts) == 8 and all(texts)
    assert len([text for text in texts if "by step" in text]) == 5
    tables = page.all("table")
    assert len(tables) >= 6 and len(page.all("caption")) == len(tables)
    assert all(tag.attributes.get("scope") for tag in page.all("th"))
    ids = [tag.attributes["id"] for tag in page.tags if "id" in tag.attributes]
    assert len(set(ids)) == len(ids)


def test_pictures_of_the_curves_lie_beside_it(full_page: str) -> None:
    folder = pathlib.Path(full_page).parent
    names = sorted(file.name for file in (folder / "report").iterdir())
    drawn = "accuracy confusion images_per_sec learning_rate loss loss_scale"
    assert names == [f"{name}.png" for name in drawn.split()]
    with Image.open(folder / "report" / "loss.png") as image:
        assert image.size[0] > 600
    assert not list(folder.rglob("*.tmp"))


def test_the_first_of_equally_good_evaluations_is_the_best(
    tmp_path: pathlib.Path,
) -> None:
    model_dir = write_run(tmp_path / "run", matrix=MATRIX)
    for step, matrix in ((5, [[50, 50], [50, 0]]), (15, MATRIX)):
        run_folder.write_evaluation(tmp_path / "run", step, matrix, ("cat", "dog"))
    best = read(model_dir).best
    assert best is not None and best.step == 15
    assert "Best at step 15" in report(model_dir).text


def test_steps_that_were_trained_again_count_once(tmp_path: pathlib.Path) -> None:
    events = [START, train(10, loss=1.0), train(20, loss=9.0)]
    events += [{**START, "step": 10}, train(20, loss=0.5)]
    run = read(write_run(tmp_path / "run", events=events))
    steps, losses = run.values("loss")
    assert (steps.tolist(), losses.tolist()) == ([10, 20], [1.0, 0.5])
    assert [(start.step, start.last_step) for start in run.starts] == [
        (0, 20),
        (10, 20),
    ]


def test_nothing_that_is_damaged_stops_it(tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "run"
    (folder / "eval").mkdir(parents=True)
    (folder / "config.json").write_text('{"config": [1')
    (folder / "metrics.jsonl").write_bytes(
        b'{"event": "start", "step": 0, "time_secs": "x"}\n'
        b"\xff\xfe\nnull\n[1]\n" + b"[" * 100000 + b"\n"
        b'{"event": "train", "step": "10"}\n'
        b'{"event": "train", "step": 10, "loss": NaN, "learning_rate": Infinity}\n'
        b'{"event": "train", "step": 20, "loss": 0.5, "loss_scale": '
        + b"9" * 400
        + b"}\n"
        b'{"event": "train", "step": 30, "lo'
    )
    (folder / "eval" / "30.json").write_text(
        '{"top_1_accuracy": NaN, "class_names": 3}'
    )
    (folder / "eval" / "40.json").write_text('{"glob')
    (folder / "eval" / "40.samples.json").write_text("?")
    (folder / "samples.json").write_text('{"pictures": [5, {"label": 0}]}')
    (folder / "conv1_kernels.png").write_text("<svg onload=x>")
    page = report(str(folder))
    for words in ("config.json cannot", "6 lines of metrics", "40.json cannot"):
        assert words in page.text
    assert "Not evaluated yet" in page.text
    run = read(str(folder))
    losses = run.values("loss")[1]
    assert losses.tolist() == [0.5]
    assert len(run.values("learning_rate")[1]) == 0


def test_any_value_of_any_field_gives_a_page(tmp_path: pathlib.Path) -> None:
    values = [
        1e308,
        -1e308,
        10**400,
        1 << 60,
        -5,
        5.0,
        True,
        "x",
        None,
        {"a": 1},
        DEEP,
    ]
    logged = (
        "loss",
        "loss_scale",
        "images_per_sec",
        "epoch",
        "num_images",
        "time_secs",
    )
    names = (*logged, "top_1_accuracy", "top_5_accuracy")
    events: List[Dict[str, Any]] = [START]
    for step, value in enumerate(values, 1):
        events.append({**dict.fromkeys(names, value), "event": "train", "step": step})
        events.append({**events[-1], "event": "evaluation"})
    folder = tmp_path / "run"
    write_run(
        folder,
        events=events,
        class_counts={str(i): [value] * 2 for i, value in enumerate(values)},
        versions={str(i): value for i, value in enumerate(values)},
        **dict.fromkeys(("num_ranks", "device", "data_digest"), DEEP),
    )
    run_folder.write_evaluation(folder, 20, MATRIX, ("cat", "dog"))
    for model_dirs in ([str(folder)], [str(folder)] * 2):
        page = report(*model_dirs, output=str(tmp_path / "page.html"))
        assert "90.0\u202f% of 150 unseen pictures" in page.text


def test_samples_with_a_foreign_picture_or_label_are_left_out(
    tmp_path: pathlib.Path,
) -> None:
    model_dir = write_run(tmp_path / "run", matrix=MATRIX)
    good = {"label": 0, "answers": [[1, 0.9]]}
    bad: List[Dict[str, Any]] = [{"jpeg": '"><b>'}, {"label": 2}, {"answers": []}]
    bad += [{"answers": [[-1, 0.5]]}, {"label": True}]
    run_folder.write_samples(
        tmp_path / "run", [good, *({**good, **change} for change in bad)]
    )
    run = read(model_dir)
    assert len(run.samples) == 1 and run.notes


@pytest.mark.parametrize("extra", ["1.json", "config"])
def test_a_folder_without_a_run_is_refused(tmp_path: pathlib.Path, extra: str) -> None:
    (tmp_path / extra).write_text("{}")
    with pytest.raises(ConfigError) as caught:
        write_report([str(tmp_path), str(tmp_path / "missing")])
    assert len(caught.value.problems) == 2


def test_a_page_that_cannot_be_written_is_the_users_mistake(
    tmp_path: pathlib.Path,
) -> None:
    model_dir = write_run(tmp_path / "run")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError):
        write_report([model_dir], str(tmp_path / "file" / "report.html"))


def test_charts_do_not_replace_files_of_others(tmp_path: pathlib.Path) -> None:
    model_dir = write_run(tmp_path / "run")
    precious = tmp_path / "precious" / "loss.png"
    precious.parent.mkdir()
    precious.write_bytes(b"precious")
    with pytest.raises(ConfigError, match="precious, which has other files"):
        write_report([model_dir], str(tmp_path / "precious.html"))
    assert precious.read_bytes() == b"precious"
    assert not (tmp_path / "precious.html").exists()
    for _ in range(2):  # An earlier report is replaced.
        write_report([model_dir], str(tmp_path / "page.html"))
    assert (tmp_path / "page" / "loss.png").is_file()


def test_the_configuration_names_what_differs_from_the_defaults(
    tmp_path: pathlib.Path,
) -> None:
    changes = {"optim": {"momentum": 0.75, "gone": 1}, "data": {"mean_rgb": []}}
    page = report(write_run(tmp_path / "run", config=changes))
    changed, same = page.text.split("fields have their default values", 1)
    assert re.search(r"optim\.momentum\s+0\.75\s+0\.9\s+Momentum, or beta1", changed)
    assert "optim.gone" in changed and "unknown field" in changed
    assert "data.mean_rgb" in same and "data.mean_rgb" not in changed


def test_runs_are_compared(tmp_path: pathlib.Path) -> None:
    better, worse, other = (
        write_run(
            tmp_path / name / "run", matrix=matrix, config=config, data_digest=data
        )
        for name, matrix, config, data in (
            ("a", MATRIX, {}, "d"),
            ("b", [[50, 50], [25, 25]], {"optim": {"momentum": 0.75}}, "d"),
            ("c", MATRIX, {}, "e"),
        )
    )
    page = report(better, worse, output=str(tmp_path / "both.html"))
    assert f"Best: {better}, 90.0" in page.text
    differences = page.text.split("Differences between the runs")[1].split("Each run")[
        0
    ]
    assert re.search(r"optim\.momentum\s+0\.9\s+0\.75", differences)
    assert "optim.weight_decay" not in differences
    assert (tmp_path / "both" / "loss.png").exists()
    ids = [tag.attributes["id"] for tag in page.tags if "id" in tag.attributes]
    assert len(set(ids)) == len(ids)
    page = report(better, other, output=str(tmp_path / "both.html"))
    assert "accuracies cannot be compared" in page.text and "Best:" not in page.text


def test_folds_are_summarised(tmp_path: pathlib.Path) -> None:
    folds = []
    for fold, num_right in enumerate((80, 90, 97)):
        matrix = [[num_right, 100 - num_right], [10, 90]]
        convert = {"num_folds": 5, "fold": fold}
        data = {"mean_rgb": [fold, 1, 2]}
        run = write_run(
            tmp_path / f"fold{fold}",
            matrix=matrix,
            config={"convert": convert, "data": data},
            data_digest=str(fold),
        )
        folds.append(run)
    accuracies = [0.85, 0.9, 0.935]
    mean, deviation = np.mean(accuracies), statistics.stdev(accuracies)
    line = describe_folds(folds)
    assert line.startswith("mean and standard deviation over 3 of 5 folds: ")
    assert f"accuracy {mean:.4f} ± {deviation:.4f}, best {mean:.4f}" in line
    assert "loss 0.5000 ± 0.0000" in line
    page = report(*folds, output=str(tmp_path / "folds.html"))
    shown = f"{100 * mean:.2f}\u202f% ± {100 * deviation:.2f}\u202f%"
    assert page.text.count(shown) == 3  # The headline, and two cells of the row.
    # The same fold again, another setting, or no evaluation: no folds to summarise.
    config = {"convert": {"num_folds": 5, "fold": 3}, "optim": {"momentum": 0.75}}
    tuned = write_run(tmp_path / "tuned", matrix=MATRIX, config=config)
    config.pop("optim")
    waiting = write_run(tmp_path / "waiting", config=config)
    for others in ([folds[0]], [tuned], [waiting]):
        assert describe_folds(folds + others) == ""
    assert describe_folds(folds[:1]) == ""
    page = report(*folds, tuned, output=str(tmp_path / "more.html"))
    assert "accuracies cannot be compared" in page.text and "±" not in page.text


@pytest.mark.parametrize("has_matrix", [True, False])
def test_many_classes_stay_readable(tmp_path: pathlib.Path, has_matrix: bool) -> None:
    names = [f"class {label}" for label in range(1000)]
    matrix = 9 * np.eye(1000, dtype=int)
    matrix[700, 700], matrix[700, 8] = 3, 6
    model_dir = write_run(tmp_path / "run", names)
    run_folder.write_evaluation(tmp_path / "run", 20, matrix.tolist(), names)
    if not has_matrix:
        file = tmp_path / "run" / "eval" / "20.json"
        values = json.loads(file.read_text())
        values.update(scores.encode_answers(count_matrix(matrix, names)))
        del values["confusion_matrix"]
        run_folder.write_json(file, values)
    page = report(model_dir)
    lowest = page.text.split("The classes with the lowest recall")[1].split(
        "All 1,000"
    )[0]
    assert re.search(r"class 700 9 33\.3\u202f% 100\.0\u202f% 50", lowest)
    assert len(re.findall(r"class \d", lowest)) == 15
    assert re.search(r"class 700 → class 8 6 66\.7", page.text)
    assert len(page.source) < 2_000_000
    texts = [tag.attributes["alt"] or "" for tag in page.all("img")]
    assert "1000 classes and 9000 images" in texts[-1]


def test_without_matplotlib_the_curves_are_words(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    page = report(write_run(tmp_path / "run", matrix=MATRIX))
    assert "install matplotlib" in page.text
    assert "training: 0.1 at step 10, 0.05 at step 20" in page.text
    assert not (tmp_path / "run" / "report").exists()


def test_nothing_heavy_is_imported_before_it_is_needed() -> None:
    code = "import sys, alexnet_estimator.report\nprint(sorted(sys.modules))"
    loaded = subprocess.check_output([sys.executable, "-c", code]).decode()
    assert "'numpy'" in loaded
    assert "'tensorflow'" not in loaded and "'matplotlib'" not in loaded


def test_long_curves_keep_mean_and_extremes() -> None:
    steps, values = np.arange(3000.0), np.zeros(3000)
    values[1234] = 70.0
    centres, means, lows, highs = charts.summarise_curve(steps, values)
    assert len(centres) == charts.MAX_POINTS
    assert highs.max() == 70 and lows.max() == 0
    part = int(highs.argmax())
    assert means[part] == pytest.approx(7) and abs(centres[part] - 1234) < 10


def test_charts_are_drawn_for_what_was_logged(tmp_path: pathlib.Path) -> None:
    plain = read(write_run(tmp_path / "plain"))
    names = [chart.name for chart in charts.plan_charts([plain])]
    assert names == ["loss", "learning_rate", "images_per_sec"]
    losses = [5000.0, 2.0, 1.5, 1.0]  # A peak must not hide the rest.
    steps = [train(i + 1, loss=loss, loss_scale=8.0) for i, loss in enumerate(losses)]
    events = [START, *steps, {**START, "step": 4}]
    scaled = read(write_run(tmp_path / "scaled", events=events))
    by_name = {chart.name: chart for chart in charts.plan_charts([scaled])}
    assert by_name["loss"].scale == "log" and by_name["loss_scale"].scale == "log2"
    assert by_name["loss"].restarts == (4,)


@pytest.mark.parametrize("num_classes", [2, 6, 25, 401])
def test_confusions_of_any_size_are_drawn(num_classes: int) -> None:
    names = [HOSTILE[label % 6] for label in range(num_classes)]
    counted = count_matrix(np.eye(num_classes, dtype=int), names)
    drawing = charts.draw_confusion(counted)
    assert drawing.png.startswith(b"\x89PNG")
    root = xml.etree.ElementTree.fromstring(drawing.svg)
    words = [each.text for each in root.iter("{http://www.w3.org/2000/svg}text")]
    assert (r"$\frac{1}{0}$" in words) == (num_classes == 6)
    assert not list(root.iter("{http://www.w3.org/2000/svg}script"))


def test_rare_confusions_survive_the_drawing() -> None:
    matrix = np.zeros([401, 401], int)
    matrix[400, 3] = matrix[400, 400] = 1
    shares = count_matrix(matrix, [""] * 401).shares(200)
    assert shares.shape == (134, 134) and shares[133, 1] == 0.5


def test_scores_are_those_of_the_definitions() -> None:
    matrix = np.array([[6, 2, 0], [1, 3, 0], [0, 0, 0]])
    counted = count_matrix(matrix, "abc")
    np.testing.assert_array_equal(counted.recalls, [6 / 8, 3 / 4, math.nan])
    np.testing.assert_array_equal(counted.precisions, [6 / 7, 3 / 5, math.nan])
    np.testing.assert_allclose(counted.f1_scores, [0.8, 2 / 3, math.nan])
    assert counted.balanced_accuracy == 0.75
    assert counted.majority == (0, 8 / 12)
    assert counted.confusions.tolist() == [[0, 1, 2], [1, 0, 1]]
    assert counted.matrix.tolist() == matrix.tolist()
    # Wilson's interval of 81 in 263, as in Newcombe 1998, table I.
    low, high = scores.wilson_interval(81 / 263, 263)
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)


def many_classes() -> scores.Answers:
    """Return 1,000 classes, of which each has 9 images and one confusion."""
    labels = np.arange(1000)
    right = np.stack([labels, labels, np.full(1000, 7)], axis=1)
    wrong = np.stack([labels, (labels + 1) % 1000, np.full(1000, 2)], axis=1)
    rows = np.concatenate([right, wrong, [[5, 9, 90], [5, 9, 10]]])
    return scores.count_answers(rows, [f"class {label}" for label in labels])


def test_files_of_many_classes_hold_no_matrix() -> None:
    answers = many_classes()
    values = json.loads(json.dumps(scores.encode_answers(answers)))
    assert "confusion_matrix" not in values
    assert values["images_per_class"][:6] == [9, 9, 9, 9, 9, 109]
    assert values["right_per_class"] == [7] * 1000
    assert values["answers_per_class"][8:11] == [9, 109, 9]
    assert values["confusions"][:2] == [[5, 9, 100], [0, 1, 2]]
    assert values["f1_per_class"][9] == round(2 * 7 / (9 + 109), 6)
    assert values["balanced_accuracy"] == pytest.approx((999 * 7 / 9 + 7 / 109) / 1000)
    again = scores.decode_answers(values)
    assert again is not None
    for one, other in zip(again, answers):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    "name, value",
    [
        ("images_per_class", [9] * 999),
        ("images_per_class", [0] * 1000),
        ("right_per_class", [10] * 1000),
        ("right_per_class", "many"),
        ("answers_per_class", [-1] * 1000),
        ("answers_per_class", [1 << 53] * 1000),
        ("answers_per_class", None),
        ("confusions", [[5, 1000, 1]]),
        ("confusions", [[5, 5, 1]]),
        ("confusions", [[5, 9]]),
        ("confusions", 3),
        ("confusion_matrix", [[1]]),
        ("class_names", 7),
    ],
)
def test_damaged_counts_are_no_answers(name: str, value: Any) -> None:
    assert (
        scores.decode_answers({**scores.encode_answers(many_classes()), name: value})
        is None
    )


def find_browser() -> Optional[str]:
    return next(filter(None, map(shutil.which, BROWSERS)), None)


@pytest.mark.skipif(not find_browser(), reason=f"none of {', '.join(BROWSERS)} found")
def test_a_browser_shows_it_at_every_width(
    full_page: str, tmp_path: pathlib.Path
) -> None:
    probe = tmp_path / "probe.html"
    probe.write_text(PROBE)
    browser, address = find_browser(), pathlib.Path(full_page).as_uri()
    assert browser is not None
    words = [browser, *BROWSER_FLAGS, f"--user-data-dir={tmp_path / 'profile'}"]
    output = subprocess.check_output(
        [*words, f"{probe.as_uri()}#{address}"], stderr=subprocess.DEVNULL, timeout=120
    ).decode()
    match = re.search(r"\[\{.*\}\]", output)
    assert match is not None, output
    found = json.loads(html.unescape(match.group()))
    assert sorted(view["width"] for view in found) == [360, 800, 1400]
    for view in found:
        assert (
            view["title"] == f"AlexNet: {os.path.basename(os.path.dirname(full_page))}"
        )
        assert view["overflow"] <= 0, f"{view['width']} pixels: scrolls sideways"
        assert view["charts"] == 5
        assert view["images"] == [8, 8, 9]
