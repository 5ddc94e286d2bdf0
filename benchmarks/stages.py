"""Share of processor time of each stage of a real run, by a sampling profiler: where the next hour is well spent.

    python -m benchmarks.stages [--documents 30000]

A thread looks at the other threads every millisecond and books the processor time each has used since on the stage of
its innermost frame in filters/ that belongs to one. Compiled kernels release the GIL, so they are seen; where C code
holds it, the time is booked when it returns, on the frame that called it. One worker, one core; Parquet, and WARC where
real pages are there.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from loguru import logger

import filters
from benchmarks.corpus import SHARED
from benchmarks.filtering import FEW_BUCKETS, Job
from benchmarks.measure import Report, Timing, arguments, bind_to_one_core

WARC = SHARED / "warc" / "wcxb-dev-00.warc.gz"
TRAINED_ON = 2000
PERIOD = 0.001
PACKAGE = Path(filters.__file__).parent
STAGES: dict[str, str] = {
    "read/extract.py": "extract",
    "read/charset.py": "extract",
    "read/": "read",
    "dedup/fingerprinter.py:exact_hashes": "exact hash",
    "kernels/words.py:normalize": "exact hash",
    "kernels/minhash.py:band_keys": "shingles + MinHash",
    "kernels/words.py": "shingles + MinHash",
    "dedup/": "resolve",
    "kernels/pairs.py": "resolve",
    "run/scoring.py": "score",
    "model/": "score",
    "kernels/fasttext.py": "score",
    "kernels/fasttext.py:__init__": "model loaded",
    "kernels/fasttext.py:_table": "model loaded",
    "kernels/fasttext.py:_vocabulary": "model loaded",
    "kernels/fasttext_format.py": "model loaded",
    "kernels/linear.py": "score",
    "kernels/static.py": "score",
    "kernels/tokens.py": "tokens",
    "run/ledger.py": "resolve",
    "run/selection.py": "resolve",
    "phases/rows.py": "work folder",
    "phases/texts.py": "work folder",
    "dedup/bands.py": "work folder",
    "phases/blocks.py": "work folder",
    "run/shard.py": "write",
    "run/writers.py": "write",
    "scores/": "write",
}
"""Path in filters/, with or without a function -> stage; the longest that fits counts."""
ORDER = (
    "model loaded", "read", "extract", "exact hash", "shingles + MinHash", "tokens", "score", "work folder",
    "resolve", "write", "rest",
)  # fmt: skip


def stage_of(path: str, function: str) -> str | None:
    """Stage of a function of filters/, by the path of its file in there; None if it belongs to none."""
    fitting = [key for key in STAGES if f"{path}:{function}".startswith(key)]
    return STAGES[max(fitting, key=len)] if fitting else None


class Profiler:
    """Use as a context manager; `seconds` has the processor time of each stage, `total` that of the whole process."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self.total = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._used: dict[int, float] = {}
        self._known: dict[tuple[str, str], str | None] = {}

    def __enter__(self) -> Profiler:
        self._begun = time.process_time()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._sample()
        self.total = time.process_time() - self._begun - self._own
        # Threads that are not Python's: Arrow's.
        self.seconds["rest"] += max(self.total - sum(self.seconds.values()), 0)

    def _watch(self) -> None:
        while not self._stop.wait(PERIOD):
            self._sample()
        self._own = time.thread_time()

    def _sample(self) -> None:
        for thread, frame in sys._current_frames().items():
            if thread == self._thread.ident:
                continue
            try:
                used = time.clock_gettime(time.pthread_getcpuclockid(thread))
            except OSError:  # it has ended
                continue
            self.seconds[self._stage(frame)] += used - self._used.get(thread, used)
            self._used[thread] = used

    def _stage(self, frame: FrameType | None) -> str:
        while frame is not None:
            key = (frame.f_code.co_filename, frame.f_code.co_name)
            if key not in self._known:
                path = Path(key[0])
                inside = path.is_relative_to(PACKAGE)
                self._known[key] = stage_of(path.relative_to(PACKAGE).as_posix(), key[1]) if inside else None
            found = self._known[key]
            if found is not None:
                return found
            frame = frame.f_back
        return "rest"


def profiled(work: Callable[[], Timing]) -> dict[str, object]:
    """Run twice, the second time under the profiler; shares of the stages, and what a document costs."""
    work()
    with Profiler() as profiler:
        timing = work()
    whole = sum(profiler.seconds.values())
    return {
        "documents": timing.documents,
        "microseconds_per_document": round(whole / timing.documents * 1e6),
        "share": {stage: round(profiler.seconds[stage] / whole, 4) for stage in ORDER if profiler.seconds[stage]},
    }


def main() -> None:
    """Measure, print, write the JSON."""
    options = arguments(__doc__, documents=30_000)
    logger.remove()
    with tempfile.TemporaryDirectory() as name:
        job = Job(Path(name), max(options.documents, TRAINED_ON), FEW_BUCKETS)
        report = Report("stages", job.corpus, bind_to_one_core())
        report.details["Parquet"] = profiled(job.run)
        if WARC.exists():
            report.details["WARC"] = profiled(lambda: job.run("warc", WARC))
        else:
            report.skip("stages of WARC", f"{WARC} is not here")
    for kind, found in report.details.items():
        shares = ", ".join(f"{stage} {share:.1%}" for stage, share in found["share"].items())
        print(f"  {kind}: {found['microseconds_per_document']} microseconds a document: {shares}")
    report.write(options.results)


if __name__ == "__main__":
    main()
