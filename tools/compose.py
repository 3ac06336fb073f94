"""A graph of a user's own, served by a crate outside the workspace: driven over HTTP, killed, started again.

    CARGO_TARGET_DIR=target cargo build --manifest-path examples/compose/Cargo.toml
    python3 tools/compose.py target/debug/compose

Standard library only; everything runs in a temporary folder on a free loopback port.
"""

import argparse
import json
import socket
import tempfile
import threading
from pathlib import Path

from checks import Checks, Server, wait_for

KEY = "key-of-the-desk"
QUESTION = "How long is the warranty?"
ANSWER = "36 months"
RECOVERY_SECONDS_MAX = 60


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(binary, folder):
    server = Server(binary, folder, f"127.0.0.1:{free_port()}", needs_key=False, alive="/ok", DESK_KEY=KEY)
    server.key = KEY
    return server


def new_thread(server):
    _, thread = server.call("POST", "/threads", {})
    return f"/threads/{thread['thread_id']}"


def run(server, thread, **body):
    return server.call("POST", f"{thread}/runs/wait", {"assistant_id": "desk", **body})


def sent(folder):
    outbox = Path(folder) / "outbox.txt"
    return outbox.read_text().splitlines() if outbox.exists() else []


def a_newcomer_looks_around(checks, binary, folder):
    """The graph and the route of one's own are served, to those with a key"""
    with start(binary, folder) as desk:
        status, body = desk.call("GET", "/opening-hours", key=None)
        checks.that(status == 200 and "Friday" in body, "the route of one's own answers", body)
        status, body = desk.call("POST", "/threads", {}, key=None)
        checks.that(status == 401 and "detail" in body, "without a key there are no threads", (status, body))
        _, graph = desk.call("GET", "/assistants/desk/graph")
        names = [node["id"] for node in graph["nodes"]]
        checks.that(names == ["__start__", "generate", "retrieve", "review", "send", "__end__"], "the graph shows its nodes", names)
        _, schemas = desk.call("GET", "/assistants/desk/schemas")
        checks.that("question" in schemas["input_schema"]["properties"], "and the schema of its input", schemas)
        checks.that(desk.stop() == 0, "a polite kill ends it with exit code 0", "".join(desk.said[-5:]))


def a_question_survives(checks, binary, folder):
    """kill -9 while the question waits"""
    with start(binary, folder) as desk:
        thread = new_thread(desk)
        status, asked = run(desk, thread, input={"question": QUESTION})
        question = asked.get("__interrupt__", [{}])[0]
        checks.that(status == 200 and ANSWER in question.get("value", {}).get("draft", ""), "the draft rests on the documents", asked)
        checks.that("approved" in json.dumps(question.get("answer_schema")), "the question brings the schema of its answer", question)
        status, body = run(desk, thread, input={"question": QUESTION, "colour": "red"})
        checks.that(status == 422 and "colour" in body["detail"], "an unknown input is refused by name", (status, body))
        desk.kill()
    with start(binary, folder) as desk:
        _, kept = desk.call("GET", thread)
        checks.that(kept["status"] == "interrupted", "after the kill the question still waits", kept)
        status, body = run(desk, thread, command={"resume": {"approved": "yes"}})
        checks.that(status == 422, "an answer of another type is refused", (status, body))
        _, state = desk.call("GET", f"{thread}/state")
        checks.that(state["next"] == ["review"], "and the question stays", state)
        status, done = run(desk, thread, command={"resume": {"approved": True}})
        checks.that(status == 200 and ANSWER in (done.get("reply") or ""), "the right answer finishes the run", done)
        checks.that(len(sent(folder)) == 1, "the reply has left once", sent(folder))
        _, history = desk.call("POST", f"{thread}/history", {"limit": 50})
        checks.that(len(history) == 5, "the history has every step of before and after", [state["next"] for state in history])


def a_run_survives(checks, binary, folder):
    """kill -9 while a run is under way"""
    before = len(sent(folder))
    with start(binary, folder) as desk:
        thread = new_thread(desk)
        run(desk, thread, input={"question": QUESTION, "hold_seconds": 3})
        answer = {"assistant_id": "desk", "command": {"resume": {"approved": True}}, "stream_mode": ["updates", "tasks"]}
        events = desk.events(f"{thread}/runs/stream", answer)
        told = [next(events)]
        # The reply is held back: its task has begun and the run is under way.
        while not (told[-1][0] == "tasks" and '"send"' in told[-1][1]):
            told.append(next(events))
        checks.that(told[0][0] == "metadata", "the stream begins with metadata", told)
        desk.kill()
    checks.that(len(sent(folder)) == before, "it was killed before the reply left", sent(folder))
    with start(binary, folder) as desk:
        status = lambda: desk.call("GET", thread)[1]["status"]  # noqa: E731
        done = wait_for(lambda: status() == "idle", RECOVERY_SECONDS_MAX)
        checks.that(done, "the next start goes on with the run by itself", status())
        checks.that(len(sent(folder)) == before + 1, "the reply has left once", sent(folder))
        _, state = desk.call("GET", f"{thread}/state")
        checks.that(len(state["values"]["sent"]) == 1 and state["next"] == [], "and the state says so", state)


def another_way(checks, binary, folder):
    """What came after a question can be tried again from there"""
    with start(binary, folder) as desk:
        thread = new_thread(desk)
        run(desk, thread, input={"question": QUESTION})
        _, asked = desk.call("GET", f"{thread}/state")
        run(desk, thread, command={"resume": {"approved": False}})
        corrected = {"resume": {"approved": False, "correction": "Ask us."}}
        status, done = run(desk, thread, command=corrected, checkpoint=asked["checkpoint"])
        checks.that(status == 200 and done.get("reply") == "Ask us.", "a fork takes another answer", done)


def two_at_once(checks, binary, folder):
    """Two runs on one thread take turns"""
    with start(binary, folder) as desk:
        thread = new_thread(desk)
        answers = []
        ask = lambda: answers.append(run(desk, thread, input={"question": QUESTION}, on_pending="discard"))  # noqa: E731
        both = [threading.Thread(target=ask) for _ in range(2)]
        for one in both:
            one.start()
        for one in both:
            one.join()
        checks.that([status for status, _ in answers] == [200, 200], "both are answered", answers)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binary", type=Path)
    binary = parser.parse_args().binary.resolve()
    checks = Checks()
    with tempfile.TemporaryDirectory(prefix="stepgraph-compose-") as folder:
        for scenario in (a_newcomer_looks_around, a_question_survives, a_run_survives, another_way, two_at_once):
            checks.scenario(scenario, binary, folder)
    checks.finish()


if __name__ == "__main__":
    main()
