"""24 hours of training with 4 processes, by the source's name: a rank of torchrun."""

from dvfd.runs.script import ranked

if __name__ == "__main__":
    ranked("stability_phase1")
