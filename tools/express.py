"""The Express app of `examples/express` between a widget page in a real Chromium and the built binary.

    python3 tools/express.py target/debug/stepgraph

The app is built before (`npm ci && npx tsc` in examples/express). Standard library only.
"""

import argparse
import json
import socket
import sys
import tempfile
import urllib.request
import uuid
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "browser"))
from checks import REPOSITORY, Checks, Server, wait_for  # noqa: E402
from chromium import Chromium, find  # noqa: E402

APP = REPOSITORY / "examples/express/dist/server.js"
TEXT = "document.body.innerText"
ASK = "(text) => { document.getElementById('message').value = text; document.getElementById('ask').requestSubmit(); }"


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def express(backend, port):
    settings = {"PYTHON_BACKEND_URL": backend.url, "CLIENT_ID": "demo", "PORT": str(port)}
    return Server("node", APP, needs_key=False, alive="/api/progress", **settings)


def question(message):
    return {"message": message, "sessionId": str(uuid.uuid4())}


def upload(app, name, content):
    mark = uuid.uuid4().hex
    head = f'--{mark}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\nContent-Type: text/plain\r\n\r\n'
    body = head.encode() + content.encode() + f"\r\n--{mark}--\r\n".encode()
    headers = {"Content-Type": f"multipart/form-data; boundary={mark}"}
    with urllib.request.urlopen(urllib.request.Request(app.url + "/api/documents", body, headers), timeout=60) as answer:
        return json.loads(answer.read())


def a_message_is_answered(checks, app):
    """A chat message through the app"""
    status, answer = app.call("POST", "/api/chat", question("how long is the warranty?"))
    checks.that(status == 200 and "36 months" in answer["response"], "the answer comes through", answer)
    checks.that(bool(answer["sources"]) and all("title" in source for source in answer["sources"]), "so do its sources", answer)
    status, answer = app.call("POST", "/api/chat", {"message": "hi", "sessionId": "no-uuid"})
    checks.that((status, answer["error"]) == (500, "INVALID_REQUEST"), "a wrong request is the service's own 500", answer)


def a_stream_passes_through(checks, app):
    """A stream through the app"""
    events = list(app.events("/api/chat/stream", question("how long is the warranty?")))
    names = [name for name, _ in events]
    checks.that(names[0] == "start" and names[-3:] == ["sources", "usage", "done"], "its events keep their order", names)
    text = "".join(data for name, data in events if name == "chunk")
    checks.that("36 months" in text, "its text is whole", text)


def an_upload_becomes_searchable(checks, app):
    """An upload through the app"""
    answer = upload(app, "parrots.txt", "The parrot of the shop is called Ferdinand and speaks nine languages.\n" * 3)
    checks.that(answer["success"] and answer["chunksCreated"] > 0, "the document is taken in", answer)
    status, told = app.call("GET", f"/api/documents/{answer['documentId']}/status")
    checks.that((status, told["status"], told["progress"]) == (200, "completed", 100), "its status comes through", told)
    heard = lambda: [one for one in app.call("GET", "/api/progress")[1] if one["documentId"] == answer["documentId"]]  # noqa: E731
    done = wait_for(lambda: any(one["status"] == "completed" for one in heard()), 20)
    checks.that(done, "the app hears of its progress", heard())
    checks.that(all(one["document_id"] == one["documentId"] for one in heard()), "in both spellings", heard())
    _, found = app.call("POST", "/api/chat", question("what is the parrot called?"))
    checks.that("Ferdinand" in found["response"], "answers rest on it", found)


def failures_are_tried_again(checks, app):
    """Failures of the model, over the scripted one"""
    status, answer = app.call("POST", "/api/chat", question("flaky:LLM_ERROR:express"))
    checks.that(status == 200 and answer["response"] == "recovered express", "a failure that passes is not seen", answer)
    status, answer = app.call("POST", "/api/chat", question("fail:TIMEOUT"))
    checks.that((status, answer["error"]) == (504, "TIMEOUT"), "one that stays keeps its code", answer)
    events = list(app.events("/api/chat/stream", question("fail:LLM_ERROR")))
    checks.that([name for name, _ in events] == ["error"], "on a stream it is an event", events)


def the_page_streams(checks, app, browser):
    """The widget page in Chromium"""
    browser.open(app.url + "/")
    browser.evaluate(f"({ASK})('how long is the warranty?')")
    checks.that(browser.until("document.body.dataset.done === 'yes'", 30), "the stream ends", browser.evaluate(TEXT))
    checks.that(browser.evaluate(f"/36 months/.test({TEXT})"), "the answer is shown", browser.evaluate(TEXT))
    sources = browser.evaluate("document.querySelectorAll('#sources li').length")
    checks.that(sources > 0, "its sources are shown", browser.evaluate(TEXT))
    checks.that(browser.complaints() == [], "the console has no error", browser.complaints())


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("binary", type=Path, help="the stepgraph binary")
    binary = options.parse_args().binary.resolve()
    path = find()
    if path is None:
        sys.exit("no Chromium found: apt-get install chromium, or set CHROMIUM to the path of one")
    checks, port = Checks(), free_port()
    callback = {"PROGRESS_CALLBACK_URL": f"http://127.0.0.1:{port}"}
    with tempfile.TemporaryDirectory(prefix="stepgraph-express-") as data:
        with Server(binary, "demo", "--data", data, "--port", 0, **callback) as demo, express(demo, port) as app:
            checks.scenario(a_message_is_answered, app)
            checks.scenario(a_stream_passes_through, app)
            checks.scenario(an_upload_becomes_searchable, app)
            with Chromium(path) as browser:
                checks.scenario(the_page_streams, app, browser)
    with tempfile.TemporaryDirectory(prefix="stepgraph-express-") as data:
        with Server(binary, "demo", "--data", data, "--port", 0, "--model", "scripted") as demo, express(demo, free_port()) as app:
            checks.scenario(failures_are_tried_again, app)
    checks.finish()


if __name__ == "__main__":
    main()
