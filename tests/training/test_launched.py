"""Every run of the large sizes that comes along, under the launcher's settings that come along, at toy widths."""

import json
import os
from pathlib import Path

import launched_cpus
import launched_toy
import paper_like
import pytest
import torch
import yaml
from accelerate.commands import launch
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env
from drawn_sets import draw_coco, draw_pascal
from forked import run_two_processes
from safetensors.torch import load_file

CONFIGS = Path(__file__).parents[2] / "train" / "configs"
LARGE = sorted(file.stem for file in CONFIGS.glob("*.yaml") if "tiny" not in file.stem and file.stem != "finetune")
SMALLER = {
    "steps": 3,
    "batch_size": 4,
    "warmup_steps": 1,
    "workers": 0,
    "validation_every": 0,
    "checkpoint_every": 1,
    "log_every": 1,
}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    """Bases of both sizes, and both data sets."""
    folder = tmp_path_factory.mktemp("large")
    paper_like.save_bases(folder / "paper")
    paper_like.save_bases(folder / "base", paper_like.base_llava_config())
    draw_pascal(folder / "pascal-5i")
    draw_coco(folder / "coco-20i")
    return folder


@pytest.fixture(params=["fsdp", "zero2"])
def launched(request, tmp_path, monkeypatch) -> str:
    """The environment that `accelerate launch` makes of its settings for two processes; gives the precision to try."""
    given = ["--config_file", f"{CONFIGS}/accelerate/{request.param}.yaml", "--num_processes", "2"]
    made = {}
    if request.param == "fsdp":
        arguments, _, _ = _validate_launch_command(launch_command_parser().parse_args([*given, "--cpu", "train.py"]))
        made |= prepare_multi_gpu_env(arguments) | {"ACCELERATE_USE_CPU": "true"}
    else:
        pytest.importorskip("deepspeed")
        monkeypatch.setattr(launch, "deepspeed_launcher", lambda own: made.update(prepare_deepspeed_cmd_env(own)[1]))
        launch.launch_command(launch_command_parser().parse_args([*given, "train.py"]))
        made |= launched_cpus.ENVIRONMENT
    for name, value in made.items():
        if os.environ.get(name) != value and not name.startswith(("MASTER_", "WORLD", "RANK", "LOCAL_")):
            monkeypatch.setenv(name, value)
    monkeypatch.setenv("DSVLFS_CACHE", str(tmp_path / "cache"))
    return {"fsdp": "no", "zero2": "bf16"}[request.param]


@pytest.mark.parametrize("name", LARGE)
def test_a_run_starts_saves_and_resumes_divided_between_processes(name, drawn, launched, tmp_path):
    settings = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text()) | SMALLER
    if "model" in settings:
        settings["model"] = {"loss_side": 64}
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(settings))
    out = tmp_path / "run"
    given = [
        "--config",
        tmp_path / "settings.yaml",
        "--data-root",
        drawn / settings["dataset"].removesuffix("-exclusive"),
        "--out",
        out,
    ]
    statuses = run_two_processes(launched_toy.run_toy, drawn, given, launched)
    assert [status for status, _ in statuses] == [0, 0], statuses[0][1]
    lines = [json.loads(line) for line in (out / "losses.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert (out / "final" / "model.safetensors").is_file()
    progress = json.loads((out / "last" / "progress.json").read_text())
    assert progress["step"] == 3
    # What is resumed at its end does nothing but write its checkpoint again.
    (out / "final" / "model.safetensors").unlink()
    statuses = run_two_processes(launched_toy.run_toy, drawn, [*given, "--resume"], launched)
    assert [status for status, _ in statuses] == [0, 0], statuses[0][1]
    assert (out / "final" / "model.safetensors").is_file()


def test_a_divided_run_that_was_ended_in_the_middle_goes_on_with_the_same_losses(drawn, launched, tmp_path):
    settings = yaml.safe_load((CONFIGS / "base-pascal-5i.yaml").read_text()) | SMALLER | {"steps": 4}
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(settings))
    given = ["--config", tmp_path / "settings.yaml", "--data-root", drawn / "pascal-5i", "--out"]
    whole, ended = tmp_path / "whole", tmp_path / "ended"
    for expected, arguments, steps in ((0, [whole], None), (9, [ended], 2), (0, [ended, "--resume"], None)):
        statuses = run_two_processes(launched_toy.run_toy, drawn, [*given, *arguments], launched, steps)
        assert [status for status, _ in statuses] == [expected] * 2, statuses[0][1]
    mine, others = (
        [json.loads(line) for line in (run / "losses.jsonl").read_text().splitlines()] for run in (ended, whole)
    )
    assert [line["step"] for line in mine] == [line["step"] for line in others] == [1, 2, 3, 4]
    for line, other in zip(mine, others):
        del line["seconds"], other["seconds"]
        assert line == pytest.approx(other, abs=1e-6)
    for file in ("model.safetensors", "optimizer.safetensors"):
        resumed, undisturbed = (load_file(run / "last" / file) for run in (ended, whole))
        torch.testing.assert_close(resumed, undisturbed, rtol=0, atol=1e-5)
