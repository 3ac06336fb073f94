"""What the end-to-end scripts share: a list of checks with a count, and the `stepgraph` binary as a process.

Standard library only. A script makes one `Checks`, runs its scenarios and ends with `checks.finish()`, whose last line
`checks: N passed, N failed` is what `./test` counts.
"""

import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
import traceback
import urllib.error
import urllib.request
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
START_SECONDS_MAX = 180
STOP_SECONDS_MAX = 40
CALL_SECONDS_MAX = 60
SECRET = "end-to-end-secret"
FOREIGN_SETTINGS = ("DATABASE_URL", "REDIS_URL", "QDRANT_URL", "QDRANT_API_KEY", "OPENAI_API_KEY", "OPENAI_BASE_URL", "ANTHROPIC_API_KEY", "PORT", "HOST")


class Checks:
    """Counts what held and what did not; a scenario that breaks is one failure and the next one still runs."""

    def __init__(self):
        self.passed, self.failed = 0, 0

    def that(self, holds, sentence, seen=None):
        if holds:
            self.passed += 1
            print(f"ok    {sentence}", flush=True)
        else:
            self.failed += 1
            shown = "" if seen is None else f"\n      seen: {str(seen)[:1500]}"
            print(f"FAIL  {sentence}{shown}", flush=True)
        return holds

    def scenario(self, run, *arguments):
        print(f"\n{(run.__doc__ or run.__name__).strip().splitlines()[0]}", flush=True)
        try:
            run(self, *arguments)
        except Exception as error:  # noqa: BLE001 - whatever breaks a scenario is its failure
            self.that(False, f"{run.__name__} runs to its end", f"{error}\n{traceback.format_exc()}")

    def finish(self):
        print(f"\nchecks: {self.passed} passed, {self.failed} failed", flush=True)
        sys.exit(1 if self.failed or not self.passed else 0)


def environment(**more):
    """The caller's environment without settings that would change what is tested."""
    kept = {name: value for name, value in os.environ.items() if name not in FOREIGN_SETTINGS and not name.startswith("STEPGRAPH_")}
    return kept | {"INTERNAL_API_SECRET": SECRET, "NO_COLOR": "1"} | more


def command(binary, *arguments, timeout=600, **settings):
    """Runs one command of the binary to its end."""
    return subprocess.run(
        [str(binary), *map(str, arguments)],
        env=environment(**settings),
        cwd=REPOSITORY,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


class Server:
    """`stepgraph demo` or `serve` on a free port, read until it has said its address."""

    def __init__(self, binary, *arguments, needs_key=True, alive="/health", **settings):
        self.alive = alive
        self.process = subprocess.Popen(
            [str(binary), *map(str, arguments)],
            env=environment(**settings),
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
        self.lines, self.said = queue.Queue(), []
        for stream in (self.process.stdout, self.process.stderr):
            threading.Thread(target=self._read, args=(stream,), daemon=True).start()
        self.url = self.key = None
        self._wait_until_ready(needs_key)

    def _read(self, stream):
        for line in stream:
            self.said.append(line)
            self.lines.put(line)

    def _wait_until_ready(self, needs_key):
        deadline = time.monotonic() + START_SECONDS_MAX
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                time.sleep(0.2)
                raise RuntimeError(f"the server ended with {self.process.returncode}:\n{''.join(self.said)}")
            try:
                line = self.lines.get(timeout=0.2)
            except queue.Empty:
                continue
            if self.url is None and (address := re.search(r"http://(?:127\.0\.0\.1|localhost|\[::1\]):\d+", line)):
                self.url = address[0]
            if self.key is None and (key := re.search(r"pk_live_[A-Za-z0-9_-]+", line)):
                self.key = key[0]
            if self.url and (self.key or not needs_key) and self._healthy():
                return
        self.kill()
        raise RuntimeError(f"not ready within {START_SECONDS_MAX} s:\n{''.join(self.said)}")

    def _healthy(self):
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                return self.call("GET", self.alive, key=None)[0] == 200
            except OSError:
                time.sleep(0.1)
        return False

    def request(self, method, path, body=None, key="own", secret=None, accept=None):
        headers = {"Content-Type": "application/json"}
        if key == "own" and secret is None and self.key:
            headers["x-api-key"] = self.key
        elif key not in (None, "own"):
            headers["x-api-key"] = key
        if secret is not None:
            headers["X-Internal-Secret"] = secret
        if accept:
            headers["Accept"] = accept
        data = None if body is None else json.dumps(body).encode()
        return urllib.request.Request(self.url + path, data=data, headers=headers, method=method)

    def call(self, method, path, body=None, timeout=CALL_SECONDS_MAX, **who):
        """Status and parsed JSON (or text) of one call, whatever the status."""
        try:
            with urllib.request.urlopen(self.request(method, path, body, **who), timeout=timeout) as answer:
                return answer.status, parsed(answer.read())
        except urllib.error.HTTPError as refusal:
            return refusal.code, parsed(refusal.read())

    def events(self, path, body, timeout=CALL_SECONDS_MAX, **who):
        """The server-sent events of one call as (name, data), as they arrive."""
        request = self.request("POST", path, body, accept="text/event-stream", **who)
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            name, data = "message", []
            for raw in answer:
                line = raw.decode("utf-8").rstrip("\n")
                if line.startswith("event: "):
                    name = line[7:]
                elif line.startswith("data: "):
                    data.append(line[6:])
                elif not line and data:
                    yield name, "\n".join(data)
                    name, data = "message", []

    def kill(self):
        """kill -9: nothing is flushed, nothing is said."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def stop(self):
        """A polite stop; returns the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout=STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.kill()
            return None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()


def parsed(raw):
    text = raw.decode("utf-8", errors="replace")
    try:
        return json.loads(text)
    except ValueError:
        return text


def wait_for(look, seconds):
    """Asks again until the answer is true or the time is over; returns the last answer."""
    deadline = time.monotonic() + seconds
    while not (found := look()) and time.monotonic() < deadline:
        time.sleep(0.25)
    return found
