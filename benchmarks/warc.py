"""`finesieve filter` over WARC with resiliparse beside datatrove's WarcReader, Trafilatura and stock recipe (spaCy).

    python -m benchmarks.warc [--repeats 5]

One worker, one core, real web pages in HTML. datatrove extracts once, though its recipe reads its documents twice: it
keeps them in memory in between, in its favour. Without the real pages there is nothing to measure on.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from loguru import logger

from benchmarks.corpus import SHARED
from benchmarks.filtering import THRESHOLD, Job
from benchmarks.measure import Report, Row, answered, arguments, bind_to_one_core, in_turn, ratios
from benchmarks.peer import Peer, PeerError

WARC = SHARED / "warc" / "wcxb-dev-00.warc.gz"
TRAINED_ON = 2000
WHAT = "`finesieve filter`, WARC in, resiliparse"


def main() -> None:
    """Measure, print, write the JSON."""
    options = arguments(__doc__, repeats=5)
    logger.remove()
    report = Report("warc", f"WARC responses of {WARC.name}", bind_to_one_core())
    try:
        if not WARC.exists():
            raise PeerError(f"{WARC} is not here")
        with tempfile.TemporaryDirectory() as name, Peer("datatrove", "datatrove_recipe.py") as datatrove:
            job = Job(Path(name), TRAINED_ON)
            folder = job.folder / "warc"
            folder.mkdir()
            shutil.copy(WARC, folder)
            request = {"input": str(folder), "kind": "warc", "model": str(job.model), "threshold": THRESHOLD}
            request |= {"work": str(job.folder / "stock"), "tokenizer": "spacy", "limit": -1}
            timings = in_turn(
                {"ours": lambda: job.run("warc", WARC), "theirs": lambda: answered(datatrove.ask(**request))},
                options.repeats,
            )
        report.add(
            Row(row="filter.warc", what=WHAT, target=8,
                against="datatrove's WarcReader + Trafilatura + recipe (spaCy)",
                **ratios(timings["ours"], timings["theirs"]))
        )  # fmt: skip
    except PeerError as error:
        report.skip(WHAT, str(error))
    report.write(options.results)


if __name__ == "__main__":
    main()
