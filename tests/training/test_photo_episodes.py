"""Episodes as pixels: what is drawn, what counts, and what the model makes of it."""

import numpy as np
import pytest
import torch
from conftest import build_micro_model, micro_config, micro_tokenizer
from datasets import Dataset
from drawn_packs import draw_photo_folder
from drawn_sets import draw_folder
from PIL import Image
from torch.utils.data import DataLoader

from dsvlfs import InputError
from dsvlfs.data.named_sets import load_named_set
from dsvlfs.data.photos import FEATURES, load_photo_folder
from dsvlfs.data.targets import target_side
from dsvlfs.descriptions.bank import bank_description
from dsvlfs.processing import DSVLFSProcessor
from dsvlfs.training.episode_losses import EpisodeLosses, set_precision
from dsvlfs.training.photo_episodes import PhotoBatch, PhotoEpisodeDataset, collate_photos


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Dataset:
    return load_photo_folder(draw_photo_folder(tmp_path_factory.mktemp("photos")))


def _processor(**changes) -> DSVLFSProcessor:
    config = micro_config()
    config.update(changes)
    return DSVLFSProcessor(config, micro_tokenizer())


def _episodes(photos: Dataset, processor: DSVLFSProcessor | None = None, **changes) -> PhotoEpisodeDataset:
    return PhotoEpisodeDataset(photos, processor or _processor(), **({"length": 40, "seed": 0} | changes))


def _assert_same(a: PhotoBatch, b: PhotoBatch) -> None:
    for name, value in vars(a).items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(value, getattr(b, name), rtol=0, atol=0)
        else:
            assert value == getattr(b, name), name


def test_an_episode_is_made_by_its_number_alone_whoever_loads_it(photos):
    episodes = _episodes(photos)
    alone = [collate_photos([episodes[i], episodes[i + 1]]) for i in (4, 6)]
    loader = DataLoader(episodes, batch_sampler=[[4, 5], [6, 7]], collate_fn=collate_photos, num_workers=2)
    for mine, loaded in zip(alone, loader, strict=True):
        _assert_same(mine, loaded)


