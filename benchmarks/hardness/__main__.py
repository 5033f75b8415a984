"""`python -m benchmarks.hardness`: what Kondense bears.

    python -m benchmarks.hardness --parts parsers --inputs 200000 --seed 0
    python -m benchmarks.hardness --parts parsers --only model.json --inputs 2000
    python -m benchmarks.hardness --parts kills --run-kills 40 --search-kills 20

Parts: `parsers` reads mutated inputs; `kills` kills processes of runs and of searches. Each part prints its counts and
bounds as a table; the command ends with 1 if anything escaped.
"""

import argparse
import logging
import sys

from benchmarks.hardness import kills_part, parser_part

PARTS = {"parsers": parser_part, "kills": kills_part}


def main() -> int:
    """Run the parts that the flags choose and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hardness", description=__doc__.partition("\n")[0])
    parser.add_argument("--parts", default=",".join(PARTS), help=f"of {', '.join(PARTS)}, joined by commas")
    for part in PARTS.values():
        part.add_flags(parser)
    arguments = parser.parse_args()
    names = [name for name in arguments.parts.split(",") if name]
    if unknown := set(names) - set(PARTS):
        parser.error(f"--parts must be of {', '.join(PARTS)}, but got {', '.join(sorted(unknown))}")
    logging.disable(logging.CRITICAL)
    return int(any([not PARTS[name].run(arguments) for name in names]))  # a list: all parts run


if __name__ == "__main__":
    sys.exit(main())
