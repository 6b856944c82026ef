"""Time to load the tiny model, time of one query (support encoded, class known), and peak memory."""

import argparse
import json
import platform
import resource
import statistics
import time
from pathlib import Path


def main() -> None:
    """Prints and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="dsvlfs-tiny")
    parser.add_argument("--queries", type=int, default=10)
    parser.add_argument("--threads", type=int, help="default: PyTorch's")
    parser.add_argument("--merge-tokens", action="store_true", help="the config's merge_tokens")
    parser.add_argument("--out", type=Path, help="file for the result (JSON)")
    arguments = parser.parse_args()

    started = time.perf_counter()  # imports are part of what a user waits for
    import torch

    from dsvlfs import DSVLFSModel
    from dsvlfs.page.examples import EXAMPLES

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    changes = {"merge_tokens": True} if arguments.merge_tokens else {}
    model = DSVLFSModel.from_pretrained(arguments.model, **changes)
    loading = time.perf_counter() - started

    example = EXAMPLES[0]
    support = model.encode_support([example.shot])
    seconds = []
    for _ in range(arguments.queries + 1):
        started = time.perf_counter()
        model.segment(example.query_file, example.class_name, support=support)
        seconds.append(time.perf_counter() - started)
    result = {
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}",
        "loading_s": round(loading, 2),
        "query_s_median": round(statistics.median(seconds[1:]), 3),
        "query_s_range": [round(min(seconds[1:]), 3), round(max(seconds[1:]), 3)],
        "first_query_s": round(seconds[0], 3),
        "peak_memory_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }
    print(json.dumps(result, indent=2))
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
