"""Launches Python code as the ranks of a rank table.

``python -m tests.programs.launching TABLE SERVER BACKEND MODEL_DIR OPTIONS CODE ...``,
where OPTIONS is JSON and the words are arguments of the ranks.
"""

import json
import sys
from typing import Sequence

from alexnet_estimator import console, launch, rank_table
from alexnet_estimator.errors import UserError
from alexnet_estimator.launch import job


def main(arguments: Sequence[str]) -> int:
    table, server_id, backend, model_dir, options_json, code, *words = arguments
    job.COMMAND = (sys.executable, "-c", code)
    options = launch.Options(**json.loads(options_json))
    launch.prepare_signals()
    try:
        topology = rank_table.read(table)
        return launch.run(words, topology, server_id, backend, model_dir, options)
    except UserError as error:
        console.complain(error.message())
        return error.exit_code
    finally:
        console.finish()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
