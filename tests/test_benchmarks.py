"""What the benchmarks make of what they measure; no time is asserted."""

import costs
import full_size
import overfit
import paper_like
import pytest
import random_sizes
import torch
from conftest import micro_config

from dsvlfs import DSVLFSModel
from dsvlfs.measuring.costs import cost

CPU = torch.device("cpu")
ROW = {"seconds": 2.0, "fastest": 1.0, "slowest": 3.0, "memory_mib": 8.0, "gflop": 4.0}


def test_tasks_are_counted_once_and_timed_in_turns():
    calls = []

    def task(name: str, side: int) -> None:
        calls.append(name)
        torch.ones(side, side) @ torch.ones(side, side)

    groups = {"First": {"a": lambda: task("a", 8)}, "Second": {"b": lambda: task("b", 16)}}
    found = costs.measure(groups, 2, CPU)
    assert calls == ["a", "b"] * 3
    assert found["First"]["a"]["gflop"] == 2 * 8**3 / 1e9
    assert found["Second"]["b"]["memory_mib"] == 3 * 4 * 16**2 / 2**20
    row = found["First"]["a"]
    assert row["fastest"] <= row["seconds"] <= row["slowest"]


def test_ratios():
    queries = {
        "1 query": ROW,
        "10 queries singly": ROW | {"seconds": 20.0},
        "10 queries in a batch": ROW | {"seconds": 10.0},
    }
    peers = {"CLIPSeg-rd64": ROW | {"gflop": 1.0}, "SegGPT-ViT-L": ROW | {"memory_mib": 80.0}}
    clipseg, seggpt, batch = costs.ratios({"Queries": queries, "Peers": peers}).values()
    assert clipseg == {"seconds": 1, "memory_mib": 1, "gflop": 4}
    assert seggpt == {"seconds": 1, "memory_mib": 10, "gflop": 1}
    assert batch == {"seconds": 0.5, "memory_mib": 1, "gflop": 1}


def test_tables_are_markdown():
    text = str(costs.measured_table("Shots", {"1 shot": ROW, "10 shots": ROW | {"seconds": 5.0}}))
    assert text == (
        "### Shots\n\n"
        "| shots    | seconds | fastest | slowest | x first | MiB | GFLOP |\n"
        "| -------- | ------: | ------: | ------: | ------: | --: | ----: |\n"
        "| 1 shot   |   2.000 |   1.000 |   3.000 |    1.00 |   8 |   4.0 |\n"
        "| 10 shots |   5.000 |   1.000 |   3.000 |    2.50 |   8 |   4.0 |"
    )
    assert "x first" not in str(costs.measured_table("Peers", {"one": ROW}))


def test_every_table_has_a_text_for_every_head():
    side = {"seconds": 1.0, "extra_gib": 2.0}
    case = {"backward": True, "size": 32, "foreground": 0.28, "faster": 3.0, "memory_share": 0.2}
    computed = cost(micro_config())
    tables = [
        costs.ratio_table({"a / b": {"seconds": 1.0, "memory_mib": 2.0, "gflop": 3.0}}),
        costs.part_table(computed),
        costs.precision_table(computed),
        costs.matching_table([case | {"reference": side, "ours": side}]),
        costs.training_table({"seconds": 1.0, "fastest": 1.0, "slowest": 1.0, "peak_gib": 40.0}),
        costs.training_table({}),  # does not fit
    ]
    for table in tables:
        assert all(len(row) == len(table.head) for row in table.rows)
    assert computed.parts[-1].name in str(tables[1])


def test_what_grows_is_asked(micro_model, monkeypatch):
    monkeypatch.setattr(costs, "SHOTS", (1, 2))
    monkeypatch.setattr(costs, "CLASSES", (1, 2))
    monkeypatch.setattr(costs, "QUERIES", 2)
    monkeypatch.setattr(costs, "SIZES", (56, 84))
    monkeypatch.setattr(costs, "peers", lambda device: {"CLIPSeg-rd64": lambda: None})
    processor = micro_model.processor
    groups = costs.groups(micro_model, costs.Example.first(), CPU)
    found = {
        title: {name: costs.counted(task)["gflop"] for name, task in tasks.items()} for title, tasks in groups.items()
    }
    assert micro_model.processor is processor
    assert list(found["Classes"]) == ["1 query, 1 class", "1 query, 2 classes"]
    for title in ("Shots", "Classes", "Sizes"):
        less, more = found[title].values()
        assert less < more
    queries = found["Queries"]
    assert queries["2 queries in a batch"] == pytest.approx(queries["2 queries singly"])
    assert queries["1 query encoded before"] < queries["1 query"] < queries["1 query of a new class"]


def test_the_papers_training_step_trains():
    torch.manual_seed(0)
    model = costs.random_model(paper_like.config(), CPU)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    costs.training_step(model)()
    changed = [name for name, p in model.named_parameters() if not torch.equal(before[name], p)]
    for part in ("matcher", "mask_decoder", "to_prompt", "lora_B", "embed_tokens", "lm_head"):
        assert any(part in name for name in changed), part
    assert not any("image_encoder" in name or "vision_tower" in name for name in changed)


def test_a_training_steps_figures():
    assert set(costs.train(paper_like.config(), 1, CPU)) == {"seconds", "fastest", "slowest", "peak_gib"}


def test_a_step_that_does_not_fit_has_no_figures(monkeypatch):
    def too_large(model):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(costs, "training_step", too_large)
    assert costs.train(paper_like.config(), 1, CPU) == {}


def test_random_weights_are_the_same_in_both_precisions_and_placed_as_a_checkpoint_is():
    config = random_sizes.config_of("toy")
    wide, narrow = (random_sizes.for_inference(config, dtype, CPU) for dtype in (torch.float32, torch.bfloat16))
    own = dict(narrow.named_parameters())
    for name, parameter in wide.named_parameters():
        torch.testing.assert_close(own[name].float(), parameter, rtol=1e-2, atol=0)
        trained = parameter.requires_grad or name.startswith(("mask_decoder", "matcher"))
        assert own[name].dtype == (torch.float32 if trained or "to_prompt" in name else torch.bfloat16)


def test_random_weights_that_are_tied_stay_so():
    model = random_sizes.for_training(paper_like.base_config(), "bf16", CPU)
    with torch.device("meta"):
        made = DSVLFSModel(paper_like.base_config(), load_bases=False)
    assert [sum(p.numel() for p in m.parameters()) for m in (model, made)] == [made.num_parameters()] * 2


def test_episodes_are_read_as_they_were_written(tmp_path):
    model = random_sizes.for_inference(random_sizes.config_of("toy"), torch.float32, CPU)
    episode = full_size.drawn_episode(model)
    overfit.write([episode], tmp_path / "episodes.safetensors")
    (again,) = overfit.read(tmp_path / "episodes.safetensors")
    for name, value in vars(episode).items():
        own = getattr(again, name)
        pairs = zip(vars(value).values(), vars(own).values()) if name in ("query", "support") else [(value, own)]
        assert all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in pairs)
