import numpy as np
import torch
import torch.nn.functional as F
from test_prototype import BLUE, RED, ColourModel, left_half, two_colours

from dsvlfs.measuring.mutual import MutualSegmenter, MutualSupport, candidates, mutual_scores

EYE = torch.eye(4)


def test_candidates_are_nearer_to_the_foreground_and_count_twice_where_both_choose():
    support = MutualSupport(EYE[:2], torch.tensor([1.0, 0.0]))
    query = F.normalize(torch.tensor([[1.0, 0, 0, 0], [0.8, 0.6, 0, 0], [0, 1, 0, 0]]), dim=1)
    found = candidates(query, support)
    torch.testing.assert_close(found, torch.tensor([2.0, 0.8 - 0.6, 0.0]))


def test_the_seeds_cluster_is_whole_and_what_is_unlike_it_is_left_out():
    generator = torch.Generator().manual_seed(0)
    things = torch.cat([EYE[i] + 0.1 * torch.rand(5, 4, generator=generator) for i in (0, 1, 2)])
    query = F.normalize(things, dim=1)
    support = MutualSupport(EYE[[0, 1]], torch.tensor([1.0, 0.0]))
    scores = mutual_scores(query, support)
    assert (scores[:5] == 1).all()
    assert (scores[5:] < 0.1).all()


def test_where_nothing_speaks_for_the_class_nothing_is_found():
    support = MutualSupport(EYE[[0, 1]], torch.tensor([1.0, 0.0]))
    assert not mutual_scores(EYE[[1, 1]], support).any()


def test_segment_finds_what_the_supports_show():
    segmenter = MutualSegmenter(ColourModel(), {"image.9": 1.0, "vision.5": 0.5})
    example = two_colours((40, 30), RED, BLUE), left_half((40, 30))
    support = MutualSupport.join([segmenter.encode_support([example]) for _ in range(2)])
    result = segmenter.segment(two_colours((64, 48), BLUE, RED), "red half", support=support)
    assert result.mask.shape == result.probability.shape == (48, 64)
    assert result.probability.dtype == np.float32
    assert result.mask[:, 48:].all()
    assert not result.mask[:, :16].any()
