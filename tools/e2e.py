"""The product from outside: the demo over HTTP, the commands, and kill -9 in the middle of the work.

    cargo build
    python3 tools/e2e.py target/debug/stepgraph

Standard library only; everything runs in a temporary folder on free loopback ports.
"""

import argparse
import base64
import json
import shutil
import sqlite3
import tempfile
import threading
import uuid
from contextlib import closing
from pathlib import Path

from checks import REPOSITORY, SECRET, Checks, Server, command, wait_for

KNOWLEDGE = REPOSITORY / "examples" / "knowledge"
ANSWERED = "how long is the warranty?"
ANSWER = "36 months"
ANSWER_DOCUMENT = "warranty-and-returns"
UNANSWERED = "Which moons of Jupiter did Galileo discover?"
RECOVERY_SECONDS_MAX = 90


def session():
    return str(uuid.uuid4())


def ask(server, message, path="/api/widget/chat", session_id=None, **who):
    return server.call("POST", path, {"message": message, "sessionId": session_id or session()}, **who)


def code_of(body):
    return body.get("error", {}).get("code") if isinstance(body, dict) else None


def documents_of(body):
    return [source["documentId"] for source in body.get("sources", [])]


# --- what a newcomer sees ----------------------------------------------------------------------------------------


def the_demo_answers(checks, binary, data):
    """The demo answers from the sample documents"""
    with Server(binary, "demo", "--data", data, "--port", 0) as demo:
        a_question_in_one_piece(checks, demo)
        a_question_as_a_stream(checks, demo)
        a_question_without_an_answer(checks, demo)
        a_second_turn(checks, demo)
        who_may_do_what(checks, demo)
        what_the_operator_reads(checks, demo)
        what_is_already_taken(checks, binary, data, demo)
        checks.that(demo.stop() == 0, "SIGTERM ends the server with exit code 0", "".join(demo.said[-5:]))
    with Server(binary, "demo", "--data", data, "--port", 0) as again:
        checks.that(again.key == demo.key, "a second start on the same folder keeps the key", (again.key, demo.key))
        _, body = ask(again, ANSWERED)
        checks.that(ANSWER in body.get("response", ""), "and still answers", body)


def a_question_in_one_piece(checks, demo):
    for path in ("/api/widget/chat", "/chat"):
        status, body = ask(demo, ANSWERED, path)
        checks.that(status == 200 and ANSWER in body.get("response", ""), f"POST {path} answers with the right sentence", body)
        checks.that(documents_of(body)[:1] == [ANSWER_DOCUMENT], f"POST {path} names the right source first", body.get("sources"))
    checks.that(body.get("usage", {}).get("totalTokens", 0) > 0 and body.get("traceId"), "usage and trace id are there", body)


def a_question_as_a_stream(checks, demo):
    events = list(demo.events("/api/widget/chat/stream", {"message": ANSWERED, "sessionId": session()}))
    names = [name for name, _ in events]
    order = [name for i, name in enumerate(names) if i == 0 or names[i - 1] != name]
    checks.that(order == ["start", "chunk", "sources", "usage", "done"], "the stream is start, chunk.., sources, usage, done", names)
    text = "".join(data for name, data in events if name == "chunk")
    checks.that(ANSWER in text, "the chunks make up the answer", text)
    sources = [json.loads(data) for name, data in events if name == "sources"]
    named = len(sources) == 1 and [source["documentId"] for source in sources[0]][:1] == [ANSWER_DOCUMENT]
    checks.that(named, "the sources event names the right source first", sources)


def a_question_without_an_answer(checks, demo):
    status, body = ask(demo, UNANSWERED)
    fallback = status == 200 and body.get("sources", []) == [] and len(body.get("response", "")) > 10
    checks.that(fallback, "a question that the documents do not answer gets the fallback, without sources", body)


def a_second_turn(checks, demo):
    one = session()
    ask(demo, ANSWERED, session_id=one)
    _, body = ask(demo, "How long does standard shipping within the United Kingdom take?", session_id=one)
    fresh = "2 to 3 working days" in body.get("response", "") and ANSWER not in body.get("response", "")
    checks.that(fresh, "a second turn on one session answers the second question", body)
    checks.that(documents_of(body)[:1] == ["support-and-shipping"], "and carries the sources of this turn", documents_of(body))


def who_may_do_what(checks, demo):
    status, body = ask(demo, ANSWERED, key="pk_live_wrong")
    checks.that((status, code_of(body)) == (401, "INVALID_API_KEY"), "a wrong key is 401 INVALID_API_KEY", (status, body))
    status, body = ask(demo, ANSWERED, key=None)
    checks.that((status, code_of(body)) == (401, "INVALID_API_KEY"), "no key is 401 INVALID_API_KEY", (status, body))
    status, body = ask(demo, "")
    checks.that((status, code_of(body)) == (400, "INVALID_REQUEST"), "an empty message is 400 INVALID_REQUEST", (status, body))
    status, body = demo.call("GET", f"/documents/{ANSWER_DOCUMENT}/status")
    checks.that(status == 401, "a public key does not read document records", (status, body))
    status, body = demo.call("GET", "/no-such-route")
    checks.that((status, code_of(body)) == (404, "INVALID_REQUEST"), "an unknown route is 404 in the envelope", (status, body))


