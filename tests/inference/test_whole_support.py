"""The supports' whole photos are heard where the query is like them."""

import pytest
import torch
import torch.nn.functional as F
from conftest import build_micro_model

from dsvlfs.errors import InputError
from dsvlfs.hub.trained_parts import new_request_fit
from dsvlfs.inference import encoded
from dsvlfs.inference.encoded import Support
from dsvlfs.parts.request_fit import unit_positions
from dsvlfs.parts.whole_fit import fit_whole


@pytest.fixture
def reading():
    return build_micro_model(fit_ridge=10.0, whole_weight=3.0, whole_likeness=0.2)


@pytest.mark.parametrize("shots", [1, 3])
@pytest.mark.parametrize("mode", ["both", "visual"])
def test_its_map_is_added_to_the_logits(reading, circle, shots, mode):
    model, (photo, _) = reading, circle
    support, query = model.encode_support([circle] * shots), model.encode_query(photo)
    asked = {"support": support, "modes": [mode], "aggregation": "joint"}
    heard = model.predict(query, "circle", **asked)[mode].deciding[0]
    layers = [query.features[name] for name in model.config.correlation_layers]
    places = unit_positions(layers, 4)
    score = support.whole_fit.score(places).unflatten(1, (4, 4))
    assert 0.2 < support.whole_fit.likeness(places) < 1
    model.config.whole_likeness = 1.0
    unheard = model.predict(query, "circle", **asked)[mode].deciding[0]
    own = F.interpolate(3 * score[:, None], (16, 16), mode="bilinear", align_corners=False)[:, 0]
    wanted = model.processor.prediction(own, query.valid, query.size).logits[0]
    assert wanted.std() > 0.1
    assert torch.allclose(heard - unheard, wanted, atol=1e-3)


def test_it_is_solved_once_for_its_supports(reading, circle, monkeypatch):
    solved = []
    monkeypatch.setattr(encoded, "fit_whole", lambda *given: solved.append(given) or fit_whole(*given))
    support = reading.encode_support([circle] * 2)
    for name in ("circle", "square"):
        reading.predict(circle[0], name, support=support, modes=["both", "visual"], aggregation="joint")
    assert len(solved) == 1


def test_a_doubted_name_lowers_the_likeness_that_is_asked_for(reading, circle):
    support, query = reading.encode_support([circle]), reading.encode_query(circle[0])
    config = reading.config

    def logits(mode, **settings):
        config.update(settings)
        return reading.predict(query, "circle", support=support, modes=[mode])[mode].logits

    known = {mode: (logits(mode, whole_likeness=1.0), logits(mode, whole_likeness=0.2)) for mode in ("both", "visual")}
    config.update({"whole_likeness": 1.0, "doubted_likeness": 0.2})
    for mode, doubt, told in (("both", 1.0, 1), ("both", -1.0, 0), ("visual", 1.0, 0)):
        assert torch.equal(logits(mode, name_doubt=doubt), known[mode][told])
    unheard = logits("both", name_doubt=1.0, name_trust=1.0)
    assert torch.equal(unheard, known["visual"][1])
    support = reading.encode_support([circle] * 2)
    config.update({"name_trust": None, "shot_aggregation": "joint"})
    assert torch.equal(logits("both", name_doubt=1.0), logits("both", name_doubt=-1.0))


def test_several_masks_that_vote_leave_it_out(reading, circle):
    support = reading.encode_support([circle] * 2)
    asked = {"support": support, "modes": ["both"], "aggregation": "votes"}
    heard = reading.predict(circle[0], "circle", **asked)["both"].logits
    reading.config.whole_likeness = 1.0
    assert torch.equal(heard, reading.predict(circle[0], "circle", **asked)["both"].logits)


def test_supports_keep_the_whole_photos_where_they_are_read(reading, micro_model, circle, tmp_path):
    support = reading.encode_support([circle] * 3)
    assert [len(layer) for layer in (*support.whole, support.whole_masks)] == [3] * 3
    chosen = support[[2, 0]]
    assert torch.equal(chosen.whole_masks, support.whole_masks[[2, 0]])
    support.save(tmp_path / "own.safetensors", reading)
    loaded = Support.load(tmp_path / "own.safetensors", reading)
    assert all(torch.equal(a, b) for a, b in zip(loaded.whole, support.whole, strict=True))
    assert torch.equal(loaded.whole_masks, support.whole_masks)
    other = build_micro_model(fit_ridge=10.0)
    with pytest.raises(InputError, match="several models"):
        Support.join([support, other.encode_support([circle])])
    with pytest.raises(InputError, match="encode it again"):
        reading.predict(circle[0], "circle", support=other.encode_support([circle]), modes=["both"])
    assert other.encode_support([circle]).whole_masks is None
    with pytest.raises(InputError, match="another model"):
        Support.load(tmp_path / "own.safetensors", other)


def test_it_needs_the_fit_to_the_request(micro_model):
    micro_model.config.whole_weight = 2.0
    with pytest.raises(InputError, match="fit_ridge"):
        new_request_fit(micro_model.config)
