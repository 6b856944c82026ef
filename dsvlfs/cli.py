"""Command line: `dsvlfs segment`, `label`, `describe`, `evaluate`, `episodes`, `info`, `import` and `analyze`.

Exit status: 0 all done; 1 some photos could not be read and the others are done; 2 nothing could be done. Standard
error has the reason, and one for each photo that could not be read.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import InputError
from .files import PHOTO_SUFFIXES, write_json
from .measuring.analysis.commands import add_analyses, count

if TYPE_CHECKING:
    from .descriptions.writers import Writer
    from .modeling import DSVLFSModel

# PyTorch and transformers take seconds to import: each command imports what it needs, and `--help` needs neither.

MODES = ("both", "semantic", "visual")
AGGREGATIONS = ("votes", "logits", "joint", "attention")
SETS = ("pascal-5i", "coco-20i", "fss-1000", "lvis-92i", "folder")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit status."""
    arguments = _parser().parse_args(argv)
    try:
        return arguments.run(arguments)
    except (InputError, OSError) as error:  # OSError: no base model (BaseNotAvailableError), a full disk
        _complain(error)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dsvlfs", description="Few-shot segmentation: finds a class in photos, from its name and example masks."
    )
    commands = parser.add_subparsers(title="commands", required=True)

    segment = commands.add_parser(
        "segment", help="segment photos", description="Writes STEM_mask.png and STEM_overlay.png for each query photo."
    )
    segment.set_defaults(run=_segment)
    _add_request_arguments(segment)
    segment.add_argument(
        "--query", nargs="+", required=True, type=Path, metavar="IMAGE_OR_FOLDER", help="photos to segment"
    )
    segment.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder for the results")

    label = commands.add_parser(
        "label",
        help="label a data set",
        description="Writes a mask and an overlay for each photo, and of all a COCO JSON, a data set for "
        "datasets.load_dataset, and a contact sheet. Run again, it goes on where it stopped. In several processes: "
        "'accelerate launch --multi_gpu -m dsvlfs label ...' or, without GPUs, 'torchrun --nproc_per_node N -m dsvlfs "
        "label ...'.",
    )
    label.set_defaults(run=_in_all_processes(_label))
    _add_request_arguments(label)
    label.add_argument(
        "--photos",
        required=True,
        metavar="FOLDER_OR_DATASET",
        help="a folder of photos (its subfolders too), or a data set as datasets.load_dataset names it",
    )
    label.add_argument("--split", default="train", help="of the data set (default: train)")
    label.add_argument("--image-column", default="image", metavar="COLUMN", help="of the data set (default: image)")
    label.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder for the results")

    describe = commands.add_parser(
        "describe",
        help="say what classes look like",
        description="Prints a description of each class, for --description: from the bank that comes with the package, "
        "else by a language model. What a language model writes is remembered.",
    )
    describe.set_defaults(run=_describe)
    describe.add_argument("names", nargs="+", metavar="NAME", help="a class, such as 'red fox'")
    describe.add_argument(
        "--source",
        choices=("bank", "checkpoint", "transformers", "endpoint"),
        default="bank",
        help="the bank, and the checkpoint's own language model for what it lacks (default); that language model; any "
        "of transformers; or one behind a server with OpenAI's interface, whose key is taken from $DSVLFS_API_KEY",
    )
    describe.add_argument(
        "--language-model", metavar="NAME", help="of transformers: id on the hub or folder; of a server: its name there"
    )
    describe.add_argument("--base-url", metavar="URL", help="of the server, such as http://localhost:8000/v1")
    describe.add_argument("--anew", action="store_true", help="ask again what the language model has answered before")
    describe.add_argument("--out", type=Path, metavar="FILE.json", help="also write them, by name, to a file")
    _add_model_argument(describe)

    evaluate = commands.add_parser(
        "evaluate",
        help="measure on episodes",
        description="Measures mIoU, FB-IoU and more, on a file of episodes or by a named set's test protocol. Under "
        "`accelerate launch -m dsvlfs evaluate ...` the processes share the episodes.",
    )
    evaluate.set_defaults(run=_in_all_processes(_evaluate))
    evaluate.add_argument(
        "--root", required=True, type=Path, metavar="DIR", help="folder that the episodes' photos are looked for in"
    )
    source = evaluate.add_mutually_exclusive_group(required=True)
    source.add_argument("--episodes", type=Path, metavar="FILE.jsonl", help="one episode a line")
    source.add_argument("--set", choices=SETS, help="measure by this set's test protocol")
    _add_protocol_arguments(evaluate)
    evaluate.add_argument(
        "--trained-on",
        type=_set_and_fold,
        metavar="SET[:FOLD]",
        help="what the model was trained on: classes that are tested too are reported apart, and false positives are "
        "counted on all of them (default: no classes apart, and the set's other folds' false positives)",
    )
    evaluate.add_argument(
        "--trained-on-root",
        type=Path,
        metavar="DIR",
        help="that set's folder; PASCAL's and COCO's classes are known without (default: --root for the same set)",
    )
    evaluate.add_argument("--mode", choices=MODES, default="both", help="prompts to use (default: both)")
    _add_aggregation_argument(evaluate)
    evaluate.add_argument(
        "--describe",
        action="store_true",
        help="say what each class looks like too: its definition in the photos' metadata, else the bank's text "
        "(default: its name alone)",
    )
    evaluate.add_argument(
        "--method",
        choices=("model", "prototype"),
        default="model",
        help="the model, or the training-free comparison on its frozen features (default: model)",
    )
    evaluate.add_argument(
        "--limit", type=count, metavar="N", help="take only the file's, or each seed's, first N episodes"
    )
    evaluate.add_argument(
        "--workers", type=count, default=0, metavar="N", help="processes that read photos ahead (default: none)"
    )
    evaluate.add_argument("--out", required=True, type=Path, metavar="RESULT.json", help="file for the result")
    _add_model_argument(evaluate)

    episodes = commands.add_parser(
        "episodes",
        help="write a test protocol's episodes",
        description="Writes the episodes of a named set's test protocol, for `evaluate --episodes` and other systems.",
    )
    episodes.set_defaults(run=_episodes)
    episodes.add_argument("--root", required=True, type=Path, metavar="DIR", help="the set's folder")
    episodes.add_argument("--set", required=True, choices=SETS, help="the set")
    _add_protocol_arguments(episodes)
    episodes.add_argument("--limit", type=count, metavar="N", help="only each seed's first N episodes")
    episodes.add_argument("--out", required=True, type=Path, metavar="FILE.jsonl", help="file for the episodes")

    info = commands.add_parser(
        "info",
        help="what a size costs",
        description="Prints parameters, operations and memory of a size, without loading any weights.",
    )
    info.set_defaults(run=_info)
    info.add_argument("--config", choices=("tiny", "paper"), default="paper", help="the size (default: paper)")

    convert = commands.add_parser(
        "import", help="convert others' checkpoints", description="Converts a checkpoint; nothing in it is run."
    )
    convert.set_defaults(run=_import)
    source = convert.add_mutually_exclusive_group(required=True)
    source.add_argument("--sam", type=Path, metavar="FILE.pth", help="official SAM, to a base for `image_base`")
    source.add_argument(
        "--reference", type=Path, metavar="FILE.bin", help="the authors' code, after zero_to_fp32, to a checkpoint"
    )
    convert.add_argument(
        "--check",
        action="store_true",
        help="of --sam: compare the result with segment-anything's own modules (needs dsvlfs[sam])",
    )
    convert.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder for the result")

    add_analyses(commands, _add_model_argument, _load_model)
    return parser