def what_the_operator_reads(checks, demo):
    status, body = demo.call("GET", "/health", key=None)
    sound = status == 200 and body.get("status") in ("healthy", "degraded") and isinstance(body.get("timestamp"), str)
    checks.that(sound, "health is healthy, with an ISO time", body)
    booleans = [body.get("services", {}).get(name) for name in ("qdrant", "redis", "anthropic", "openai")]
    checks.that(all(isinstance(value, bool) for value in booleans), "health names the four services as booleans", body)
    status, body = demo.call("GET", f"/api/widget/documents/{ANSWER_DOCUMENT}/status", secret=SECRET)
    checks.that((status, body.get("status"), body.get("progress")) == (200, "completed", 100), "the documents are completed", body)
    _, body = demo.call("POST", "/internal/validate-client", {"apiKey": demo.key}, secret=SECRET)
    checks.that(body.get("valid") is True and body.get("clientId"), "the demo's key is valid", body)
    status, body = demo.call("POST", "/internal/validate-client", {"apiKey": "pk_live_wrong"}, secret=SECRET)
    checks.that((status, body.get("valid")) == (200, False), "an unknown key is 200 with valid: false", (status, body))
    status, body = demo.call("GET", "/demo", key=None)
    checks.that(status == 200 and "<html" in str(body).lower(), "the demo page is served", str(body)[:200])


def what_is_already_taken(checks, binary, data, demo):
    refusals = {
        "a data folder in use": command(binary, "serve", "--data", data, "--port", 0, timeout=60),
        "a port in use": command(binary, "demo", "--data", f"{data}-port", "--port", demo.url.rsplit(":", 1)[1], timeout=120),
        "an unknown model": command(binary, "demo", "--data", f"{data}-model", "--port", 0, "--model", "no-such-model", timeout=60),
    }
    for what, run in refusals.items():
        words = run.stderr.strip()
        checks.that(run.returncode == 1 and len(words) > 20 and "panicked" not in words, f"{what} is a clear refusal, exit code 1", (run.returncode, words))


# --- the commands ------------------------------------------------------------------------------------------------


def the_commands_work(checks, binary, data):
    """The commands, without a server"""
    here = ("--data", data)
    added = command(binary, "tenant", "add", "acme", *here)
    checks.that(added.returncode == 0 and "pk_live_" in added.stdout, "tenant add prints a key", added)
    ingested = command(binary, "ingest", KNOWLEDGE, "--tenant", "acme", *here)
    checks.that(ingested.returncode == 0, "ingest takes a folder", ingested)
    chat = command(binary, "chat", "--tenant", "acme", *here, ANSWERED)
    checks.that(chat.returncode == 0 and ANSWER in chat.stdout, "chat answers on stdout", chat)
    the_search(checks, binary, here, Path(data).parent)
    for name in sorted(path.name for path in KNOWLEDGE.iterdir()):
        read = command(binary, "extract", KNOWLEDGE / name, "--json")
        body = json.loads(read.stdout) if read.returncode == 0 else {}
        checks.that(body.get("status") == "ok" and len(body.get("text", "")) > 1000, f"extract reads {name}", read)
    rows = json.loads(command(binary, "extract", KNOWLEDGE / "spare-parts.csv", "--json").stdout).get("records", [])
    checks.that(len(rows) == 45 and rows[0].get("part_number") == "OM-K02", "extract gives CSV rows by header", rows[:1])
    listed = command(binary, "graph", "list")
    checks.that("widget_chat" in listed.stdout and "document_ingest" in listed.stdout, "graph list names both graphs", listed)
    drawn = command(binary, "graph", "draw", "widget_chat")
    checks.that("retrieve" in drawn.stdout and "fallback" in drawn.stdout, "graph draw draws one", drawn)
    checks.that(command(binary, "doctor", *here).returncode == 0, "doctor finds nothing wrong")
    checks.that(command(binary, "no-such-command").returncode == 2, "a usage error is exit code 2")


def the_search(checks, binary, here, folder):
    queries = folder / "queries.jsonl"
    queries.write_text(json.dumps({"id": "q1", "text": "price of a scale filter"}) + "\n", encoding="utf-8")
    found = command(binary, "search", "--tenant", "acme", "--queries", queries, "--top", 5, *here)
    lines = [json.loads(line) for line in found.stdout.splitlines()]
    hits = lines[0]["hits"] if lines else []
    shape = len(lines) == 1 and lines[0]["id"] == "q1" and {"document_id", "chunk_index", "score"} <= set(hits[0] if hits else {})
    checks.that(shape, "search answers one JSON line a query", found.stdout)
    checks.that(any(hit["document_id"] == "spare-parts" for hit in hits), "search finds the price list", hits)


# --- kill -9 -----------------------------------------------------------------------------------------------------


