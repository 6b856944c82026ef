"""Exported ONNX files give the model's masks, in a process that never imports torch."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import micro_config, micro_tokenizer
from PIL import Image

from dsvlfs.cli import main
from dsvlfs.errors import InputError
from dsvlfs.export.onnx import export_onnx
from dsvlfs.modeling import DSVLFSModel
from dsvlfs.parts.request_fit import conjugate_gradients
from dsvlfs.processing import DSVLFSProcessor

READER = Path(__file__).parents[2] / "examples" / "run_onnx.py"
WITHOUT_TORCH = (
    f"import runpy, sys; runpy.run_path({str(READER)!r}, run_name='__main__'); assert 'torch' not in sys.modules"
)


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> tuple[DSVLFSModel, Path]:
    """A model whose every part says something, and its files."""
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    config = micro_config()
    config.update(
        {
            "detail_layers": ["vision.2", "vision.1"],
            "fit_ridge": 10.0,
            "fit_doubt": 0.79,
            "fit_weight": 2.0,
            "logit_offset": 0.0,
            "match_background": True,
            "match_priors": True,
            "name_trust": -1.0,
            "name_doubt": 1.0,
            "doubted_likeness": 0.0,
            "whole_weight": 2.0,
            "whole_likeness": 0.6,  # more than the drawn photos have
        }
    )
    model = DSVLFSModel(config, load_bases=False).eval()
    model.processor = DSVLFSProcessor(config, micro_tokenizer())
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        model.semantic_encoder.llava.model.multi_modal_projector.linear_2.weight.zero_()
        for parameter in (*model.request_fit.parameters(), *model.grounding.parameters()):
            parameter.add_(torch.randn(parameter.shape, generator=generator) / 10)
        model.grounding.basis.normal_(generator=generator)
    folder = tmp_path_factory.mktemp("exported") / "onnx"
    files = export_onnx(model, folder, ["red circle"])
    assert [file.name for file in files] == [
        "decoder.onnx",
        "manifest.json",
        "matcher.onnx",
        "query.onnx",
        "support.onnx",
    ]
    return model, folder


def drawn(folder: Path, seed: int) -> tuple[Path, Path]:
    """Files of a photo of a bright box on noise, and its mask."""
    rng = np.random.default_rng(seed)
    photo = rng.integers(0, 90, (60, 80, 3), dtype=np.uint8)
    mask = np.zeros((60, 80), np.uint8)
    left, top = rng.integers(5, 30, 2)
    mask[top : top + 24, left : left + 40] = 255
    photo[mask > 0] += np.array([150, 60, 20], np.uint8)
    files = folder / f"{seed}.png", folder / f"{seed}_mask.png"
    Image.fromarray(photo).save(files[0])
    Image.fromarray(mask).save(files[1])
    return files


# Two foretell one another with an IoU of 0.75, three with 0.83; the six's first five with 0.80, all six with 0.75.
@pytest.mark.parametrize(
    ("seeds", "name", "doubted"),
    [
        (range(1), "red circle", False),
        (range(2), None, True),
        (range(3), "red circle", False),
        (range(22, 28), "red circle", False),
    ],
)
def test_masks_are_the_models(exported, tmp_path, seeds, name, doubted):
    model, folder = exported
    supports, (query, _) = [drawn(tmp_path, seed) for seed in seeds], drawn(tmp_path, 9)
    given = [word for pair in supports for word in ("--support", *map(str, pair))]
    command = [sys.executable, "-c", WITHOUT_TORCH, str(folder), str(query), str(tmp_path / "out.png"), *given]
    subprocess.run(command + (["--class-name", name] if name else []), check=True)
    found = np.asarray(Image.open(tmp_path / "out.png")) > 0

    support = model.encode_support(supports)
    weighed = len(seeds) > 1 and bool(model.request_fit.weight(support.layers, support.masks) > 0)
    assert weighed == doubted
    options = {"min_presence": 0, "zoom": False, "aggregation": "joint", "mode": "both" if name else "visual"}
    wanted = model.segment(query, name or "circle", support=support, **options).mask
    assert 0.02 < wanted.mean() < 0.98
    assert (found & wanted).sum() / (found | wanted).sum() >= 0.995


def test_the_manifest_names_what_goes_in_and_out(exported):
    _, folder = exported
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    given = {*manifest["graphs"]["query"]["outputs"], *manifest["graphs"]["support"]["outputs"], "semantic_prompt"}
    assert {*manifest["graphs"]["matcher"]["inputs"]} <= given
    assert {*manifest["graphs"]["decoder"]["inputs"]} <= given | {
        *manifest["graphs"]["matcher"]["outputs"],
        "name_heard",
    }
    assert len(manifest["names"]["red circle"]) == 32


def test_an_export_replaces_no_other_files(monkeypatch, micro_model, tmp_path):
    monkeypatch.setattr("dsvlfs.export.onnx.importlib.util.find_spec", lambda name: True)
    micro_model.semantic_encoder.llava.model.multi_modal_projector.linear_2.weight.data.zero_()
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="holds something else"):
        export_onnx(micro_model, tmp_path)


def test_a_model_that_reads_the_photo_is_refused(monkeypatch, micro_model, tmp_path):
    monkeypatch.setattr("dsvlfs.export.onnx.importlib.util.find_spec", lambda name: True)
    with pytest.raises(InputError, match="reads no photo"):
        export_onnx(micro_model, tmp_path / "new")


def test_what_is_missing_is_said(monkeypatch, micro_model, tmp_path, capsys):
    monkeypatch.setattr("dsvlfs.export.onnx.importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr(DSVLFSModel, "from_pretrained", lambda name: micro_model)
    assert main(["export", "--onnx", str(tmp_path / "new")]) == 2
    assert "pip install 'dsvlfs[onnx]'" in capsys.readouterr().err


@pytest.mark.parametrize("shots", [1, 5])
def test_conjugate_gradients_solve_a_requests_fit(shots):
    """As ill-conditioned as the tiny size's: positions of a length of five, a ridge of ten."""
    generator = torch.Generator().manual_seed(0)
    common = torch.randn(1, 1, 60, generator=generator) * 2
    rows = torch.nn.functional.normalize(torch.randn(1, 144 * shots, 60, generator=generator) + common, dim=-1)
    matrix = 5 * rows @ rows.mT + 10 * torch.eye(144 * shots)
    wanted = torch.randn(1, 144 * shots, 1, generator=generator)
    exact = torch.linalg.solve(matrix.double(), wanted.double()).float()
    torch.testing.assert_close(conjugate_gradients(lambda x: matrix @ x, wanted), exact, rtol=1e-4, atol=1e-5)
