import torch

from dsvlfs.parts.mask_decoder import MaskDecoder


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def decoder(**options: object) -> MaskDecoder:
    torch.manual_seed(0)
    return MaskDecoder(dim=32, multimask_outputs=0, **options).eval()


@torch.no_grad()
def test_the_mask_is_that_of_transformers_own_decoder():
    ours = decoder()
    embedding, semantic, visual = drawn(2, 32, 6, 5), drawn(2, 32, seed=1), drawn(2, 32, 6, 5, seed=2)
    theirs, _ = ours.decoder(
        image_embeddings=embedding,
        image_positional_embeddings=ours._positions(6, 5).expand(2, -1, -1, -1),
        sparse_prompt_embeddings=semantic[:, None, None],
        dense_prompt_embeddings=visual,
        multimask_output=False,
    )
    torch.testing.assert_close(ours(embedding, semantic, visual), theirs[:, 0, 0])


@torch.no_grad()
def test_finer_layers_join_the_mask_once_they_have_learned():
    plain, fine = decoder(), decoder(detail_channels=(7, 3))
    fine.load_state_dict(plain.state_dict(), strict=False)
    asked = drawn(2, 32, 4, 4), drawn(2, 32, seed=1), drawn(2, 32, 4, 4, seed=2)
    details = [drawn(2, 7, 9, 9, seed=3), drawn(2, 3, 20, 20, seed=4)]  # of any size
    torch.testing.assert_close(fine(*asked, details), plain(*asked))
    for layer in fine.details:
        torch.nn.init.normal_(layer.weight)
    changed = fine(*asked, details)
    assert changed.shape == (2, 16, 16)
    assert not torch.allclose(changed, plain(*asked), atol=1e-3)
    torch.testing.assert_close(fine(*asked, [10 * layer for layer in details]), changed, rtol=0, atol=0.02)
