"""Prepares for signals as every command does, says "ready" and does as it is told."""

import os
import signal
import sys
import time

from alexnet_estimator import launch
from alexnet_estimator.hooks.stopping import StopRequest

signal.alarm(60)  # Stay for no longer, also where a test has failed.
launch.prepare_signals()
try:
    if sys.argv[1] == "wait":
        print("ready", flush=True)
        signal.pause()
    elif sys.argv[1] == "listen":
        with StopRequest().listening() as request:
            print("ready", flush=True)
            while not request.is_received:
                time.sleep(0.01)
            sys.exit(8)
    elif sys.argv[1] == "stay":
        with StopRequest().listening():
            print("ready", flush=True)
            sum(range(10**12))  # One call into C, which takes an hour.
    elif sys.argv[1] == "show stacks":
        print("ready", flush=True)
        os.kill(os.getpid(), signal.SIGUSR1)
except KeyboardInterrupt:
    sys.exit(7)
