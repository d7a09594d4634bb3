"""A job without torch: PROCESSES ranks that report SAMPLES each SECONDS, and what else is asked.

`python reporting_job.py PROCESSES SAMPLES SECONDS [name=NAME] [steps=N] [nan] [exit=CODE] [mute]
[world=N] [deaf] [polite=FILE]`. One process that forks, as a launcher does.
"""

import os
import signal
import sys
import time
from pathlib import Path

from dvfd.telemetry.reporter import Reporter


def rank(number, processes, samples, seconds, asked):
    world = int(asked.get("world", processes))
    with Reporter(asked.get("name", "gpt"), rank=number, world_size=world, interval=0.05) as job:
        for step in range(1, int(asked.get("steps", 10**6)) + 1):
            time.sleep(seconds)
            loss = float("nan") if "nan" in asked and step > 60 else 1.0
            job.step(step, samples=None if "mute" in asked else samples, loss=loss)
        job.end("done")


def main():
    processes, samples, seconds = int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
    asked = dict(word.partition("=")[::2] for word in sys.argv[4:])
    if "deaf" in asked:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "polite" in asked:
        signal.signal(signal.SIGTERM, lambda *_: (Path(asked["polite"]).touch(), os._exit(0)))
    children = []
    for number in range(processes):
        child = os.fork()
        if not child:
            if "polite" in asked:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
            if "deaf" in asked:
                os.setsid()
            rank(number, processes, samples, seconds, asked)
            os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    if "exit" in asked:
        print("RuntimeError: out of luck", file=sys.stderr)
        return int(asked["exit"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
