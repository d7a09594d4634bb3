"""64 bytes there and back by MPI: `mpirun ... bare.py dvfd.drills.workers.mpi_pingpong COUNT`.

By ctypes, so that no compiler and no package is needed on the nodes; a call costs a little more
than in C. Rank 0 prints the times, a JSON list of microseconds.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import json
import sys
import time

PAYLOAD = 64

WARM_UP = 100

TAG = 17


def library() -> ctypes.CDLL:
    """Open MPI's own, with its symbols for the plugins that it loads."""
    name = ctypes.util.find_library("mpi") or "libmpi.so.40"
    return ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)


class Line:
    """The messages of two ranks of MPI's world."""

    def __init__(self, mpi: ctypes.CDLL) -> None:
        self._mpi = mpi
        self._world = ctypes.byref(ctypes.c_char.in_dll(mpi, "ompi_mpi_comm_world"))
        self._byte = ctypes.byref(ctypes.c_char.in_dll(mpi, "ompi_mpi_byte"))
        rank = ctypes.c_int()
        mpi.MPI_Comm_rank(self._world, ctypes.byref(rank))
        self.rank = rank.value
        self._buffer = ctypes.create_string_buffer(PAYLOAD)

    def send(self) -> None:
        """To the other rank."""
        self._mpi.MPI_Send(self._buffer, PAYLOAD, self._byte, 1 - self.rank, TAG, self._world)

    def receive(self) -> None:
        """From the other rank."""
        self._mpi.MPI_Recv(self._buffer, PAYLOAD, self._byte, 1 - self.rank, TAG, self._world, None)


def main(count: int) -> None:
    """Be one of the two."""
    mpi = library()
    mpi.MPI_Init(None, None)
    line = Line(mpi)
    times = []
    for _ in range(WARM_UP + count):
        if line.rank == 0:
            began = time.perf_counter_ns()
            line.send()
            line.receive()
            times.append((time.perf_counter_ns() - began) / 1e3)
        else:
            line.receive()
            line.send()
    mpi.MPI_Finalize()
    if line.rank == 0:
        sys.stdout.write(json.dumps(times[WARM_UP:]) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]))
