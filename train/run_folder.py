"""A run's folder: its settings, its state, its logs, its checkpoints.

`training.json` holds the settings; `last` is the latest state, `best` and `final` are checkpoints; `losses.jsonl` and
`validation.jsonl` get a line each time; `curves` holds TensorBoard's, and `pictures` shows validation episodes.
"""

import json
import os
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from config import TrainingConfig, from_settings
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

from dsvlfs.data.photos import read_json
from dsvlfs.errors import InputError
from dsvlfs.modeling import DSVLFSModel


@dataclass
class Progress:
    """How far a run is.

    Args:
        step: steps done.
        best: the best validation's mIoU so far.
        figures: sums and counts since the last line of the log, by name.
    """

    step: int = 0
    best: float = -1.0
    figures: dict[str, list[float]] = field(default_factory=dict)


class RunFolder:
    """The folder of one run.

    Args:
        folder: made where it is missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.last = folder / "last"
        self._old = folder / "last.old"

    def open(self, config: TrainingConfig, *, resume: bool) -> None:
        """Prepares the folder, in the main process: a new run leaves nothing of one that never saved its state, a
        resumed one only what its state knows of.

        Raises:
            InputError: there is a run already, or none to resume, or one with other settings.
        """
        if self._old.exists() and not self.last.exists():  # killed between two renames
            os.replace(self._old, self.last)
        settings = self.folder / "training.json"
        if not resume and self.last.exists():
            raise InputError(f"{self.folder} holds a run already; go on with --resume, or give another --out.")
        if resume:
            if not settings.exists():
                raise InputError(f"{self.folder} holds no run to resume; start it without --resume.")
            if not from_settings(read_json(settings), settings).may_go_on_as(config):
                raise InputError(f"The run in {self.folder} has other settings; resume it with its own.")
        self.folder.mkdir(parents=True, exist_ok=True)
        _write_text(settings, json.dumps(asdict(config), indent=2) + "\n")
        step = self.progress().step
        for log in ("losses.jsonl", "validation.jsonl"):
            self._cut(self.folder / log, step)

    def progress(self) -> Progress:
        """How far the saved state is; the beginning where there is none."""
        file = self.last / "progress.json"
        return Progress(**read_json(file)) if self.last.exists() else Progress()

    def load_state(self, model: DSVLFSModel, optimizer: torch.optim.Optimizer) -> None:
        """Reads the optimizer's part of what `save_state` wrote, into every process; `model` has its part already.

        Raises:
            InputError: it is damaged.
        """
        if not self.last.exists():
            return
        file = self.last / "optimizer.safetensors"
        try:
            saved = load_file(file)
        except Exception as error:
            raise InputError(f"The state {file} is damaged ({error}); start the run again elsewhere.") from error
        parameters = dict(model.named_parameters())
        for name, value in saved.items():
            parameter_name, entry = name.rsplit("/", 1)
            parameter = parameters[parameter_name]
            optimizer.state[parameter][entry] = _divided_as(value, parameter)

    def save_state(
        self, model: DSVLFSModel, optimizer: torch.optim.Optimizer, progress: Progress, *, is_main: bool
    ) -> None:
        """Writes what a resumed run needs, whole or not at all. Every process calls it, one writes."""
        weights = whole_tensors(model.trained_state_dict())
        names = {parameter: name for name, parameter in model.named_parameters()}
        moments = whole_tensors(
            {
                f"{names[parameter]}/{entry}": value
                for parameter, state in optimizer.state.items()
                for entry, value in state.items()
            }
        )
        if not is_main:
            return
        unfinished = self.folder / "last.part"
        shutil.rmtree(unfinished, ignore_errors=True)
        model.save_pretrained(unfinished, state_dict=weights)
        save_file(moments, unfinished / "optimizer.safetensors")
        _write_text(unfinished / "progress.json", json.dumps(asdict(progress)))
        shutil.rmtree(self._old, ignore_errors=True)
        if self.last.exists():
            os.replace(self.last, self._old)
        os.replace(unfinished, self.last)
        shutil.rmtree(self._old, ignore_errors=True)

    def save_checkpoint(self, name: str, model: DSVLFSModel, *, is_main: bool) -> None:
        """Writes the trained weights alone, in half precision, to `name`. Every process calls it, one writes."""
        weights = whole_tensors(model.trained_state_dict())
        if is_main:
            model.save_pretrained(self.folder / name, dtype=torch.float16, state_dict=weights)

    def log(self, name: str, line: dict[str, Any]) -> None:
        """Appends a line to `name`."""
        with (self.folder / name).open("a") as file:
            file.write(json.dumps(line) + "\n")

    def _cut(self, log: Path, step: int) -> None:
        """Leaves out the lines after `step`, and one that a kill cut short."""
        if log.exists():
            lines = [line for line in log.read_text().splitlines() if _step_of(line) <= step]
            _write_text(log, "".join(f"{line}\n" for line in lines))


def whole_tensors(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same on the CPU, sharded ones gathered; every process calls it."""
    return {
        name: (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach().cpu().contiguous()
        for name, tensor in tensors.items()
    }


def _divided_as(value: Tensor, parameter: Tensor) -> Tensor:
    """An optimizer's value, where and as divided as its parameter; a count stays on the CPU."""
    if value.ndim == 0:
        return value
    if isinstance(parameter, DTensor):
        return distribute_tensor(value.to(parameter.device), parameter.device_mesh, parameter.placements)
    return value.to(parameter.device)


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except json.JSONDecodeError:
        return float("inf")


def _write_text(file: Path, text: str) -> None:
    unfinished = file.with_name(f"{file.name}.part")
    unfinished.write_text(text)
    os.replace(unfinished, file)
