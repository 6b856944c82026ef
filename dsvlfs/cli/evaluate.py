"""`dsvlfs evaluate`: mIoU and more on episodes."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import write_json
from . import running
from .arguments import (
    MODES,
    SETS,
    add_aggregation_argument,
    add_model_argument,
    add_protocol_arguments,
    count,
    protocol_options,
    set_and_fold,
)

COMPARISONS = ("prototype", "mutual")


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "evaluate",
        help="measure on episodes",
        description="Measures mIoU, FB-IoU and more, on a file of episodes or by a named set's test protocol. Under "
        "`accelerate launch -m dsvlfs evaluate ...` the processes share the episodes.",
    )
    parser.set_defaults(run=running.in_all_processes(run))
    parser.add_argument(
        "--root", required=True, type=Path, metavar="DIR", help="folder that the episodes' photos are looked for in"
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--episodes", type=Path, metavar="FILE.jsonl", help="one episode a line")
    source.add_argument("--set", choices=SETS, help="measure by this set's test protocol")
    add_protocol_arguments(parser)
    parser.add_argument(
        "--trained-on",
        type=set_and_fold,
        metavar="SET[:FOLD]",
        help="what the model was trained on: classes that are tested too are reported apart, and false positives are "
        "counted on all of them (default: no classes apart, and the set's other folds' false positives)",
    )
    parser.add_argument(
        "--trained-on-root",
        type=Path,
        metavar="DIR",
        help="that set's folder; PASCAL's and COCO's classes are known without (default: --root for the same set)",
    )
    parser.add_argument(
        "--mode",
        choices=MODES,
        nargs="+",
        default=["both"],
        help="prompts to use; several are measured side by side, in little more time than one (default: both)",
    )
    add_aggregation_argument(parser)
    parser.add_argument(
        "--describe",
        action="store_true",
        help="say what each class looks like too: its definition in the photos' metadata, else the bank's text "
        "(default: its name alone)",
    )
    parser.add_argument(
        "--method",
        choices=("model", *COMPARISONS),
        nargs="+",
        default=["model"],
        help="the model, and training-free comparisons on its frozen features: prototypes, or mutual matches with "
        "clusters; several are measured side by side (default: model)",
    )
    parser.add_argument(
        "--limit", type=count, metavar="N", help="take only the file's, or each seed's, first N episodes"
    )
    parser.add_argument(
        "--square",
        type=count,
        metavar="SIDE",
        help="count pixels of masks that are brought to a square (default: at each photo's own size, where large "
        "photos weigh more)",
    )
    parser.add_argument(
        "--workers", type=count, default=0, metavar="N", help="processes that read photos ahead (default: none)"
    )
    parser.add_argument("--out", required=True, type=Path, metavar="RESULT.json", help="file for the result")
    add_model_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command and returns its exit status."""
    if "model" not in arguments.method and "semantic" in arguments.mode:
        raise InputError(
            f"Method {arguments.method[0]} has no semantic mode, for it sees only supports; use --mode visual or both."
        )

    if "model" not in arguments.method and (arguments.aggregation or arguments.describe):
        raise InputError(
            f"Method {arguments.method[0]} takes the supports together and reads no text; leave --aggregation and "
            "--describe out."
        )

    if arguments.episodes and (arguments.fold, arguments.shots, arguments.seeds) != (None, None, None):
        raise InputError(
            "A file of episodes has its own fold, shots and seeds; leave these options out, or give --set."
        )

    from ..data.label_maps import fields_of
    from ..measuring.fields import mean_over_fields
    from ..measuring.result_table import fields_table, result_table
    from ..processes import join_processes

    if arguments.out.is_dir():
        raise InputError(f"{arguments.out} is a folder; give a file for the result, such as result.json.")
    fields = fields_of(arguments.root) if arguments.set == "labels" else [arguments.root]
    episodes = {field.name: _episodes(arguments, field) for field in fields}  # all, before the first is measured
    running.make_folder(arguments.out.parent)
    model = running.load_model(arguments.model)
    results = {name: _measured(arguments, model, *own) for name, own in episodes.items()}
    if join_processes().is_main_process:
        given = {name: str(v) if isinstance(v, Path) else v for name, v in vars(arguments).items() if name != "run"}
        content = {"fields": results, "mean": mean_over_fields(results)}
        if len(results) == 1:
            (own,) = results.values()
            content = next(iter(own.values())) if len(own) == 1 else {"modes": own}
        write_json(arguments.out, {**content, "arguments": given})
        if len(results) > 1:
            print(fields_table(results, content["mean"]))
        else:
            for name, result in own.items():
                print(*([f"{name}:"] if len(own) > 1 else []), result_table(result), sep="\n")
    return 0


def _episodes(arguments: argparse.Namespace, root: Path) -> tuple[Any, set[str] | None]:
    """The episodes to measure on, and the names of the classes that the model was trained on, where they are told."""
    from ..data.episodes import load_episodes, named_episodes
    from ..data.named_sets import training_class_names
    from ..data.protocol import protocol_episodes

    trained_classes = None
    if arguments.trained_on:
        name, fold = arguments.trained_on
        known_root = arguments.trained_on_root or (root if name == arguments.set else None)
        trained_classes = training_class_names(name, known_root, fold)
    if arguments.episodes:
        return load_episodes(root, arguments.episodes, arguments.limit, trained_classes), trained_classes
    entries = protocol_episodes(arguments.set, root, **protocol_options(arguments))
    return named_episodes(root, entries, trained_classes), trained_classes


def _measured(arguments: argparse.Namespace, model: Any, episodes: Any, trained: set[str] | None) -> dict[str, Any]:
    """A result for each mode of the model and each comparison."""
    from ..measuring.evaluation import evaluate
    from ..measuring.mutual import MutualSegmenter
    from ..measuring.prototype import PrototypeSegmenter

    kinds = {"prototype": PrototypeSegmenter, "mutual": MutualSegmenter}
    beside = {name: kinds[name](model) for name in COMPARISONS if name in arguments.method}
    return evaluate(
        model,
        episodes,
        modes=arguments.mode if "model" in arguments.method else [],
        comparisons=beside,
        aggregation=arguments.aggregation,
        describe=arguments.describe,
        long_descriptions=model.config.long_descriptions,
        workers=arguments.workers,
        trained_classes=trained,
        square=arguments.square,
    )
