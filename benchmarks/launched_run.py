"""Whether a run divided by a launcher's settings starts, saves and resumes: `base` at toy widths (`toy_base.py`), under
`accelerate launch` as docs/train.md has it; once whole, and once ended in the middle and resumed. Gives how far the
losses of the two, and the weights that they saved, differ.

Without a GPU accelerate divides nothing and leaves bfloat16 alone, so that there the workers ask it for what the
launcher's settings say (`launched_cpus.py`); `divided` is what came of it. `zero2` needs `pip install deepspeed`.

    python benchmarks/launched_run.py --data-root VOC2012 --launchers fsdp zero2 --processes 2
    python benchmarks/launched_run.py --episodes FILE --launchers fsdp zero2 --processes 1 --out FOLDER
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import missing  # noqa: F401  (before what may miss a package)

# isort: split
import launched_cpus
import overfit
import torch
import toy_base
import yaml
from safetensors.torch import load_file

from dsvlfs import DSVLFSConfig
from dsvlfs.training import run, sources
from dsvlfs.training.photo_episodes import collate_photos

LAUNCHERS = Path(__file__).parent.parent / "train" / "configs" / "accelerate"
STEPS, ENDED = 4, 2
SETTINGS = overfit.SETTINGS | {
    "steps": STEPS,
    "batch_size": 4,
    "micro_batch_size": 2,
    "warmup_steps": 1,
    "mixed_precision": "bf16",
    "checkpoint_every": 1,
    "log_every": 1,
    "learning_rate": 2e-3,
    "semantic_only": 0,
    "visual_only": 0,
}


def work(folder: Path, episodes: Path, *, end: bool, resume: bool) -> None:
    """One process of a run, in a folder beside the toy's; with `end` it stops without a word after `ENDED` steps."""
    toy = DSVLFSConfig.from_pretrained(folder.parent)
    DSVLFSConfig.base = classmethod(lambda _: toy)
    step = run.Trainer.step

    def step_or_end(trainer: Any, number: int, batches: list) -> Any:
        if end and number == ENDED:
            os._exit(9)
        return step(trainer, number, batches)

    def open_episodes(config: Any, *_: Any) -> sources.Episodes:
        shown = overfit.InTurns(overfit.asked(episodes, "both"), config.steps * config.batch_size)
        return sources.Episodes(shown, collate_photos, None)

    if not torch.cuda.is_available():
        launched_cpus.divide(SETTINGS["mixed_precision"])
    started = run.start

    def start(config: Any, out: Path) -> Any:
        accelerator, plan = started(config, out)
        folder.with_suffix(".divided").write_text(accelerator.distributed_type.value)
        return accelerator, plan

    run.start, run.Trainer.step, run.open_episodes = start, step_or_end, open_episodes
    run.train(folder.parent / "settings.yaml", folder, folder, resume=resume)


def launch(launcher: str, processes: int, folder: Path, episodes: Path, *more: str) -> None:
    """Starts a run and waits; what it says is in a file beside its folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(LAUNCHERS / f"{launcher}.yaml")]
    command += ["--num_processes", str(processes), "--main_process_port", port, __file__]
    command += ["--folder", str(folder), "--episodes", str(episodes), *more]
    own = {} if torch.cuda.is_available() else launched_cpus.ENVIRONMENT
    with folder.with_suffix(".log").open("a") as log:
        status = subprocess.run(command, stdout=log, stderr=log, env=os.environ | own).returncode
    if status and "--end" not in more:
        raise RuntimeError(f"{launcher}: {' '.join(more) or 'whole'} ended with {status}; see {folder.name}.log")


def tried(launcher: str, processes: int, scratch: Path, episodes: Path) -> dict[str, Any]:
    """Both runs of a launcher, and how far they differ."""
    whole, ended = scratch / f"{launcher}-whole", scratch / f"{launcher}-ended"
    found: dict[str, Any] = {"launcher": launcher, "processes": processes}
    try:
        with ThreadPoolExecutor(2) as pool:
            both = [pool.submit(launch, launcher, processes, whole, episodes)]
            both.append(pool.submit(launch, launcher, processes, ended, episodes, "--end"))
            for one in both:
                one.result()
        launch(launcher, processes, ended, episodes, "--resume")
        losses = [
            {line["step"]: line["loss"] for line in map(json.loads, (run / "losses.jsonl").read_text().splitlines())}
            for run in (whole, ended)
        ]
        saved = [load_file(run / "final" / "model.safetensors") for run in (whole, ended)]
        found["divided"] = whole.with_suffix(".divided").read_text()
        found |= {"losses": losses[0], "losses_resumed": losses[1]}
        found["losses_differ"] = max(abs(losses[0][n] - losses[1][n]) for n in range(1, STEPS + 1))
        found["weights_differ"] = max(float((saved[0][n] - saved[1][n]).abs().max()) for n in saved[0])
    except Exception as error:
        logs = "\n".join(log.read_text()[-1500:] for log in (whole.with_suffix(".log"), ended.with_suffix(".log")))
        found |= {"failed": str(error), "log": logs}
    return found


def main() -> None:
    """Prints and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, help="folder of VOC2012")
    parser.add_argument("--episodes", type=Path, help="file of overfit.py's --prepare")
    parser.add_argument("--launchers", nargs="+", choices=("fsdp", "zero2"), default=["fsdp", "zero2"])
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--out", type=Path, help="folder for the result (JSON) and what the runs said")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)  # of a worker
    parser.add_argument("--end", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--resume", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.folder is not None:
        work(options.folder, options.episodes, end=options.end, resume=options.resume)
        return
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        episodes = options.episodes or scratch / "episodes.safetensors"
        if options.episodes is None:
            overfit.prepare(options.data_root, episodes)
        names = sorted({episode.class_name for episode in overfit.read(episodes)})
        toy_base.save(scratch, names).save_pretrained(scratch)
        (scratch / "settings.yaml").write_text(yaml.safe_dump(SETTINGS))
        with ThreadPoolExecutor(len(options.launchers)) as pool:
            results = list(
                pool.map(lambda name: tried(name, options.processes, scratch, episodes.absolute()), options.launchers)
            )
        print(json.dumps(results, indent=2))
        if options.out is not None:
            options.out.mkdir(parents=True, exist_ok=True)
            (options.out / "launched_run.json").write_text(json.dumps(results, indent=2) + "\n")
            for log in scratch.glob("*.log"):
                (options.out / log.name).write_text(log.read_text()[-100_000:])


if __name__ == "__main__":
    main()
