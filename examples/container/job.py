"""A job in a container that has Python and one file of dvfd: `dvfd_reporter.py`, beside this one.

dvfd assets export --only job image/          # writes image/job/dvfd_reporter.py and the others
python job.py [STEPS] [SECONDS]               # steps to make, and seconds for each
"""

import json
import sys
import time
from pathlib import Path

from dvfd_reporter import Reporter

CHECKPOINTS = "/checkpoints"


def save(step):
    """Write a safetensors file: a header, and four numbers. A path of the container's own."""
    weights = bytes(16)
    tensor = {"dtype": "F32", "shape": [4], "data_offsets": [0, len(weights)]}
    header = json.dumps({"weight": tensor}).encode()
    path = Path(CHECKPOINTS, f"step-{step}.safetensors")
    part = path.with_suffix(".part")
    part.write_bytes(len(header).to_bytes(8, "little") + header + weights)
    part.rename(path)  # a reader sees a whole file or none
    return path


def main():
    """Make steps, and save the 20th, the 220th and so on."""
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 10**9
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 0.05
    with Reporter("boxed", interval=0.1) as reporter:
        for step in range(1, steps + 1):
            time.sleep(seconds)
            reporter.step(step, samples=32, loss=2.0 + 1.0 / step)
            if step % 200 == 20:
                reporter.checkpoint_begin(CHECKPOINTS, step)
                reporter.checkpoint_saved(save(step), step)


if __name__ == "__main__":
    main()
