"""`dsvlfs evaluate`: mIoU and more on episodes."""

from __future__ import annotations

import argparse
from pathlib import Path

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
        choices=("model", "prototype"),
        default="model",
        help="the model, or the training-free comparison on its frozen features (default: model)",
    )
    parser.add_argument(
        "--limit", type=count, metavar="N", help="take only the file's, or each seed's, first N episodes"
    )
    parser.add_argument(
        "--workers", type=count, default=0, metavar="N", help="processes that read photos ahead (default: none)"
    )
    parser.add_argument("--out", required=True, type=Path, metavar="RESULT.json", help="file for the result")
    add_model_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command and returns its exit status."""
    if arguments.method == "prototype" and "semantic" in arguments.mode:
        raise InputError("Method prototype has no semantic mode, for it sees only supports; use --mode visual or both.")

    if arguments.method == "prototype" and (arguments.aggregation or arguments.describe):
        raise InputError(
            "Method prototype pools the supports and reads no text; leave --aggregation and --describe out."
        )

    if arguments.episodes and (arguments.fold, arguments.shots, arguments.seeds) != (None, None, None):
        raise InputError(
            "A file of episodes has its own fold, shots and seeds; leave these options out, or give --set."
        )

    from ..data.episodes import load_episodes, named_episodes
    from ..data.named_sets import training_class_names
    from ..data.protocol import protocol_episodes
    from ..measuring.evaluation import evaluate
    from ..measuring.prototype import PrototypeSegmenter
    from ..measuring.result_table import result_table
    from ..processes import join_processes

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
        entries = protocol_episodes(arguments.set, arguments.root, **protocol_options(arguments))
        episodes = named_episodes(arguments.root, entries, trained_classes)
    running.make_folder(arguments.out.parent)
    segmenter = running.load_model(arguments.model)
    if arguments.method == "prototype":
        segmenter = PrototypeSegmenter(segmenter)
    results = evaluate(
        segmenter,
        episodes,
        modes=arguments.mode,
        aggregation=arguments.aggregation,
        describe=arguments.describe,
        workers=arguments.workers,
        trained_classes=trained_classes,
    )
    if join_processes().is_main_process:
        given = {name: str(v) if isinstance(v, Path) else v for name, v in vars(arguments).items() if name != "run"}
        content = results[arguments.mode[0]] if len(results) == 1 else {"modes": results}
        write_json(arguments.out, {**content, "arguments": given})
        for mode, result in results.items():
            print(*([f"{mode}:"] if len(results) > 1 else []), result_table(result), sep="\n")
    return 0