def _add_request_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--class-name", required=True, metavar="NAME", help="what to find, such as 'red fox'")
    parser.add_argument("--description", metavar="TEXT", help="what the class looks like, in a sentence or a paragraph")
    parser.add_argument(
        "--support",
        nargs=2,
        action="append",
        default=[],
        type=Path,
        metavar=("IMAGE", "MASK"),
        help="an example photo with its mask (foreground is not zero); repeat for more shots",
    )
    parser.add_argument(
        "--mode", choices=MODES, help="prompts to use; default: both where there is a support, else semantic"
    )
    parser.add_argument(
        "--threshold", type=_fraction, default=0.5, help="probability from which a pixel is foreground (default: 0.5)"
    )
    parser.add_argument(
        "--min-presence",
        type=_fraction,
        metavar="SCORE",
        help="leave the mask empty where less speaks for the class being in the photo; 0 empties none "
        "(default: the checkpoint's own limit)",
    )
    _add_aggregation_argument(parser)
    _add_model_argument(parser)


def _add_protocol_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--fold", type=int, metavar="N", help="fold of --set, from 0 on (default: every class)")
    parser.add_argument("--shots", type=count, metavar="K", help="supports of an episode of --set (default: 1)")
    parser.add_argument("--seeds", type=count, metavar="N", help="repetitions for --set (default: the protocol's)")


