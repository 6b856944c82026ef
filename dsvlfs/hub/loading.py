"""A checkpoint opened: all that a model is built from, before the bases, which take longer."""

import copy
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..configuration import DSVLFSConfig
from ..errors import BaseNotAvailableError, InputError
from ..files import read_text
from .checkpoint_files import CONFIG, TENSORS, checkpoint_folder, read_checkpoint, read_config
from .options import override, sort_options


@dataclass(frozen=True)
class Opened:
    """What a checkpoint holds, and what was asked for with it.

    Args:
        config: with the changes asked for.
        tensors: what was trained.
        said: metadata of the tensors.
        file: of the tensors.
        card: Markdown; None where there is none.
        image_options, vlm_options: of `dsvlfs.hub.bases.load_base`, of the image encoder and of the LLaVA.
    """

    config: DSVLFSConfig
    tensors: dict[str, Tensor]
    said: dict[str, Any]
    file: Path
    card: str | None
    image_options: dict[str, Any]
    vlm_options: dict[str, Any]


def open_checkpoint(
    name_or_path: str | os.PathLike,
    config: DSVLFSConfig | str | os.PathLike | None,
    of_checkpoint: Mapping[str, Any],
    image_options: Mapping[str, Any] | None,
    vlm_options: Mapping[str, Any] | None,
    options: Mapping[str, Any],
) -> Opened:
    """Opens a checkpoint; the arguments are those of `DSVLFSModel.from_pretrained`, `of_checkpoint` its `subfolder`,
    `revision` and `force_download`."""
    hub, shared, changes = sort_options(options)
    folder = checkpoint_folder(name_or_path, **of_checkpoint, **hub)
    if config is None:
        config = read_config(folder)
    elif not isinstance(config, DSVLFSConfig):
        config = read_config(checkpoint_folder(config, **hub))
    config = copy.deepcopy(config)
    override(config, changes)
    config.name_or_path = str(name_or_path)
    if config._attn_implementation is not None:  # where an Auto class has put the option
        shared.setdefault("attn_implementation", config._attn_implementation)
        config._attn_implementation = None
    card = folder / "README.md"
    tensors, said = read_checkpoint(folder / TENSORS)
    return Opened(
        config=config,
        tensors=tensors,
        said=said,
        file=folder / TENSORS,
        card=read_text(card) if card.is_file() else None,
        image_options=hub | shared | dict(image_options or {}),
        vlm_options=hub | shared | dict(vlm_options or {}),
    )


@contextmanager
def blaming_config(opened: Opened, build: Callable[[], object]) -> Iterator[None]:
    """What goes wrong while a model is built is the config's fault where no model at all can be built of it.

    Args:
        opened: the checkpoint.
        build: a model of its config, without bases; called where something went wrong.

    Raises:
        InputError: the config is damaged.
    """
    try:
        yield
    except (InputError, BaseNotAvailableError):
        raise
    except Exception as error:  # a damaged config fails in any way
        try:
            with torch.device("meta"):
                build()
        except Exception:
            raise InputError(
                f"{opened.file.with_name(CONFIG)} describes no model that can be built ({type(error).__name__}); get "
                "the checkpoint again."
            ) from error
        raise
