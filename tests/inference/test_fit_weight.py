"""The fit to the request beside the decoder: the more supports, the more it counts."""

import pytest
import torch
import torch.nn.functional as F

from dsvlfs.parts.request_fit import RequestFit, foretold


@pytest.mark.parametrize(("shots", "times"), [(1, 0), (2, 1), (5, 4), (7, 4)])
def test_the_fits_map_is_added_for_each_further_support(shots, times, micro_model, circle):
    model = micro_model
    model.request_fit = RequestFit(prompt_dim=model.config.prompt_dim)
    support, query = model.encode_support([circle] * shots), model.encode_query(circle[0])
    asked = {"support": support, "modes": ["both", "semantic"], "aggregation": "joint"}
    plain = model.predict(query, "circle", **asked)
    model.request_fit.share = 3.0
    weighed = model.predict(query, "circle", **asked)
    layers = [query.features[name] for name in model.config.correlation_layers]
    score = model.request_fit.score(layers, [x[None] for x in support.layers], support.masks[None], 4)
    own = F.interpolate(3 * times * score[:, None], (16, 16), mode="bilinear", align_corners=False)[:, 0]
    added = model.processor.prediction(own, query.valid, query.size).logits[0]
    change = weighed["both"].deciding[0] - plain["both"].deciding[0]
    assert own.std() > 0.1 or not times
    assert torch.allclose(change, added, atol=1e-4)
    assert torch.equal(weighed["semantic"].logits, plain["semantic"].logits)


def test_it_is_not_added_where_the_supports_foretell_one_another(micro_model, circle):
    model = micro_model
    model.request_fit = RequestFit(prompt_dim=model.config.prompt_dim, share=3.0)
    photo, mask = circle
    support, other = model.encode_support([circle] * 3), model.encode_support([circle, (photo, ~mask), circle])
    alike, unlike = (foretold(own.layers, own.masks, ridge=10.0) for own in (support, other))
    assert unlike < alike
    model.request_fit.doubt = float(alike + unlike) / 2
    assert model.request_fit.weight(support.layers, support.masks) == 0
    assert model.request_fit.weight(other.layers, other.masks) == 6
    assert model.request_fit.weight([layer[:1] for layer in other.layers], other.masks[:1]) == 0
