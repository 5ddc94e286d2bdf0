"""MinHash signatures of 14 bands x 8 over shingles of 5 words, from text: beside datatrove's and rensa's.

    python -m benchmarks.minhash_speed [--documents 4000] [--stock-documents 200] [--repeats 5]

One core, one thread on either side. Ours starts from an Arrow column and ends with band keys. The peers have their
texts as Python strings (datatrove: Documents) before the clock starts; rensa's 112 permutations are not cut into bands.
datatrove as it ships (spaCy) gets `--stock-documents`; the others ten times as many.
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path

import pyarrow.parquet as pq

from benchmarks.corpus import build
from benchmarks.measure import Report, Row, Side, answered, arguments, bind_to_one_core, clocked, in_turn, ratios
from benchmarks.peer import Peer, PeerError
from filters.kernels.minhash import band_keys
from filters.kernels.packed import PackedText
from filters.kernels.words import word_hashes

WHAT = "MinHash signature, 5-word shingles, 14 x 8"


def main() -> None:
    """Measure, print, write the JSON."""
    options = arguments(__doc__, documents=4000, stock_documents=200, repeats=5)
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        dump = Path(name) / "dump.parquet"
        kind = build(dump, options.documents)
        column = pq.read_table(dump)["text"]
        report = Report(
            "minhash_speed", f"{options.documents:,} documents of about 3,200 characters, {kind}", bind_to_one_core()
        )
        few, some = options.stock_documents, min(options.documents, options.stock_documents * 10)

        def sign() -> int:
            return len(band_keys(word_hashes(PackedText.from_arrow(column)))[0])

        sides: dict[str, Side] = {"ours": lambda: clocked(sign)}
        try:
            datatrove = stack.enter_context(Peer("datatrove", "datatrove_signature.py"))
            for tokenizer, documents in (("spacy", few), ("regex", some)):
                request = {"input": str(dump), "documents": documents, "tokenizer": tokenizer, "work": f"{name}/work"}
                sides[tokenizer] = lambda request=request: answered(datatrove.ask(**request))  # type: ignore[misc]
        except PeerError as error:
            report.skip("MinHash beside datatrove", str(error))
        try:
            rensa = stack.enter_context(Peer("rensa", "rensa_minhash.py"))
            for way in ("matrix", "update"):
                request = {"input": str(dump), "documents": some, "way": way}
                sides[way] = lambda request=request: answered(rensa.ask(**request))  # type: ignore[misc]
        except PeerError as error:
            report.skip("MinHash beside rensa", str(error))
        timings = in_turn(sides, options.repeats)
        if "spacy" in timings:
            report.add(
                Row(row="minhash.datatrove-spacy", what=WHAT, target=150,
                    against="datatrove `MinhashDedupSignature` as it ships (spaCy)",
                    **ratios(timings["ours"], timings["spacy"])),
                Row(row="minhash.datatrove-regex", what=WHAT, against="the same with a regex tokenizer", target=25,
                    **ratios(timings["ours"], timings["regex"])),
            )  # fmt: skip
        if "matrix" in timings:
            found = {way: ratios(timings["ours"], timings[way]) for way in ("matrix", "update")}
            best = min(found, key=lambda way: found[way]["value"])
            report.add(
                Row(row="minhash.rensa", what=WHAT, against="rensa `RMinHash`, shingles built from text", target=4,
                    note=f"the faster of its ways, {best}", **found[best])
            )  # fmt: skip
            report.details["rensa"] = {way: {k: one[k] for k in ("value", "cpu")} for way, one in found.items()}
        report.write(options.results)


if __name__ == "__main__":
    main()
