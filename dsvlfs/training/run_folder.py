"""A run's folder: its settings, its state, its logs, its checkpoints.

`training.json` holds the settings and the start; `last` is the latest state, `best` and `final` are checkpoints;
`losses.jsonl`, `correlation.jsonl` and `validation.jsonl` get a line each time; `curves` holds TensorBoard's, and
`pictures` shows validation episodes.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from typing_extensions import TypedDict

from ..errors import InputError
from ..files import append_line, read_json, read_text, recover_folder, whole_folder, write_json, write_text
from ..hub.checkpoint_files import write_tensors
from ..modeling import DSVLFSModel
from .settings import TrainingConfig, from_settings
from .whole_state import restore_moments, restore_weights, whole_moments, whole_weights

_START = "start_from"


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


class _Saved(TypedDict, total=False):
    """A `Progress` in a file."""

    step: int
    best: float
    figures: dict[str, list[float]]


class RunFolder:
    """The folder of one run.

    Args:
        folder: made where it is missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.last = folder / "last"
        self._settings = folder / "training.json"

    def open(self, config: TrainingConfig, *, start_from: Path | None = None, resume: bool) -> None:
        """Prepares the folder, in the main process: the logs of a new run hold nothing of one that never saved its
        state, those of a resumed one only what its state knows of.

        Args:
            start_from: folder of the checkpoint that the run starts from; a resumed run knows its own, and None keeps
                it.

        Raises:
            InputError: there is a run already, or none to resume, or one with other settings or another start.
        """
        recover_folder(self.last)
        if not resume and self.last.exists():
            raise InputError(f"{self.folder} holds a run already; go on with --resume, or give another --out.")
        if not resume and any((self.folder / name).exists() for name in ("best", "final")):
            raise InputError(f"{self.folder} holds the checkpoints of a run whose state is gone; give another --out.")
        if resume:
            if not self._settings.exists():
                raise InputError(f"{self.folder} holds no run to resume; start it without --resume.")
            own = read_json(self._settings)
            start_from = self.start_from() if start_from is None else start_from.resolve()
            if start_from != self.start_from():
                raise InputError(
                    f"The run in {self.folder} started from {self.start_from() or 'the bases alone'}; resume it "
                    "without --start-from."
                )
            own.pop(_START, None)
            if not from_settings(own, self._settings).may_go_on_as(config):
                raise InputError(f"The run in {self.folder} has other settings; resume it with its own.")
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self._settings, asdict(config) | {_START: start_from and str(start_from.resolve())})
        step = self.progress().step
        for log in ("losses.jsonl", "correlation.jsonl", "validation.jsonl"):
            self._cut(self.folder / log, step)

    def start_from(self) -> Path | None:
        """Folder of the checkpoint that the run starts from; None where it starts from the bases alone."""
        folder = read_json(self._settings).get(_START)
        return Path(folder) if folder else None

    def progress(self) -> Progress:
        """How far the saved state is; the beginning where there is none."""
        file = self.last / "progress.json"
        return Progress(**read_json(file, _Saved)) if self.last.exists() else Progress()

    def load_state(self, model: DSVLFSModel, optimizer: torch.optim.Optimizer) -> None:
        """Reads what `save_state` wrote, where it wrote, into every process. `model` has its weights already.

        Raises:
            InputError: it is damaged.
        """
        if self.last.exists():
            restore_weights(model, _read(self.last / "model.safetensors"))
            restore_moments(model, optimizer, _read(self.last / "optimizer.safetensors"))

    def save_state(
        self, model: DSVLFSModel, optimizer: torch.optim.Optimizer, progress: Progress, *, is_main: bool
    ) -> None:
        """Writes what a resumed run needs, whole or not at all. Every process calls it, one writes."""
        weights, moments = whole_weights(model), whole_moments(model, optimizer)
        if not is_main:
            return
        with whole_folder(self.last) as folder:
            model.save_pretrained(folder, state_dict=weights, whole=True)
            write_tensors(folder / "optimizer.safetensors", moments)
            write_json(folder / "progress.json", asdict(progress))

    def save_checkpoint(self, name: str, model: DSVLFSModel, *, is_main: bool) -> None:
        """Writes the trained weights alone, in half precision, to `name`. Every process calls it, one writes."""
        weights = whole_weights(model)
        if is_main:
            model.save_pretrained(self.folder / name, dtype=torch.float16, state_dict=weights)

    def log(self, name: str, line: dict[str, Any]) -> None:
        """Appends a line to `name`."""
        append_line(self.folder / name, json.dumps(line))

    def _cut(self, log: Path, step: int) -> None:
        """Leaves out the lines after `step`, and one that a kill cut short."""
        if log.exists():
            lines = [line for line in read_text(log).splitlines() if _step_of(line) <= step]
            write_text(log, "".join(f"{line}\n" for line in lines))


def _read(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise InputError(f"The state {file} is missing or damaged ({error}); start another run.") from error


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except json.JSONDecodeError:
        return float("inf")
