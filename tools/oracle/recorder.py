"""Records what LangGraph does with a case of tests/conformance: builds its graphs, runs its script, writes down each outcome.

Run as a program it records given cases anew and tells where the outcome differs from what they expect:
`python tools/oracle/recorder.py tests/conformance/cases/*.json`.
"""

import json
import sys
import threading
import time
import traceback
import warnings

from langgraph.checkpoint.memory import InMemorySaver
from langgraph.config import get_stream_writer
from langgraph.errors import EmptyInputError, GraphRecursionError, InvalidUpdateError
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, Overwrite, RetryPolicy, interrupt

from vocabulary import Failure, Skip, UnknownLabel, canon, dests, ev, schema

warnings.filterwarnings("ignore")


class Case:
    SETTLE = 0.06

    def __init__(self, case):
        self.case = case
        self.runs = {}
        self.fails = {}
        self.lock = threading.Lock()
        self.active = {}
        self.saver = InMemorySaver() if case.get("checkpointer", True) else None

    # ---- building
    def build(self, name):
        spec = self.case["graphs"][name]
        chs = spec["channels"]
        kw = {}
        if "input" in spec:
            kw["input_schema"] = schema("In" + name, chs, spec["input"])
        if "output" in spec:
            kw["output_schema"] = schema("Out" + name, chs, spec["output"])
        g = StateGraph(schema("S" + name, chs), **kw)
        for n in spec["nodes"]:
            opt = {}
            if n.get("defer"):
                opt["defer"] = True
            if "retry" in n:
                on = n["retry"].get("on")

                def retry_on(exc, on=on):
                    return isinstance(exc, Failure) and (on is None or exc.kind in on)

                opt["retry_policy"] = RetryPolicy(
                    max_attempts=n["retry"]["max_attempts"], initial_interval=0.0, jitter=False, retry_on=retry_on
                )
            if "subgraph" in n:
                fn = self.build(n["subgraph"]).compile()
            else:
                fn = self.body(name, n)
            try:
                g.add_node(n["name"], fn, **opt)
            except ValueError as e:
                if "already" in str(e):
                    raise BuildErr("duplicate_node")
                raise
        for e in spec["edges"]:
            if isinstance(e, list):
                f = START if e[0] == "START" else e[0]
                t = END if e[1] == "END" else e[1]
                g.add_edge(f, t)
            elif "join" in e:
                names = {n["name"] for n in spec["nodes"]}
                if any(x not in names for x in e["join"]):
                    raise BuildErr("unknown_source")
                if e["to"] != "END" and e["to"] not in names:
                    raise BuildErr("unknown_target")
                g.add_edge(list(e["join"]), END if e["to"] == "END" else e["to"])
            else:
                f = START if e["from"] == "START" else e["from"]

                def path(state, e=e):
                    st = dict(state)
                    to = e["else"]
                    for c in e["cases"]:
                        if ev(c["when"], st, {}):
                            to = c["to"]
                            break
                    r = dests(to, st, {})
                    if "map" in e:
                        for x in r:
                            if isinstance(x, str) and x != END and x not in e["map"]:
                                raise UnknownLabel(x)
                    return r

                path.__name__ = "path%d" % id(e)
                if "map" in e:
                    g.add_conditional_edges(f, path, {k: (END if v == "END" else v) for k, v in e["map"].items()})
                else:
                    g.add_conditional_edges(f, path)
        comp = g.compile

        def compile(**k):
            if spec.get("interrupt_before"):
                k["interrupt_before"] = spec["interrupt_before"]
            if spec.get("interrupt_after"):
                k["interrupt_after"] = spec["interrupt_after"]
            return comp(**k)

        g.compile = compile
        return g

    def body(self, gname, n):
        path = n["name"] if gname == "main" else f"{gname}.{n['name']}"
        callable_ = {}

        def scan(ops):
            for o in ops:
                if o["op"] == "call" and o["graph"] not in callable_:
                    callable_[o["graph"]] = self.build(o["graph"]).compile()
                scan(o.get("then", []))
                scan(o.get("else", []))

        scan(n["ops"])

        def fn(state):
            me = object()
            with self.lock:
                self.runs[path] = self.runs.get(path, 0) + 1
                self.total = getattr(self, "total", 0) + 1
                if self.total > 150 or getattr(self, "toolong", False):
                    self.toolong = True
                    raise Failure("toolong", "fatal")
                self.active[me] = time.monotonic()
                self.stamp = time.monotonic()
            try:
                return self.ops(path, n, dict(state) if isinstance(state, dict) else {}, callable_, me)
            finally:
                with self.lock:
                    self.active.pop(me, None)
                    self.stamp = time.monotonic()

        fn.__name__ = n["name"]
        return fn

    def ops(self, path, n, ch, callable_, me):
        upd, gotos, var = {}, [], {}

        def run(ops):
            for o in ops:
                k = o["op"]
                if k == "set":
                    upd[o["ch"]] = ev(o["value"], ch, var)
                elif k == "overwrite":
                    upd[o["ch"]] = Overwrite(ev(o["value"], ch, var))
                elif k == "let":
                    var[o["var"]] = ev(o["value"], ch, var)
                elif k == "emit":
                    get_stream_writer()({"node": n["name"], "data": ev(o["value"], ch, var)})
                elif k == "interrupt":
                    var[o["into"]] = interrupt(ev(o["value"], ch, var))
                elif k == "fail":
                    key = (path, canon(ev(o["key"], ch, var)) if "key" in o else None)
                    if "first" in o:
                        with self.lock:
                            self.fails[key] = self.fails.get(key, 0) + 1
                            if self.fails[key] > o["first"]:
                                continue
                    self.settle(me)
                    raise Failure(path, o.get("kind", "fatal"))
                elif k == "goto":
                    gotos.extend(dests(o["to"], ch, var))
                elif k == "parent":
                    u = {c: ev(x, ch, var) for c, x in o.get("update", {}).items()}
                    return Command(graph=Command.PARENT, update=u, goto=dests(o["to"], ch, var))
                elif k == "call":
                    with self.lock:
                        self.active.pop(me, None)
                    try:
                        var[o["into"]] = callable_[o["graph"]].invoke(ev(o["input"], ch, var))
                    finally:
                        with self.lock:
                            self.active[me] = 1
                            self.stamp = time.monotonic()
                elif k == "if":
                    r = run(o["then"] if ev(o["cond"], ch, var) else o.get("else", []))
                    if r is not None:
                        return r
                else:
                    raise Skip("op " + k)
            return None

        left = run(n["ops"])
        if left is not None:
            return left
        if gotos:
            return Command(update=upd, goto=gotos)
        return upd or None

    def settle(self, me):
        t0 = time.monotonic()
        with self.lock:
            self.settling = getattr(self, "settling", 0) + 1
            if self.settling > 1:
                self.toolong = True
        try:
            self.settle2(me, t0)
        finally:
            with self.lock:
                self.settling -= 1

    def settle2(self, me, t0):
        while not getattr(self, "toolong", False) and time.monotonic() - t0 < 2:
            with self.lock:
                only = set(self.active) <= {me}
                quiet = time.monotonic() - self.stamp > self.SETTLE
            if only and quiet:
                return
            time.sleep(0.01)

    # ---- script
    def cfg(self, step, at=True):
        th = step.get("thread", "t")
        c = {"configurable": {"thread_id": th, "checkpoint_ns": ""}}
        if at and "at" in step:
            c["configurable"]["checkpoint_id"] = self.ids(th)[step["at"]]
        return c

    def hist(self, th):
        if self.saver is None:
            return []
        return list(reversed(list(self.graph.get_state_history({"configurable": {"thread_id": th}}))))

    def ids(self, th):
        return [s.config["configurable"]["checkpoint_id"] for s in self.hist(th)]

    def kind(self, e):
        if isinstance(e, Failure):
            return {"kind": "node_error", "node": e.path}
        if isinstance(e, GraphRecursionError):
            return {"kind": "recursion_limit"}
        if isinstance(e, UnknownLabel):
            return {"kind": "unknown_target"}
        if isinstance(e, EmptyInputError):
            return {"kind": "empty_input"}
        s = str(e)
        if isinstance(e, InvalidUpdateError):
            if "Ambiguous" in s:
                return {"kind": "ambiguous_update"}
            if "does not exist" in s:
                return {"kind": "unknown_node"}
            return {"kind": "invalid_concurrent_update"}
        if isinstance(e, RuntimeError) and "multiple pending" in s:
            return {"kind": "ambiguous_resume"}
        raise e

    def snapshot(self, step):
        c = self.cfg(step, at=False)
        s = self.graph.get_state(c)
        tasks = [
            {"name": t.name, "error": bool(t.error) and t.result is None, "interrupts": [i.value for i in t.interrupts]} for t in s.tasks
        ]
        return {"values": self.clean(s.values), "next": sorted(s.next), "tasks": sorted(tasks, key=canon)}

    def clean(self, v):
        if isinstance(v, Overwrite):
            return {"__overwrite__": v.value}
        if isinstance(v, dict):
            return {k: self.clean(x) for k, x in v.items()}
        if isinstance(v, (list, tuple)):
            return [self.clean(x) for x in v]
        return v

    def run(self, step):
        self.runs.clear()
        th = step.get("thread", "t")
        limited = step.get("limit", 10000)
        modes = step.get("modes", [])
        kw = {}
        c = {**self.cfg(step), "recursion_limit": limited}
        if "interrupt_before" in step:
            kw["interrupt_before"] = step["interrupt_before"]
        if "interrupt_after" in step:
            kw["interrupt_after"] = step["interrupt_after"]
        inp = step.get("input")
        cmd = step.get("command")
        if "resume" in step or "resume_map" in step or cmd is not None:
            k = {}
            if "resume" in step:
                k["resume"] = step["resume"]
            if "resume_map" in step:
                snap = self.graph.get_state(self.cfg(step, at=False))
                m = {}
                for q, a in step["resume_map"]:
                    for t in snap.tasks:
                        for i in t.interrupts:
                            if canon(i.value) == canon(q):
                                m[i.id] = a
                k["resume"] = m
            if cmd:
                if "update" in cmd:
                    k["update"] = cmd["update"]
                if "goto" in cmd:
                    k["goto"] = dests(cmd["goto"], {}, {})
            inp = Command(**k)
        out = {}
        groups = [[]]
        err = None
        if self.saver is not None:
            kw["durability"] = "sync"
        if "output" in self.case["graphs"]["main"]:
            kw["output_keys"] = list(self.case["graphs"]["main"]["output"])
        try:
            want = sorted(set(modes) | {"tasks", "updates", "values"})
            last_start = False
            self.seen_ns = getattr(self, "seen_ns", {})
            self.nrun = getattr(self, "nrun", 0) + 1
            here = set()
            fin = None
            known = set(self.ids(th))
            skipv = {(): not isinstance(inp, dict)}
            for ns, mode, p in self.graph.stream(inp, c, stream_mode=want, subgraphs=True, **kw):
                full = tuple(ns)
                if full and full not in here:
                    here.add(full)
                    skipv[full] = self.seen_ns.get(full, False)
                    self.seen_ns[full] = self.saver is not None
                ns = [x.split(":")[0] for x in ns]
                evs = []
                if mode == "values":
                    if not ns:
                        fin = p
                    if "__interrupt__" in p:
                        continue
                    if skipv[full]:
                        skipv[full] = False
                        continue
                if mode == "updates" and "__metadata__" in p:
                    continue
                if mode == "checkpoints":
                    cid = p["config"]["configurable"]["checkpoint_id"]
                    if cid in known:
                        continue
                    known.add(cid)
                if mode == "tasks":
                    if "input" in p:
                        if not ns:
                            if not last_start:
                                groups.append([])
                            last_start = True
                        evs.append(("task", {"name": p["name"], "input": self.clean(p["input"])}))
                    else:
                        r = p["result"]
                        r = dict(r) if isinstance(r, (list, tuple)) else (r or {})
                        evs.append(
                            (
                                "task_result",
                                {
                                    "name": p["name"],
                                    "error": bool(p["error"]),
                                    "result": self.clean(r),
                                    "interrupts": [i["value"] if isinstance(i, dict) else i.value for i in p["interrupts"]],
                                },
                            )
                        )
                elif mode == "updates":
                    if "__interrupt__" in p:
                        evs.append(("interrupt", [i.value for i in p["__interrupt__"]]))
                    else:
                        evs.append(("updates", self.clean(p)))
                elif mode == "custom":
                    evs.append(("custom", p))
                elif mode == "values":
                    evs.append(("values", self.clean(p)))
                elif mode == "checkpoints":
                    if not ns or True:
                        evs.append(
                            (
                                "checkpoint",
                                {
                                    "source": p["metadata"]["source"],
                                    "step": p["metadata"]["step"],
                                    "values": self.clean(p["values"]),
                                    "next": sorted(p["next"]),
                                },
                            )
                        )
                if not ns and not (mode == "tasks" and "input" in p):
                    last_start = False
                if mode == "tasks" and "input" in p and ns:
                    last_start = False
                for e in evs:
                    groups[-1].append((ns, *e))
        except Skip:
            raise
        except Exception as e:
            err = self.kind(e)
            if getattr(self, "toolong", False):
                raise Skip("too long")
        if err:
            out["status"] = "error"
            out["error"] = err
        else:
            s = self.graph.get_state(self.cfg(step, at=False)) if self.saver else None
            # interrupted?
            ints = [g for g in groups for g in g if not g[0] and g[1] == "interrupt"]
            if ints:
                out["status"] = "interrupted"
                qs = [q for g in ints for q in g[2]]
                out["interrupts"] = sorted(qs, key=canon)
            else:
                out["status"] = "done"
            if self.saver:
                spec = self.case["graphs"]["main"]
                out["output"] = self.clean({k: v for k, v in s.values.items() if "output" not in spec or k in spec["output"]})
            else:
                out["output"] = self.clean({k: v for k, v in (fin or {}).items() if k != "__interrupt__"})
        out["runs"] = dict(self.runs)
        if modes:
            out["stream"] = self.groups(groups, modes, step.get("subgraphs", False))
        if self.saver:
            if not err or err["kind"] not in ("invalid_concurrent_update", "unknown_target"):
                out["after"] = self.snapshot(step)
            out["checkpoints"] = len(self.hist(th))
            if err and err["kind"] == "recursion_limit" and not out["after"]["next"]:
                raise Skip("exact limit")
        return out

    MODE = {
        "task": "tasks",
        "task_result": "tasks",
        "updates": "updates",
        "interrupt": "updates",
        "values": "values",
        "custom": "custom",
        "checkpoint": "checkpoints",
    }
    ORDER = ["task", "custom", "updates", "task_result", "interrupt", "values", "checkpoint"]

    def groups(self, groups, modes, subs):
        out = []
        for g in groups:
            inside, root = [], []
            for e in g:
                ns, kind, p = e[0], e[1], e[2]
                if self.MODE[kind] not in modes:
                    continue
                if ns:
                    if subs:
                        inside.append((ns, kind, p))
                else:
                    root.append((kind, p))
            inside.sort(key=lambda x: x[0])
            evs = [[ns, k, p] for ns, k, p in inside]
            for k in self.ORDER:
                own = [p for kk, p in root if kk == k]
                if k == "custom":
                    own.sort(key=lambda p: p["node"])
                elif k not in ("values", "checkpoint"):
                    own.sort(key=canon)
                evs += [[k, p] for p in own]
            if evs:
                out.append(evs)
        return out

    def step(self, step):
        d = step["do"]
        th = step.get("thread", "t")
        if d == "run":
            return self.run(step)
        if d == "update":
            out = {"status": "done"}
            try:
                an = step.get("as_node")
                self.graph.update_state(self.cfg(step), step["values"], as_node="__start__" if an == "START" else an)
            except Exception as e:
                out = {"status": "error", "error": self.kind(e)}
            out["after"] = self.snapshot(step)
            out["checkpoints"] = len(self.hist(th))
            return out
        if d == "state":
            if "at" in step:
                s = self.hist(th)[step["at"]]
                s = self.graph.get_state(s.config)
                return {"values": self.clean(s.values), "next": sorted(s.next)}
            return self.snapshot(step)
        if d == "history":
            h = self.hist(th)
            ids = {s.config["configurable"]["checkpoint_id"]: i for i, s in enumerate(h)}
            return {
                "entries": [
                    {
                        "n": i,
                        "parent": ids[s.parent_config["configurable"]["checkpoint_id"]] if s.parent_config else None,
                        "source": s.metadata["source"],
                        "step": s.metadata["step"],
                        "values": self.clean(s.values),
                        "next": sorted(s.next),
                    }
                    for i, s in enumerate(h)
                ]
            }

    def record(self):
        try:
            g = self.build("main")
            self.graph = g.compile(checkpointer=self.saver)
        except BuildErr as e:
            return {"error": e.args[0]}, []
        except ValueError as e:
            return {"error": buildkind(str(e))}, []
        outs = []
        for s in self.case["script"]:
            outs.append(self.step(s))
        return "ok", outs


