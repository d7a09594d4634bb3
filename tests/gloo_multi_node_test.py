"""Collectives over two nodes, by the source's name: under torchrun or alone; see `dvfd check`.

`--backend` is the source's; the profile has it already, so another than the profile's is refused.
"""

import argparse
import sys

from dvfd.config import load
from dvfd.drills.script import ranked

if __name__ == "__main__":
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--backend", choices=("gloo", "nccl"))
    given, sys.argv[1:] = parser.parse_known_args()
    configured = load().profile.backend
    if given.backend not in {None, configured}:
        sys.exit(f"--backend={given.backend}: the profile says {configured}: [profile] backend")
    ranked("gloo_multi_node")
