"""OpenMPI and Gloo validation, by the source's name. Options as of `dvfd check openmpi_gloo`."""

from dvfd.drills.script import check

if __name__ == "__main__":
    check("openmpi_gloo")
