"""The card of a checkpoint that has none yet."""

from huggingface_hub import ModelCard, ModelCardData

from .configuration import DSVLFSConfig


def new_card(config: DSVLFSConfig) -> str:
    """A model card (Markdown with metadata) that says what the checkpoint is and what it needs; what it was trained on
    and what it scores is for its author to add."""
    bases = [base for base in (config.image_base, config.vlm_base, config.vision_base, config.language_base) if base]
    data = ModelCardData(
        library_name="dsvlfs",
        pipeline_tag="image-segmentation",
        tags=["few-shot-segmentation", "dsv-lfs"],
        base_model=[base for base in bases if "/" in base] or None,  # the hub knows no others
    )
    return str(
        ModelCard(
            f"---\n{data.to_yaml()}\n---\n\n# DSV-LFS\n\n"
            "Few-shot segmentation by a semantic and a visual prompt ([DSV-LFS](https://arxiv.org/abs/2503.04006)), "
            "trained with dsvlfs. The checkpoint holds what was trained; its frozen bases are "
            f"{', '.join(bases)}.\n\n"
            '```python\nfrom dsvlfs import DSVLFSModel\n\nmodel = DSVLFSModel.from_pretrained("this folder or id")\n'
            "```\n"
        )
    )
