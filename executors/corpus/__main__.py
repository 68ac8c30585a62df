"""A corpus of APIs from a list: ``python -m executors.corpus ENTRIES OUT --count 400 --seed 0``; no model is asked."""

import argparse
import json
import sys
from pathlib import Path

from executors.corpus.entries import choose_entries, read_entries
from executors.corpus.records import write_corpus
from executors.errors import ApprenticeError


def main() -> None:
    """Read a list of APIs, write the records of some of them."""
    parser = argparse.ArgumentParser(prog="python -m executors.corpus", description="Make up APIs from a list.")
    parser.add_argument("entries", type=Path, help="the list, such as public_apis.json")
    parser.add_argument("out", type=Path, help="the file to write, with ToolAlpaca's API records")
    parser.add_argument("--count", type=int, default=400, help="how many APIs")
    parser.add_argument("--seed", type=int, default=0, help="another one makes others")
    arguments = parser.parse_args()
    try:
        entries = choose_entries(read_entries(arguments.entries), arguments.count, arguments.seed)
        records = list(write_corpus(entries, arguments.seed))
    except ApprenticeError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    arguments.out.write_text(json.dumps(records, ensure_ascii=False, indent=1), encoding="utf-8")
    functions = sum(len(record["Function_Projection"]) for record in records)
    categories = len({record["Category"] for record in records})
    print(f"{len(records)} APIs of {categories} categories with {functions} functions in {arguments.out}")


if __name__ == "__main__":
    main()
