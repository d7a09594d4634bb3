"""Two nodes and what lies between them, by the source's name: `--nodes 2`; see `dvfd check`."""

from dvfd.drills.script import ranked

if __name__ == "__main__":
    ranked("network")
