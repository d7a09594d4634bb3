"""Hardware validation, by the source's name. Options as of `dvfd check hardware`."""

from dvfd.drills.script import check

if __name__ == "__main__":
    check("hardware")
