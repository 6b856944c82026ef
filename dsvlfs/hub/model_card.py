"""The card of a checkpoint: the one it has, or a new one; and its results as the hub reads them."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from pydantic import ConfigDict, FiniteFloat, with_config
from typing_extensions import TypedDict

from ..configuration import DSVLFSConfig
from ..files import write_text


@with_config(ConfigDict(extra="allow"))
class Figures(TypedDict):
    """Of a result of `dsvlfs.measuring.evaluation.evaluate`, what a card shows: percent."""

    miou: FiniteFloat
    fb_iou: FiniteFloat


_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def new_card(config: DSVLFSConfig) -> str:
    """A model card (Markdown with metadata) that says what the checkpoint is and what it needs; what it was trained on
    and what it scores is for its author to add."""
    bases = [base for base in (config.image_base, config.vlm_base, config.vision_base, config.language_base) if base]
    data = ModelCardData(
        library_name="dsvlfs",
        pipeline_tag="image-segmentation",
        tags=["few-shot-segmentation", "dsv-lfs"],
        base_model=[base for base in bases if _HUB_ID.fullmatch(base)] or None,  # the hub knows no others
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


def with_tags(card: str, tags: Sequence[str]) -> str:
    """A card whose metadata has these tags too; its text stays."""
    missing = [tag for tag in tags if tag not in (ModelCard(card).data.tags or [])]
    if not missing:
        return card
    tagged = ModelCard(card)
    tagged.data.tags = [*(tagged.data.tags or []), *missing]
    return str(tagged)


def write_results(file: Path, model_name: str, results: Mapping[str, Mapping[str, Any]]) -> None:
    """Puts results into a card's metadata (`model-index`) in place of those that it has; its text stays.

    Args:
        file: of the card.
        model_name: of the checkpoint.
        results: of `dsvlfs.measuring.evaluation.evaluate`, by the name of the data they were measured on.
    """
    card = ModelCard.load(file)
    card.data.model_name = model_name
    card.data.eval_results = [
        EvalResult(
            task_type="image-segmentation",
            task_name="Few-shot segmentation, 1 shot",
            dataset_type=data_name.lower().replace(" ", "-"),
            dataset_name=data_name,
            metric_type="mean_iou",
            metric_name=name,
            metric_value=round(float(result[key]), 1),
        )
        for data_name, result in results.items()
        for key, name in (("miou", "mIoU (%)"), ("fb_iou", "FB-IoU (%)"))
    ]
    write_text(file, str(card))