def rows(data, table, where, *values):
    """Rows of a table in whichever database of the data folder has it, read beside the running server."""
    for file in Path(data).rglob("*"):
        if not file.is_file() or file.read_bytes()[:15] != b"SQLite format 3":
            continue
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=10)) as database:
            database.row_factory = sqlite3.Row
            known = database.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", (table,)).fetchone()
            if known:
                return [dict(row) for row in database.execute(f"SELECT * FROM {table} WHERE {where}", values)]
    return []


def a_killed_chat_finishes(checks, binary, data):
    """kill -9 in the middle of an answer"""
    one = session()
    chat = {"message": "drip:200:25", "sessionId": one}

    def logged():
        return rows(data, "chat_logs", "session_id = ?", one)

    with Server(binary, "demo", "--data", data, "--port", 0, "--model", "scripted") as demo:
        arrived = threading.Event()

        def read():
            try:
                for name, _ in demo.events("/api/widget/chat/stream", chat):
                    if name == "chunk":
                        arrived.set()
            except OSError:
                pass  # the server is gone: that is the point

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        checks.that(arrived.wait(30), "the answer has begun")
        demo.kill()
        reader.join(10)
    checks.that(logged() == [], "nothing of it was logged before the kill")
    with Server(binary, "demo", "--data", data, "--port", 0, "--model", "scripted") as demo:
        wait_for(logged, RECOVERY_SECONDS_MAX)
        roles = sorted(row["role"] for row in logged())
        checks.that(roles == ["assistant", "user"], "after the restart the run finishes and is logged once", roles)
        demo.stop()
    with Server(binary, "demo", "--data", data, "--port", 0, "--model", "scripted") as demo:
        _, body = ask(demo, 'say:"again"', session_id=one)
        checks.that(body.get("response") == "again", "the session goes on", body)
        wait_for(lambda: len(logged()) >= 4, 20)
        checks.that(len(logged()) == 4, "with two rows a turn: the first turn is not logged again", logged())


def large_text(paragraphs):
    lines = (f"Paragraph {n} of a long report about lock number {n * 7919 % 10007}, its gates, sluices and keepers, written so that it takes a while to ingest." for n in range(paragraphs))
    return "\n\n".join(lines).encode()


def a_killed_ingestion_finishes(checks, binary, data):
    """kill -9 in the middle of an ingestion"""
    upload = {
        "documentId": "long-report",
        "clientId": "demo",
        "fileData": base64.b64encode(large_text(12_000)).decode(),
        "fileType": "txt",
        "originalName": "long-report.txt",
    }
    path = "/documents/long-report/status"
    with Server(binary, "demo", "--data", data, "--port", 0) as demo:
        _, valid = demo.call("POST", "/internal/validate-client", {"apiKey": demo.key}, secret=SECRET)
        upload["clientId"] = valid["clientId"]

        def send():
            try:
                demo.call("POST", "/process-document", upload, secret=SECRET)
            except OSError:
                pass  # the server is gone: that is the point

        sender = threading.Thread(target=send, daemon=True)
        sender.start()
        begun = wait_for(lambda: demo.call("GET", path, secret=SECRET)[1].get("status") in ("parsing", "chunking", "embedding", "storing"), 60)
        checks.that(begun, "the ingestion has begun", demo.call("GET", path, secret=SECRET))
        demo.kill()
        sender.join(10)
    with Server(binary, "demo", "--data", data, "--port", 0) as demo:
        wait_for(lambda: demo.call("GET", path, secret=SECRET)[1].get("status") in ("completed", "failed"), RECOVERY_SECONDS_MAX * 2)
        _, first = demo.call("GET", path, secret=SECRET)
        points = first.get("qdrantPointIds") or []
        checks.that(first.get("status") == "completed", "after the restart the document is completed", str(first)[:400])
        checks.that(len(points) == first.get("chunksTotal") and len(set(points)) == len(points) > 0, "one point a chunk, none twice", len(points))
        demo.call("POST", "/process-document", upload, secret=SECRET)
        wait_for(lambda: demo.call("GET", path, secret=SECRET)[1].get("status") == "completed", RECOVERY_SECONDS_MAX)
        _, second = demo.call("GET", path, secret=SECRET)
        checks.that(second.get("qdrantPointIds") == points, "the same file again makes the same points", len(second.get("qdrantPointIds") or []))


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("binary", type=Path, help="the stepgraph binary")
    options.add_argument("--only", help="a word in the name of the scenario to run")
    options.add_argument("--keep", action="store_true", help="keep the data folders")
    chosen = options.parse_args()
    binary = chosen.binary.resolve()
    scenarios = [the_demo_answers, the_commands_work, a_killed_chat_finishes, a_killed_ingestion_finishes]
    folder = tempfile.mkdtemp(prefix="stepgraph-e2e-")
    checks = Checks()
    try:
        for scenario in scenarios:
            if not chosen.only or chosen.only in scenario.__name__:
                checks.scenario(scenario, binary, str(Path(folder) / scenario.__name__))
    finally:
        if chosen.keep:
            print(f"data kept in {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    checks.finish()


if __name__ == "__main__":
    main()
