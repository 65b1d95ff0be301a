"""One rank on the stand-in for npu_bridge, in what looks like a server with NPUs.

Its words are command lines, with "then" between them, which it runs one after the
other without the report, which takes longer than so few steps.
"""

import os
import sys
from unittest import mock

from alexnet_estimator import __main__ as cli
from alexnet_estimator.jobs import train as train_job
from tests import npu_double

words, code = sys.argv[1:], 0
with npu_double.looking_like_a_server(os.environ["ASCEND_HOME_PATH"]):
    with mock.patch.object(train_job, "write_outcome"):
        while words and code == 0:
            end = words.index("then") if "then" in words else len(words)
            code = cli.main(words[:end])
            words = words[end + 1 :]
sys.exit(code)
