"""Trainings on a GPU by the Hugging Face Trainer and by Lightning, and how often each integration
waited for the device: JSON, by its name.

`python gpu_trainings.py DIRECTORY`, for a subprocess. PyTorch itself says which call waits:
`torch.cuda.set_sync_debug_mode`.
"""

import json
import sys
import warnings

import lightning.pytorch as pl
import torch
from hf_trainings import trainer as hf_trainer

from dvfd.integrations.huggingface import DvfdCallback as Watched
from dvfd.integrations.lightning import DvfdCallback as Fitted

WAITS = "called a synchronizing CUDA operation"


class Watch:
    """Calls a method and counts how often it waited."""

    def __init__(self):
        self.calls, self.waits = 0, []

    def around(self, method):
        def called(*args, **kwargs):
            self.calls += 1
            torch.cuda.set_sync_debug_mode("warn")
            try:
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always")
                    return method(*args, **kwargs)
            finally:
                torch.cuda.set_sync_debug_mode("default")
                self.waits += [str(w.message) for w in caught if WAITS in str(w.message)]

        return called

    def over(self, callback, prefix=("on_", "heard", "logged", "ended")):
        for name in dir(callback):
            method = getattr(callback, name)
            if name.startswith(prefix) and callable(method):
                setattr(callback, name, self.around(method))
        return callback

    def told(self, steps):
        return {"calls": self.calls, "waits": self.waits, "steps": steps}


class Module(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(8, 1)

    def training_step(self, batch, _):
        loss = (self.layer(batch) ** 2).mean()
        self.log("train_loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def control():
    """What waits is seen to wait."""
    watch = Watch()
    watch.around(lambda: torch.ones(1, device="cuda").item())()
    return watch.told(0)


def huggingface(directory):
    watch = Watch()
    settings = {"max_steps": 20, "logging_steps": 5, "eval_strategy": "steps", "eval_steps": 10}
    whole = hf_trainer(directory, "gpu", [watch.over(Watched("hf"))], use_cpu=False, save_steps=10,
                       **settings)  # fmt: skip
    whole.train()
    assert whole.model.device.type == "cuda"
    return watch.told(whole.state.global_step)


def lightning(directory):
    watch = Watch()
    quiet = {"enable_progress_bar": False, "enable_model_summary": False}
    fit = pl.Trainer(accelerator="gpu", devices=1, max_steps=20, log_every_n_steps=5, **quiet,
                     default_root_dir=directory, callbacks=[watch.over(Fitted("pl"))])  # fmt: skip
    module = Module()
    fit.fit(module, torch.utils.data.DataLoader(torch.ones(200, 8), 4))
    return watch.told(fit.global_step)


if __name__ == "__main__":
    where = sys.argv[1]
    found = {"control": control(), "huggingface": huggingface(where), "lightning": lightning(where)}
    print("\n" + json.dumps(found))
