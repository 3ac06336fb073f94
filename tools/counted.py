"""What a step costs in instructions, beside the least that the same work can cost: counted by callgrind, not timed.

    cargo build --release -p stepgraph-bench --bin steps
    python3 tools/counted.py target/release/steps

Each side of a workload is run on its own, some calls and none; the difference is what the calls have cost. A busy machine
changes nothing about it. Standard library only.
"""

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

from checks import Checks

# How many calls, and how many times the floor's instructions the engine may take: a third more than it does today (2.0, 2.2,
# 1.8 and 1.6 times), as room for another compiler and another libc.
WORKLOADS = {"B1": (20, 2.8), "B2": (5, 3.0), "B3": (20, 2.4), "B5": (1, 2.2)}
RUN_SECONDS_MAX = 120


def counted(program, workload, side, calls):
    """The instructions of one run of the program, and the steps of one call of each of the workload's parts."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "callgrind.out"
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", program, workload]
        command += ["--json", "--only", side, "--calls", str(calls)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_SECONDS_MAX, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-1500:]}")
        totals = [line for line in out.read_text().splitlines() if line.startswith("totals:")]
    steps = sum(json.loads(line)["steps"] for line in done.stdout.splitlines())
    return int(totals[-1].split()[1]), steps


def instructions_a_step(program, workload, side, calls):
    empty, _ = counted(program, workload, side, 0)
    full, steps = counted(program, workload, side, calls)
    return (full - empty) / (calls * steps)


def the_engine_stays_near_its_floor(checks, program):
    """Instructions of a step, counted by callgrind"""
    for workload, (calls, most) in WORKLOADS.items():
        engine = instructions_a_step(program, workload, "engine", calls)
        floor = instructions_a_step(program, workload, "floor", calls)
        checks.that(floor > 1, f"{workload}: the floor does something", floor)
        ratio = engine / max(floor, 1)
        sentence = f"{workload}: {engine:.0f} instructions a step, the floor {floor:.0f}: {ratio:.2f}x, at most {most}x"
        checks.that(0 < ratio <= most, sentence)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", help="the program `steps`, built with --release")
    program = str(Path(parser.parse_args().program).resolve())
    checks = Checks()
    checks.scenario(the_engine_stays_near_its_floor, program)
    checks.finish()


if __name__ == "__main__":
    main()
