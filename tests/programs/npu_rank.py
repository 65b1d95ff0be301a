"""One rank on the stand-in for npu_bridge, in what looks like a server with NPUs.

Its words are command lines, with "then" between them, which it runs one after the
other without the report, which takes longer than so few steps.  The self-test of the
doctor takes fewer steps, too.
"""

import os
import sys
from unittest import mock

from alexnet_estimator import __main__ as cli
from alexnet_estimator.jobs.doctor import self_test
from tests import npu_double
from tests.training import without_report

words, code = sys.argv[1:], 0
with npu_double.looking_like_a_server(os.environ["ASCEND_HOME_PATH"]):
    with without_report(), mock.patch.object(self_test, "NUM_STEPS", 12):
        while words and code == 0:
            end = words.index("then") if "then" in words else len(words)
            code = cli.main(words[:end])
            words = words[end + 1 :]
sys.exit(code)