def _add_aggregation_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--aggregation",
        choices=AGGREGATIONS,
        help="how several supports become one mask: votes, as in the paper; logits, their mean; joint, all compared "
        "with at once; attention, weighed as the checkpoint learned to (default: the checkpoint's own way)",
    )


def _add_model_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        default="dsvlfs-tiny",
        metavar="NAME_OR_PATH",
        help="a checkpoint's folder or name (default: dsvlfs-tiny)",
    )


def _fraction(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def _set_and_fold(text: str) -> tuple[str, int | None]:
    name, _, fold = text.partition(":")
    if name not in SETS:
        raise argparse.ArgumentTypeError(f"{name} is none of {', '.join(SETS)}")
    return name, int(fold) if fold else None


def _segment(arguments: argparse.Namespace) -> int:
    from PIL import Image
    from tqdm import tqdm

    from .inference.photos import load_mask, load_photo
    from .inference.pictures import overlay

    mode = _mode(arguments)
    queries = _find_queries(arguments.query)
    _check_outputs(queries, arguments.out, inputs=[*queries, *(file for pair in arguments.support for file in pair)])
    examples = []
    for photo_file, mask_file in arguments.support:
        photo = load_photo(photo_file)
        examples.append((photo, load_mask(mask_file, photo.size)))
    _make_folder(arguments.out)

    model = _load_model(arguments.model)
    support = model.encode_support(examples) if mode != "semantic" else None
    unreadable = 0
    for query in tqdm(queries, unit="photo", disable=len(queries) == 1):
        try:
            photo = load_photo(query)
        except InputError as error:
            with tqdm.external_write_mode(file=sys.stderr):
                _complain(error)
            unreadable += 1
            continue
        mask = model.segment(
            photo,
            arguments.class_name,
            support=support,
            description=arguments.description,
            mode=mode,
            threshold=arguments.threshold,
            min_presence=arguments.min_presence,
            aggregation=arguments.aggregation,
        ).mask
        mask_file, overlay_file = _outputs(query, arguments.out)
        Image.fromarray(mask.astype("uint8") * 255).save(mask_file)
        overlay(photo, mask).save(overlay_file)
    if unreadable == len(queries):
        return 2
    return 1 if unreadable else 0


def _mode(arguments: argparse.Namespace) -> str:
    """The mode asked for, or the one that fits what is given."""
    mode = arguments.mode or ("both" if arguments.support else "semantic")
    if mode != "semantic" and not arguments.support:
        raise InputError(f"Mode {mode} needs an example; give --support IMAGE MASK, or use --mode semantic.")
    return mode


def _find_queries(paths: Sequence[Path]) -> list[Path]:
    """The photos named, and those in the folders named, once each."""
    queries: dict[Path, Path] = {}
    for path in paths:
        found = [path]
        if path.is_dir():
            found = sorted(file for file in path.iterdir() if file.suffix.lower() in PHOTO_SUFFIXES)
            if not found:
                raise InputError(f"The folder {path} holds no photos ({', '.join(sorted(PHOTO_SUFFIXES))}).")
        for file in found:
            queries.setdefault(file.resolve(), file)
    return list(queries.values())


def _outputs(query: Path, out: Path) -> tuple[Path, Path]:
    return out / f"{query.stem}_mask.png", out / f"{query.stem}_overlay.png"


def _check_outputs(queries: Sequence[Path], out: Path, inputs: Sequence[Path]) -> None:
    """Nobody's result and nobody's input is overwritten."""
    protected = {file.resolve() for file in inputs}
    queries_by_stem: dict[str, Path] = {}
    for query in queries:
        # Some file systems take 'Fox' and 'fox' for one name.
        other = queries_by_stem.setdefault(query.stem.casefold(), query)
        if other != query:
            raise InputError(
                f"The results of {other} and {query} would have the same name; rename one, or run them apart with "
                "different --out."
            )
        for file in _outputs(query, out):
            if file.resolve() in protected:
                raise InputError(f"The results of {query} would overwrite {file}, an input; give another --out.")


def _in_all_processes(command: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """A command that as many processes share as were launched: they fail together, and leave together."""

    def run(arguments: argparse.Namespace) -> int:
        from .processes import all_processes

        with all_processes():
            return command(arguments)

    return run


def _label(arguments: argparse.Namespace) -> int:
    from .inference.photos import load_mask, load_photo
    from .labelling.label import Request, label_photos, open_photos

    mode = _mode(arguments)
    if arguments.out.resolve().is_relative_to(Path(arguments.photos).resolve()):
        raise InputError(f"The results in {arguments.out} would be taken for photos to label; give an --out elsewhere.")
    for photo_file, mask_file in arguments.support:  # before the photos, of which there may be many
        load_mask(mask_file, load_photo(photo_file).size)
    photos = open_photos(arguments.photos, arguments.split, arguments.image_column)
    request = Request(
        class_name=arguments.class_name,
        examples=arguments.support,
        description=arguments.description,
        mode=mode,
        threshold=arguments.threshold,
        min_presence=arguments.min_presence,
        aggregation=arguments.aggregation,
        model=arguments.model,
    )
    _make_folder(arguments.out)
    _quieten()
    unreadable = label_photos(photos, request, arguments.out)
    if unreadable == len(photos.names):
        return 2
    return 1 if unreadable else 0


def _describe(arguments: argparse.Namespace) -> int:
    from .descriptions.bank import bank_description

    writer = None
    texts = {}
    for name in arguments.names:
        texts[name] = bank_description(name) if arguments.source == "bank" else None
        if texts[name] is None:
            from .descriptions.memory import write_once

            writer = writer or _description_writer(arguments)
            texts[name] = write_once(writer, name, anew=arguments.anew)
        print(f"{name}: {texts[name]}", flush=True)
    if arguments.out:
        _make_folder(arguments.out.parent)
        write_json(arguments.out, texts)
    return 0


def _description_writer(arguments: argparse.Namespace) -> Writer:
    from .descriptions.writers import CheckpointWriter, EndpointWriter, TransformersWriter

    if arguments.source in ("transformers", "endpoint") and not arguments.language_model:
        raise InputError(f"Source {arguments.source} needs the language model's name; give --language-model NAME.")
    if arguments.source == "transformers":
        _quieten()
        return TransformersWriter(arguments.language_model)
    if arguments.source == "endpoint":
        if not arguments.base_url:
            raise InputError("Source endpoint needs the server's address; give --base-url URL.")
        key = os.environ.get("DSVLFS_API_KEY")
        return EndpointWriter(arguments.base_url, arguments.language_model, api_key=key)
    return CheckpointWriter(_load_model(arguments.model))


def _evaluate(arguments: argparse.Namespace) -> int:
    if arguments.method == "prototype" and arguments.mode == "semantic":
        raise InputError("Method prototype has no semantic mode, for it sees only supports; use --mode visual or both.")

    if arguments.method == "prototype" and (arguments.aggregation or arguments.describe):
        raise InputError(
            "Method prototype pools the supports and reads no text; leave --aggregation and --describe out."
        )

    if arguments.episodes and (arguments.fold, arguments.shots, arguments.seeds) != (None, None, None):
        raise InputError(
            "A file of episodes has its own fold, shots and seeds; leave these options out, or give --set."
        )

    from .data.episodes import load_episodes, named_episodes
    from .data.named_sets import training_class_names
    from .data.protocol import protocol_episodes
    from .measuring.evaluation import evaluate
    from .measuring.prototype import PrototypeSegmenter
    from .processes import join_processes

    if arguments.out.is_dir():
        raise InputError(f"{arguments.out} is a folder; give a file for the result, such as result.json.")
    trained_classes = None
    if arguments.trained_on:
        name, fold = arguments.trained_on
        root = arguments.trained_on_root or (arguments.root if name == arguments.set else None)
        trained_classes = training_class_names(name, root, fold)
    if arguments.episodes:
        episodes = load_episodes(arguments.root, arguments.episodes, arguments.limit, trained_classes)
    else:
        entries = protocol_episodes(arguments.set, arguments.root, **_protocol_options(arguments))
        episodes = named_episodes(arguments.root, entries, trained_classes)
    _make_folder(arguments.out.parent)
    segmenter = _load_model(arguments.model)
    if arguments.method == "prototype":
        segmenter = PrototypeSegmenter(segmenter)
    result = evaluate(
        segmenter,
        episodes,
        mode=arguments.mode,
        aggregation=arguments.aggregation,
        describe=arguments.describe,
        workers=arguments.workers,
        trained_classes=trained_classes,
    )
    if join_processes().is_main_process:
        given = {name: str(v) if isinstance(v, Path) else v for name, v in vars(arguments).items() if name != "run"}
        write_json(arguments.out, {**result, "arguments": given})
        print(_table(result))
    return 0


def _episodes(arguments: argparse.Namespace) -> int:
    from .data.protocol import protocol_episodes, write_episodes

    if arguments.out.is_dir():
        raise InputError(f"{arguments.out} is a folder; give a file for the episodes, such as episodes.jsonl.")
    entries = protocol_episodes(arguments.set, arguments.root, **_protocol_options(arguments))
    _make_folder(arguments.out.parent)
    write_episodes(arguments.out, entries)
    print(f"{len(entries)} episodes in {arguments.out}")
    return 0


def _protocol_options(arguments: argparse.Namespace) -> dict[str, int | None]:
    return {
        "fold": arguments.fold,
        "shots": arguments.shots or 1,
        "seeds": arguments.seeds,
        "limit": arguments.limit,
    }


def _info(arguments: argparse.Namespace) -> int:
    from .configuration import DSVLFSConfig
    from .measuring.costs import cost, report

    print(report(cost(getattr(DSVLFSConfig, arguments.config)())))
    return 0


def _import(arguments: argparse.Namespace) -> int:
    if arguments.check and not arguments.sam:
        raise InputError("--check is for --sam alone; leave it out.")
    if arguments.sam:
        from .convert.sam import import_sam

        import_sam(arguments.sam, arguments.out)
        if arguments.check:
            from .convert.sam_check import check_sam

            found = check_sam(arguments.sam, arguments.out)
            print(f"as in segment-anything: features and masks differ by {found:.1e} of the largest value at most")
    else:
        from .convert.reference import import_reference

        import_reference(arguments.reference, arguments.out)
    print(f"written to {arguments.out}")
    return 0


def _quieten() -> None:
    """No progress bar of each base's tensors: they take seconds, and are not the user's progress."""
    from transformers.utils import logging

    logging.disable_progress_bar()


def _load_model(name: str) -> DSVLFSModel:
    """A checkpoint's model, on this process's GPU where there is one."""
    from . import DSVLFSModel
    from .processes import join_processes

    _quieten()
    model = DSVLFSModel.from_pretrained(name)
    model.to(join_processes().device)
    return model


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"The folder {folder} cannot be made ({error.strerror}); give another --out.") from error


def _table(result: dict[str, Any]) -> str:
    low, high = result["miou_interval_95"]
    rows = [
        *result["iou"].items(),
        ("mIoU", result["miou"]),
        ("FB-IoU", result["fb_iou"]),
        ("boundary IoU", result["boundary_iou"]),
    ]
    for key, title in (("shared_classes", "mIoU, trained classes"), ("new_classes", "mIoU, new classes")):
        if result.get(key, {}).get("classes"):
            rows.append((f"{title} ({len(result[key]['classes'])})", result[key]["miou"]))
    for key, title in (("base_false_positive_rate", "base classes covered"), ("right_tile", "right tile")):
        if result.get(key) is not None:
            rows.append((title, result[key]))
    width = max(len(name) for name, _ in rows)
    lines = [f"{name:<{width}}  {percent:5.1f} %" for name, percent in rows]
    if "miou_by_seed" in result:
        lines.append(f"{len(result['miou_by_seed'])} seeds, mIoU's standard deviation {result['miou_std']:.2f}")
    lines.append(
        f"{result['episodes']} episodes, mIoU's 95 % interval {low:.1f} to {high:.1f}, "
        f"{result['seconds_per_query']:.2f} s a query"
    )
    return "\n".join(lines)


def _complain(error: Exception) -> None:
    if os.environ.get("RANK", "0") == "0":  # once, however many processes Accelerate launched
        print(f"dsvlfs: {error}", file=sys.stderr)
