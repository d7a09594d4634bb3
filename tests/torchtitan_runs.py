"""A training under torchtitan of which everything that is told is printed, as a line of JSON.

`python titan_on_cpu.py torchtitan_runs.py [ARGUMENT ...]`, as examples/torchtitan/train.py.
"""

import importlib.metadata
import json
import os
import runpy
from pathlib import Path

from fakes_torchtitan import EXAMPLE

from dvfd.integrations import torchtitan


class Told:
    """A reporter that keeps what it is told."""

    last_step = None

    def __init__(self, *args, **given):
        self.calls = [["new", *args, given]]

    def __getattr__(self, name):
        def keep(*args, **kwargs):
            self.calls.append([name, *map(str, args), *([kwargs] if kwargs else [])])

        return keep


def main():
    told = Told()
    torchtitan.Reporter = lambda *args, **given: (told.__init__(*args, **given), told)[1]
    example = runpy.run_path(str(EXAMPLE))
    try:
        if importlib.metadata.version("torchtitan") >= "0.3":
            example["main"]()
        else:
            example["assets"](Path(os.environ["EXAMPLE_OUTPUT"]))
            torchtitan.main()
    finally:
        print(json.dumps(told.calls))


if __name__ == "__main__":
    main()
