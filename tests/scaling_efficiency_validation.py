"""Scaling efficiency, by the source's name: reads the phases' stored runs; see `dvfd check`."""

from dvfd.drills.script import check

if __name__ == "__main__":
    check("scaling_efficiency")
