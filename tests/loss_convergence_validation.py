"""Loss convergence, by the source's name: under torchrun or alone; see `dvfd check`."""

from dvfd.drills.script import ranked

if __name__ == "__main__":
    ranked("loss_convergence")
