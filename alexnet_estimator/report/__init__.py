"""The report of a run: an HTML page, and its charts as PNG files.

This package does not import TensorFlow, so a report can be written on any machine.
"""

from alexnet_estimator.report.charts import can_draw, draw_confusion
from alexnet_estimator.report.page import describe_folds, write_report
from alexnet_estimator.report.scores import (
    Answers,
    count_answers,
    decode_answers,
    encode_answers,
    wilson_interval,
)