class BuildErr(Exception):
    pass


def buildkind(s):
    if "Interrupt node" in s:
        return "unknown_interrupt_node"
    if "entrypoint" in s:
        return "no_entry"
    if "Need to add_node" in s:
        return "join?"
    if "starting" in s or "source" in s or "Need to add_node" in s and "start" in s:
        return "unknown_source"
    if "unknown target" in s or "ending at unknown" in s or "end" in s:
        return "unknown_target"
    return s


def record(case):
    c = Case(case)
    return c.record()


def diff(path, a, b, out):
    if isinstance(a, dict) and isinstance(b, dict):
        for k in sorted(set(a) | set(b)):
            if k not in b:
                out.append(f"{path}.{k}: expected {canon(a[k])}, none")
            elif k not in a:
                out.append(f"{path}.{k}: unexpected {canon(b[k])}")
            else:
                diff(f"{path}.{k}", a[k], b[k], out)
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for i, (x, y) in enumerate(zip(a, b)):
            diff(f"{path}[{i}]", x, y, out)
    elif canon(a) != canon(b):
        out.append(f"{path}:\n   exp {canon(a)}\n   got {canon(b)}")


if __name__ == "__main__":
    files = sorted(sys.argv[1:])
    bad = 0
    for f in files:
        case = json.load(open(f))
        try:
            b, outs = record(case)
        except Exception:
            print("EXC", case["name"])
            traceback.print_exc(limit=-4)
            bad += 1
            continue
        ds = []
        if b != case["build"]:
            ds.append(f"build exp {case['build']} got {b}")
        for i, (s, o) in enumerate(zip(case["script"], outs)):
            e = dict(s["expect"])
            o = dict(o)
            if "output" not in e:
                o.pop("output", None)
            d = []
            diff("", e, o, d)
            if d:
                ds.append(f"step {i}: " + canon({k: v for k, v in s.items() if k != "expect"}))
                ds += d[:4]
                break
        if ds:
            bad += 1
            print("DIFF", case["name"])
            print("  " + "\n  ".join(ds))
    print(len(files) - bad, "same,", bad, "different")