def test_query_and_support_are_two_photos_of_the_class(photos):
    episodes = _episodes(photos, description_share=1.0)
    drawn = [episodes[i] for i in range(40)]
    assert {episode.class_name for episode in drawn} == {"circle", "square"}
    for episode in drawn:
        assert (episode.use_semantic, episode.use_visual) == (True, True)
        assert episode.asked_name == episode.class_name
        assert episode.description == ("round" if episode.class_name == "circle" else None)
        assert episode.target.max() == 1
        assert episode.support_mask.max() == 1
        # Photos of one class differ in colour: the same one would have the same pixels at its centre.
        centres = [view.image_pixels[0, :, side // 2, side // 2] for view, side in _views(episode)]
        assert not torch.allclose(*centres, atol=0.2)


def test_a_pass_asks_for_every_photo_once(photos):
    episodes = _episodes(photos, in_passes=True)
    known = {np.asarray(_processor().query_view(row["image"]).image_pixels).tobytes() for row in photos}
    queries = [episodes[i].query.image_pixels.numpy().tobytes() for i in range(2 * len(photos))]
    first, second = queries[: len(photos)], queries[len(photos) :]
    assert set(first) == set(second) == known
    assert first != second  # in an order of its own
    assert first == [
        _episodes(photos, in_passes=True)[i].query.image_pixels.numpy().tobytes() for i in range(len(first))
    ]


def test_losses_can_be_taken_on_a_larger_square_of_hard_targets(photos):
    soft, hard = (_episodes(photos, _processor(loss_side=side)) for side in (None, 96))
    episode = hard[3]
    assert episode.target.shape == episode.counted.shape == (96, 96)
    assert set(episode.target.unique().tolist()) == {0.0, 1.0}
    assert abs(episode.target.mean() - soft[3].target.mean()) < 0.03
    model = build_micro_model()
    batches = [collate_photos([episodes[3], episodes[4]]) for episodes in (soft, hard)]
    small, large = (EpisodeLosses(model)(batch) for batch in batches)
    assert large["logits"].shape == (2, 96, 96)
    assert abs(float(small["bce_loss"]) - float(large["bce_loss"])) < 0.05


def test_a_class_without_a_definition_is_described_by_the_bank(tmp_path, monkeypatch):
    monkeypatch.setenv("DSVLFS_CACHE", str(tmp_path / "cache"))
    photos = load_named_set("folder", draw_folder(tmp_path / "own"), split="train", fold=None)
    drawn = [_episodes(photos)[i] for i in range(20)]
    assert {episode.class_name: episode.description for episode in drawn} == {
        name: bank_description(name) for name in ("fox", "owl", "pot", "sock")
    }
    assert bank_description("sock")
    silent = _episodes(photos, description_share=0.0)
    assert not any(silent[i].description for i in range(5))


def test_descriptions_are_spoiled_as_often_as_asked(tmp_path, monkeypatch):
    monkeypatch.setenv("DSVLFS_CACHE", str(tmp_path / "cache"))
    photos = load_named_set("folder", draw_folder(tmp_path / "own"), split="train", fold=None)
    plain, noisy, half = (_episodes(photos, description_noise=share) for share in (0.0, 1.0, 0.5))
    spoiled = {noise.description for i in range(40) if (noise := noisy[i]).description != plain[i].description}
    assert len(spoiled) > 4
    assert bank_description("fox") in spoiled  # another class's
    right = sum(half[i].description == bank_description(half[i].class_name) for i in range(40))
    assert 8 < right < 32
    assert noisy[3].description == _episodes(photos, description_noise=1.0)[3].description


def _views(episode):
    return [(view, view.image_pixels.shape[-1]) for view in (episode.query, episode.support)]


def test_prompts_are_left_out_and_names_are_wrong_as_often_as_asked(photos):
    visual = _episodes(photos, visual_only=1.0)
    assert not any(visual[i].use_semantic for i in range(10))
    semantic = collate_photos([_episodes(photos, semantic_only=1.0)[i] for i in range(4)])
    assert not semantic.use_visual.any()
    assert len(semantic.names) == 4
    misnamed = [_episodes(photos, misnamed=1.0)[i] for i in range(20)]
    wrong = [episode for episode in misnamed if episode.asked_name != episode.class_name]
    assert wrong
    assert all(episode.description is None for episode in wrong)


def _two_of(photo: Image.Image, mask: np.ndarray, ignore: np.ndarray) -> Dataset:
    """Two rows that differ in their name alone, so that either is the other's support."""
    row = {
        "image": photo,
        "mask": Image.fromarray(mask),
        "ignore": Image.fromarray(ignore),
        "class_name": "square",
        "class_names": ["square"],
        "definition": "",
    }
    return Dataset.from_list([row | {"photo_id": name} for name in "ab"], features=FEATURES)


def test_what_is_to_be_ignored_and_what_is_padding_do_not_count():
    photo = np.full((60, 120, 3), 90, np.uint8)
    mask, ignore = np.zeros((60, 120), bool), np.zeros((60, 120), bool)
    mask[:, :30] = True
    ignore[:, 30:60] = True
    rows = _two_of(Image.fromarray(photo), mask, ignore)
    episode = _episodes(rows, _processor(pad_to_square=True))[0]
    # A photo of 120 x 60 fills the upper half of the square; a quarter of that is ignored.
    side = target_side(micro_config())
    assert side == 16
    expected = torch.zeros(side, side)
    expected[: side // 2] = 1
    expected[: side // 2, side // 4 : side // 2] = 0
    torch.testing.assert_close(episode.counted, expected)
    wanted = torch.zeros(side, side)
    wanted[: side // 2, : side // 4] = 1
    torch.testing.assert_close(episode.target * episode.counted, wanted)


def test_a_cell_is_judged_by_what_counts_of_it():
    mask, ignore = np.zeros((56, 56), bool), np.zeros((56, 56), bool)
    mask[:, :2] = ignore[:, 2:28] = True  # half of what the first column of cells sees is ignored
    episode = _episodes(_two_of(Image.new("RGB", (56, 56)), mask, ignore))[0]
    assert episode.counted[5, 0] == pytest.approx(0.5, abs=0.01)
    assert episode.target[5, 0] == pytest.approx(1, abs=0.01)
    assert episode.target[5, 10] == 0


def test_classes_of_one_photo_are_left_out(photos):
    lone = photos.select([i for i, name in enumerate(photos["photo_id"]) if "circle" in name or name == "red_square"])
    assert _episodes(lone).class_names == ["circle"]
    with pytest.raises(InputError, match="No class has two photos"):
        _episodes(photos.select([0]))


def test_photos_are_encoded_as_inference_does(photos):
    model = build_micro_model()
    episode = _episodes(photos, model.processor)[3]
    output = EpisodeLosses(model)(collate_photos([episode]))
    support = model.support_features(model.frozen_features(episode.support), episode.support_mask)
    expected = model(
        model.frozen_features(episode.query),
        *support,
        model.processor.question([(episode.asked_name, episode.description)]),
        episode.target[None],
        use_semantic=torch.tensor([True]),
        use_visual=torch.tensor([True]),
    )
    torch.testing.assert_close(output["logits"], expected.logits.detach())
    torch.testing.assert_close(output["loss"], expected.loss)


def test_training_draws_from_all_questions_and_validation_asks_the_first(photos, monkeypatch):
    model = build_micro_model()
    model.config.further_templates = [[f"{{image}} {number} {{class_name}}", "<SEM_prompt>"] for number in range(3)]
    episodes = _episodes(photos)
    batch = collate_photos([episodes[i] for i in range(8)])
    asked = []
    question = DSVLFSProcessor.question

    def noted(self, names, *, variants=None, **options):
        asked.append(variants)
        return question(self, names, variants=variants, **options)

    monkeypatch.setattr(DSVLFSProcessor, "question", noted)
    losses = EpisodeLosses(model)
    with torch.no_grad():
        for seed in (0, 0, 1):
            torch.manual_seed(seed)
            losses.train()(batch)
        losses.eval()(batch)
    assert asked[0] == asked[1] != asked[2]
    assert set(asked[0]) <= set(range(4))
    assert len(set(asked[0] + asked[2])) > 1
    assert asked[3] is None


def test_half_precision_is_close_to_full(photos):
    full, half = build_micro_model(), build_micro_model()
    set_precision(half, "bf16")
    batch = collate_photos([_episodes(photos, full.processor)[i] for i in range(4)])
    with torch.autocast("cpu", torch.bfloat16):
        rounded = EpisodeLosses(half)(batch)
    rounded["loss"].backward()
    exact = EpisodeLosses(full)(batch)
    assert rounded["loss"].item() == pytest.approx(exact["loss"].item(), rel=0.02)
    dtypes = {p.requires_grad: set() for p in half.parameters()}
    for name, parameter in half.named_parameters():
        dtypes[parameter.requires_grad].add(parameter.dtype)
        if parameter.requires_grad:
            assert torch.isfinite(parameter.grad).all(), name
    assert dtypes[True] == {torch.float32}
    assert torch.bfloat16 in dtypes[False]
    kept = {name: tensor.dtype for name, tensor in half.trained_state_dict().items() if tensor.is_floating_point()}
    assert set(kept.values()) == {torch.float32}


def test_recomputed_activations_give_the_same_gradients(photos):
    gradients = []
    for recompute in (False, True):
        model = build_micro_model().train()
        if recompute:
            model.semantic_encoder.llava.model.language_model.activation_checkpointing_enable({"use_reentrant": False})
        torch.manual_seed(1)  # of dropout
        batch = collate_photos([_episodes(photos, model.processor)[i] for i in range(2)])
        EpisodeLosses(model)(batch)["loss"].backward()
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.requires_grad})
    torch.testing.assert_close(gradients[0], gradients[1])
