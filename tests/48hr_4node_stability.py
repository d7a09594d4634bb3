"""48 hours of training with 16 processes on 4 nodes, by the source's name: a rank of torchrun."""

from dvfd.runs.script import ranked

if __name__ == "__main__":
    ranked("stability_phase2c")
