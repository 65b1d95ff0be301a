"""What a run has come to, for people: one page, and the same curves as pictures.

No TensorFlow is imported here, so that a report of a run can be made anywhere.
"""

from alexnet_estimator.report.drawings import draw_confusion
from alexnet_estimator.report.page import write_report

__all__ = ["draw_confusion", "write_report"]
