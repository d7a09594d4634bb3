"""24 hours of training with 12 processes on 3 nodes, by the source's name: a rank of torchrun."""

from dvfd.runs.script import ranked

if __name__ == "__main__":
    ranked("stability_phase2b")
