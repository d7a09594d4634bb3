"""The network between three nodes, by the source's name; see `dvfd check`."""

from dvfd.drills.script import ranked

if __name__ == "__main__":
    ranked("topology_3node")
