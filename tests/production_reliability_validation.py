"""Production-grade reliability, by the source's name; see `dvfd check` and docs/reliability.md."""

from dvfd.drills.script import check

if __name__ == "__main__":
    check("reliability")
