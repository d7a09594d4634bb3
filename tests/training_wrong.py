"""The convergence worker with a mistake in its distributed side: `training_wrong.py KIND ...`.

A wrong learning rate is a mistake that training shows; another order of a sum is none.
"""

import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from dvfd.drills import stopping
from dvfd.drills.workers import convergence


class Rate(convergence.Training):
    """Learns four times as fast as it was told."""

    def rate(self, seen):
        return 4 * super().rate(seen)


class Order(convergence.Training):
    """Sums gradients from the last rank down, in one chain, where Gloo goes round in rings."""

    def parallel(self):
        model = DistributedDataParallel(self.model, gradient_as_bucket_view=True)
        model.register_comm_hook(None, lambda _, bucket: self._reduce(bucket))
        return model

    def _reduce(self, bucket):
        own = bucket.buffer()
        parts = [torch.empty_like(own) for _ in range(self.place.size)]
        distributed.all_gather(parts, own)
        total = torch.zeros_like(own)
        for part in reversed(parts):
            total += part / self.place.size
        future = torch.futures.Future()
        future.set_result(total)
        return future


class Dies(convergence.Training):
    """Rank 1 is killed at step 120, if it did not start from a checkpoint."""

    def finish(self, directory):
        convergence.SAVE = 0.0
        self.resumed = self.step > 0
        super().finish(directory)

    def advance(self):
        if self.place.rank == 1 and self.step == 120 and not self.resumed:
            os.kill(os.getpid(), signal.SIGKILL)
        super().advance()


KINDS = {"rate": Rate, "order": Order, "dies": Dies}

if __name__ == "__main__":
    stopping.leave(convergence.main(sys.argv[2:], KINDS[sys.argv[1]]))
