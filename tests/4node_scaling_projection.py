"""The projection to 16 processes, by the source's name; see `dvfd check`, `dvfd scaling`."""

from dvfd.drills.script import check

if __name__ == "__main__":
    check("scaling_projection")
