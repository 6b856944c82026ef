import torch


def test_queries_are_merged_and_supports_are_not(micro_model, circle):
    query, support = micro_model.encode_query(circle[0]), micro_model.encode_support([circle])
    micro_model.config.merge_tokens = True
    merged, same = micro_model.encode_query(circle[0]), micro_model.encode_support([circle])
    assert not torch.allclose(merged.features["image.2"], query.features["image.2"])
    assert torch.equal(merged.features["vision.5"], query.features["vision.5"])
    assert all(torch.equal(one, other) for one, other in zip(same.layers, support.layers, strict=True))
    assert micro_model.segment(merged, "circle", support=support).mask.shape == (60, 80)
