"""The report of a run: one page, and the same curves as pictures.

No TensorFlow is imported here, so that a report of a run can be made anywhere.
"""

from alexnet_estimator.report.charts import can_draw, draw_confusion
from alexnet_estimator.report.page import write_report
from alexnet_estimator.report.scores import (
    Answers,
    count_answers,
    decode,
    encode,
    wilson_interval,
)
