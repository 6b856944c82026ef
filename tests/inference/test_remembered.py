"""A class that the checkpoint remembers is asked for by its name, with supports and without."""

import pytest
import torch
import torch.nn.functional as F
from conftest import build_micro_model

from dsvlfs.errors import InputError
from dsvlfs.export.onnx import export_onnx
from dsvlfs.hub.trained_parts import new_class_memory
from dsvlfs.inference.remembered import place_of


@pytest.fixture
def knowing():
    """A model that remembers one class, by a direction that is drawn."""
    model = build_micro_model(fit_ridge=10.0, remembered_classes=["Red circle"], memory_weight=3.0)
    model.class_memory.directions.normal_(generator=torch.Generator().manual_seed(0))
    return model


@pytest.mark.parametrize(("name", "place"), [("fire truck", 1), ("Fire-Truck", 1), ("cow", 0), ("truck", None)])
def test_a_class_is_found_however_its_name_is_written(name, place):
    assert place_of(["cow", "fire truck"], name) == place


@pytest.mark.parametrize("mode", ["semantic", "both"])
def test_its_map_joins_the_prompt_and_the_logits(knowing, circle, mode):
    model, (photo, _) = knowing, circle
    query, support = model.encode_query(photo), model.encode_support([circle] * 2)
    asked = {"support": support, "modes": [mode], "aggregation": "joint"}
    found = model.predict(query, "red circle", **asked)[mode].deciding
    memory, model.class_memory = model.class_memory, None
    unknown = model.predict(query, "red circle", **asked)[mode].deciding
    model.class_memory = memory
    model.config.memory_weight = 0.0
    unweighed = model.predict(query, "red circle", **asked)[mode].deciding
    score = memory.score(0, [query.features[name] for name in model.config.correlation_layers], 4)
    own = F.interpolate(3 * score[:, None], (16, 16), mode="bilinear", align_corners=False)[:, 0]
    assert torch.allclose(found - unweighed, model.processor.prediction(own, query.valid, query.size).logits, atol=1e-3)
    assert own.std() > 0.1
    with torch.no_grad():
        model.request_fit.to_prompt[-1].weight.normal_(generator=torch.Generator().manual_seed(0))
    told = model.predict(query, "red circle", **asked)[mode].deciding
    assert (told - unweighed).abs().max() > 1e-3
    assert not torch.equal(unknown, found)


def test_other_names_and_the_visual_prompt_alone_are_as_without_it(knowing, circle):
    model, support = knowing, knowing.encode_support([circle])
    asked = {"support": support, "modes": ["both", "visual", "semantic"]}
    other, visual = model.predict(circle[0], "square", **asked), model.predict(circle[0], "red circle", **asked)
    model.class_memory = None
    without = model.predict(circle[0], "square", **asked)
    assert all(torch.equal(other[mode].logits, without[mode].logits) for mode in other)
    assert torch.equal(visual["visual"].logits, without["visual"].logits)


def test_a_name_that_is_not_believed_remembers_nothing(knowing, circle):
    model, support = knowing, knowing.encode_support([circle])
    model.config.name_trust = 1.0
    found = model.predict(circle[0], "red circle", support=support, modes=["both", "visual"])
    assert torch.equal(found["both"].logits, found["visual"].logits)


def test_it_is_saved_and_loaded(knowing, tmp_path):
    knowing.save_pretrained(tmp_path)
    other = build_micro_model(fit_ridge=10.0, remembered_classes=["Red circle"])
    other.load_trained(tmp_path / "model.safetensors")
    assert torch.equal(other.class_memory.directions, knowing.class_memory.directions)


def test_it_needs_the_fit_to_the_request(micro_model):
    micro_model.config.remembered_classes = ["cow"]
    with pytest.raises(InputError, match="fit_ridge"):
        new_class_memory(micro_model.config)


def test_exported_graphs_remember_nothing_and_are_refused(monkeypatch, knowing, tmp_path):
    monkeypatch.setattr("dsvlfs.export.onnx.importlib.util.find_spec", lambda name: True)
    knowing.semantic_encoder.llava.model.multi_modal_projector.linear_2.weight.data.zero_()
    with pytest.raises(InputError, match="remembers classes"):
        export_onnx(knowing, tmp_path / "new")
