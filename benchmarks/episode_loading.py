"""What reading an episode's photos costs beside segmenting its query: episodes a second with 0, 1 and 2 workers.

With workers the photos of the next episodes are read while one is segmented; a single process waits for them.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from dsvlfs import DSVLFSModel
from dsvlfs.cli.arguments import SETS
from dsvlfs.data.episodes import named_episodes
from dsvlfs.data.protocol import protocol_episodes


def main() -> None:
    """Prints and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="folder of the named set")
    parser.add_argument("--set", choices=SETS, required=True)
    parser.add_argument("--fold", type=int)
    parser.add_argument("--shots", type=int, default=1)
    parser.add_argument("--episodes", type=int, default=200, help="episodes to read")
    parser.add_argument("--queries", type=int, default=10, help="episodes to segment")
    parser.add_argument("--model", default="dsvlfs-tiny")
    parser.add_argument("--out", type=Path, help="file for the result (JSON)")
    arguments = parser.parse_args()
    entries = protocol_episodes(
        arguments.set, arguments.root, fold=arguments.fold, shots=arguments.shots, seeds=1, limit=arguments.episodes
    )
    episodes = named_episodes(arguments.root, entries)
    rates = {}
    for workers in (0, 1, 2):
        started = time.perf_counter()
        read = sum(1 for _ in DataLoader(episodes, batch_size=None, num_workers=workers))
        rates[str(workers)] = read / (time.perf_counter() - started)
    model = DSVLFSModel.from_pretrained(arguments.model)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model.to(device)
    seconds = []
    for number in range(min(arguments.queries + 1, len(episodes))):
        episode = episodes[number]
        started = time.perf_counter()
        model.segment(episode.query, episode.class_name, support=model.encode_support(episode.support))
        seconds.append(time.perf_counter() - started)
    step, loading = statistics.median(seconds[1:]), 1 / rates["0"]
    result = {
        "device": device,
        "threads": torch.get_num_threads(),
        "episodes": len(episodes),
        "episodes_per_second_by_workers": {workers: round(rate, 1) for workers, rate in rates.items()},
        "loading_ms": round(1000 * loading, 1),
        "evaluation_step_ms": round(1000 * step, 1),
        "loading_share_of_step_percent": round(100 * loading / (loading + step), 1),
    }
    print(json.dumps(result, indent=2))
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
