"""What a large corpus takes: memory, and tokens a second while it is hashed, packed and trained on: `orchestrator bench corpus`.

A text file of that size is made and left to a process of its own, which plans a sequence on it, packs it, and trains a few
steps of a built-in decoder. It says how much memory it had at most; the pages of a mapped file are in it, though the system
may drop them at any time, so that memory without them is said too.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from orchestrator.models.packing.tokens import CACHE_VARIABLE
from streams import vocabulary

MB = 10**6
WORDS_OF_A_DOCUMENT = 100
STEPS = 10
# what the process may take of memory without the mapped pages, whatever the size of the corpus
MOST_MB = 500


def corpus_costs(console: Console, mb: int) -> dict[str, Any]:
    """What a corpus of so many megabytes takes, measured in a process that does nothing else."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        file = Path(folder) / "corpus.txt"
        console.print(f"writing {mb} MB of text", highlight=False)
        write_corpus(file, mb * MB)
        code = f"from orchestrator.bench.corpus import main; main({str(file)!r})"
        command = [sys.executable, "-c", code]
        console.print("hashing, packing and training in a process of its own", highlight=False)
        done = subprocess.run(
            command,
            env={**os.environ, CACHE_VARIABLE: f"{folder}/packed"},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    # the last line: libraries may print what they like before
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {"mb": mb, **result}


def write_corpus(file: Path, size: int) -> None:
    """Write a text of at least that many bytes: documents of random words, each with a number of its own."""
    rng = random.Random(0)
    words = vocabulary()
    bodies = []
    for _ in range(1000):
        bodies.append(" ".join(rng.choices(words, k=WORDS_OF_A_DOCUMENT)))
    written = 0
    number = 0
    with file.open("w") as out:
        while written < size:
            written += out.write(f"{number} {rng.choice(bodies)}\n")
            number += 1


class PeakMemory(threading.Thread):
    """Looks at this process's memory twenty times a second: with the pages of mapped files, and without."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.rss = 0
        self.anonymous = 0
        self.is_over = threading.Event()

    def run(self) -> None:
        while not self.is_over.wait(0.05):
            self.look()

    def look(self) -> None:
        """Note the present memory where it is the most so far."""
        import psutil

        info = psutil.Process().memory_info()
        self.rss = max(self.rss, info.rss)
        # known on Linux alone
        self.anonymous = max(self.anonymous, info.rss - getattr(info, "shared", 0))


def measure(file: Path, steps: int = STEPS) -> dict[str, Any]:
    """What hashing, packing and training take in this process."""
    from orchestrator.config.experiment import RunConfig
    from orchestrator.planning.planner import plan
    from orchestrator.training.learner import Learner
    from orchestrator.training.parallel import Parallel
    from orchestrator.training.task import train_task

    memory = PeakMemory()
    memory.start()
    config = RunConfig.model_validate(_configuration(file, steps))
    memory.look()
    base = memory.anonymous
    started = time.monotonic()
    (sequence,) = plan(config)
    stream = sequence.open_stream()
    num_documents = stream.tasks[0].size("train")
    hashed = time.monotonic()
    learner = Learner(sequence, stream, Parallel())
    learner.load_initial()
    before_packing = time.monotonic()
    num_blocks = len(learner.training_set(0))
    packed = time.monotonic()
    history = train_task(learner, 0, lambda event: None).history
    memory.look()
    memory.is_over.set()
    # but for the last block, which is shorter
    num_tokens = num_blocks * learner.family.block_length
    return {
        "documents": num_documents,
        "tokens": num_tokens,
        # twice, as planning and the sequence are different processes on a cluster
        "hash_s": round(hashed - started, 1),
        "pack_s": round(packed - before_packing, 1),
        "pack_tokens_per_s": round(num_tokens / (packed - before_packing)),
        "train_tokens_per_s": round(history["usage"]["tokens"] / history["seconds"]),
        "base_mb": round(base / MB),
        "peak_mb": round(memory.rss / MB),
        "peak_without_mapped_mb": round(memory.anonymous / MB),
    }


def _configuration(file: Path, steps: int) -> dict[str, Any]:
    tasks = [{"name": "large", "train": str(file)}]
    return {
        "name": "bench",
        "model": {"name": "tiny-llama", "max_source": 512},
        "streams": [{"name": "large", "source": "corpus", "tasks": tasks, "max_test": 100, "dev_fraction": 0.0}],
        "methods": ["ft"],
        "seeds": [0],
        # a block at a time: the activations of more would be most of the memory
        "training": {"global_batch": 8, "micro_batch": 1, "budget": {"steps": steps}},
        "out": str(file.parent / "out"),
    }


def print_corpus_costs(result: dict[str, Any], console: Console) -> None:
    """Print the measurements of one corpus."""
    table = Table(
        title=f"A corpus of {result['mb']} MB",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        show_header=False,
    )
    table.add_column("")
    table.add_column("", justify="right")
    table.add_row("documents", f"{result['documents']:,}")
    table.add_row("tokens", f"{result['tokens']:,}")
    table.add_row("planned and hashed in", f"{result['hash_s']} s")
    table.add_row("packed in", f"{result['pack_s']} s")
    table.add_row("packing", f"{result['pack_tokens_per_s']:,} tokens/s")
    table.add_row("training", f"{result['train_tokens_per_s']:,} tokens/s")
    table.add_row("memory before the corpus is read", f"{result['base_mb']} MB")
    table.add_row("memory at most", f"{result['peak_mb']} MB")
    table.add_row("of these without pages of mapped files", f"{result['peak_without_mapped_mb']} MB")
    console.print(table)


def main(file: str, steps: int = STEPS) -> None:
    """What the process of its own does: prints its measurements as one line of JSON."""
    print(json.dumps(measure(Path(file), steps)))
