"""A real local model behind `stepgraph chat`: the answer must come from the model, token by token, over its HTTP server.

    python3 tools/local_model/check.py target/debug/stepgraph --python target/tools/models/bin/python

`--python` is an interpreter that has the wheels serve.py needs; this script itself needs only the standard library.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from checks import REPOSITORY, Checks, command, environment  # noqa: E402

KNOWLEDGE = REPOSITORY / "examples" / "knowledge"
MODEL = "SmolLM2-135M-Instruct.Q4_1"
QUESTION = "How long is the warranty?"
ANSWER_SECONDS_MAX = 300


def a_local_model_answers(checks, binary, url):
    """stepgraph chat over a local model"""
    with tempfile.TemporaryDirectory(prefix="stepgraph-models-") as data:
        settings = {"OPENAI_BASE_URL": url, "STEPGRAPH_MODEL": MODEL}
        here = ("--data", data)
        added = command(binary, "tenant", "add", "local", *here, **settings)
        checks.that(added.returncode == 0, "a tenant is added", added)
        ingested = command(binary, "ingest", KNOWLEDGE / "warranty-and-returns.docx", "--tenant", "local", *here, **settings)
        checks.that(ingested.returncode == 0, "a document is ingested", ingested)
        text, pieces, run = stream(binary, "chat", "--tenant", "local", *here, QUESTION, **settings)
        checks.that(run == 0 and len(text.split()) >= 3, "the model writes an answer", (run, text))
        checks.that(pieces > 1, "the answer arrives piece by piece", pieces)
        quoted = command(binary, "chat", "--tenant", "local", *here, QUESTION, STEPGRAPH_MODEL="extractive")
        checks.that(quoted.stdout.strip() != text.strip(), "it is not the extractive answer", text)
        print(f"\nThe model said:\n{text.strip()}")


def stream(binary, *arguments, **settings):
    """Output of a command, in how many reads it came, and its exit code."""
    process = subprocess.Popen(
        [str(binary), *map(str, arguments)],
        env=environment(**settings),
        cwd=REPOSITORY,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=sys.stderr,
    )
    text, pieces, deadline = b"", 0, time.monotonic() + ANSWER_SECONDS_MAX
    while piece := process.stdout.read1():
        text, pieces = text + piece, pieces + 1
        if time.monotonic() > deadline:
            process.kill()
    return text.decode("utf-8", errors="replace"), pieces, process.wait()


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("binary", type=Path, help="the stepgraph binary")
    options.add_argument("--python", type=Path, default=Path(sys.executable), help="interpreter with the wheels")
    chosen = options.parse_args()
    checks = Checks()
    # serve.py ends when its standard input does, so it cannot outlive this script.
    server = subprocess.Popen([chosen.python, HERE / "serve.py"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        line = server.stdout.readline()
        if checks.that(line.startswith("ready "), "the local model is loaded", line):
            checks.scenario(a_local_model_answers, chosen.binary.resolve(), line.split()[1])
    finally:
        server.stdin.close()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
    checks.finish()


if __name__ == "__main__":
    main()
