"""Makes new cases out of the recorded ones: the same ideas, varied a little, recorded anew.

`python tools/oracle/vary.py OUT COUNT SEED [FAMILY...]` writes COUNT cases of each family to OUT/cases.
"""

import collections
import copy
import glob
import json
import os
import random
import signal
import sys
from pathlib import Path

import recorder
from vocabulary import Skip, canon

POOL = [
    "a",
    "b",
    "c",
    "d",
    "e",
    "f",
    "g",
    "h",
    "aa",
    "ab",
    "B",
    "Z",
    "a_1",
    "_x",
    "b2",
    "b10",
    "z",
    "m",
    "node",
    "n1",
    "n10",
    "n2",
    "k",
    "t",
]
CASES = Path(__file__).resolve().parents[2] / "tests" / "conformance" / "cases"
MODES = ["values", "updates", "custom", "tasks", "checkpoints"]


class Vary:
    def __init__(self, case, seed):
        self.r = random.Random(seed)
        self.case = copy.deepcopy(case)
        self.case.pop("recorded_from", None)
        for s in self.case["script"]:
            s.pop("expect", None)

    def p(self, x):
        return self.r.random() < x

    @property
    def main(self):
        return self.case["graphs"]["main"]

    def names(self, g="main"):
        return [n["name"] for n in self.case["graphs"][g]["nodes"]]

    def ops_node(self, g):
        ns = [n for n in self.case["graphs"][g]["nodes"] if "ops" in n]
        return self.r.choice(ns) if ns else None

    def anygraph(self):
        return self.r.choice(list(self.case["graphs"]))

    # ---- structure
    def rename(self):
        used = {n["name"] for g in self.case["graphs"].values() for n in g["nodes"]}
        new = [x for x in POOL if x not in used]
        olds = self.r.sample(sorted(used), self.r.randint(1, len(used)))
        m = dict(zip(olds, self.r.sample(new, min(len(new), len(olds)))))

        def R(x):
            return m.get(x, x) if isinstance(x, str) else x

        def dest(d):
            return R(d) if isinstance(d, str) else {**d, "send": R(d["send"])}

        def ops(os_):
            for o in os_:
                if o["op"] in ("goto", "parent"):
                    o["to"] = [dest(d) for d in o["to"]]
                if o["op"] == "if":
                    ops(o["then"])
                    ops(o.get("else", []))

        for g in self.case["graphs"].values():
            for n in g["nodes"]:
                n["name"] = R(n["name"])
                ops(n.get("ops", []))
            es = []
            for e in g["edges"]:
                if isinstance(e, list):
                    es.append([R(e[0]), R(e[1])])
                elif "join" in e:
                    es.append({**e, "join": [R(x) for x in e["join"]], "to": R(e["to"])})
                else:
                    e = dict(e)
                    e["from"] = R(e["from"])
                    if "map" in e:
                        e["map"] = {k: R(v) for k, v in e["map"].items()}
                    else:
                        e["cases"] = [{**c, "to": [dest(d) for d in c["to"]]} for c in e["cases"]]
                        e["else"] = [dest(d) for d in e["else"]]
                    es.append(e)
            g["edges"] = es
            for k in ("interrupt_before", "interrupt_after"):
                if k in g:
                    g[k] = [R(x) for x in g[k]]
        for s in self.case["script"]:
            for k in ("interrupt_before", "interrupt_after"):
                if k in s:
                    s[k] = [R(x) for x in s[k]]
            if s.get("as_node") not in (None, "START"):
                s["as_node"] = R(s["as_node"])
            if s.get("command", {}).get("goto"):
                s["command"]["goto"] = [dest(d) for d in s["command"]["goto"]]

    def shuffle(self):
        g = self.case["graphs"][self.anygraph()]
        self.r.shuffle(g["nodes"])
        self.r.shuffle(g["edges"])

    def edge(self):
        g = self.anygraph()
        spec = self.case["graphs"][g]
        ns = self.names(g)
        if self.p(0.5) and len(spec["edges"]) > 1:
            e = self.r.choice(spec["edges"])
            if not (isinstance(e, list) and e[0] == "START"):
                spec["edges"].remove(e)
        else:
            spec["edges"].append([self.r.choice(["START"] + ns), self.r.choice(ns)])

    def sibling(self):
        g = self.anygraph()
        spec = self.case["graphs"][g]
        ns = self.names(g)
        n = copy.deepcopy(self.r.choice(spec["nodes"]))
        old = n["name"]
        n["name"] = self.r.choice([x for x in POOL if x not in ns])
        if "ops" in n:
            for o in n["ops"]:
                if o["op"] == "interrupt" and isinstance(o["value"], str):
                    o["value"] = n["name"] + "?"
                if (
                    o["op"] == "set"
                    and o["ch"] in spec["channels"]
                    and spec["channels"][o["ch"]] == "append"
                    and isinstance(o["value"], list)
                ):
                    o["value"] = [n["name"]]
        spec["nodes"].append(n)
        es = []
        for e in spec["edges"]:
            es.append(e)
            if isinstance(e, list) and old in e:
                x = [n["name"] if y == old else y for y in e]
                if self.p(0.8):
                    es.append(x)
            elif isinstance(e, dict) and "join" in e and old in e["join"] and self.p(0.7):
                e["join"].append(n["name"])
            elif isinstance(e, dict) and e.get("from") == old and self.p(0.6):
                es.append({**copy.deepcopy(e), "from": n["name"]})
        if not any(isinstance(e, list) and e[1] == n["name"] for e in es):
            es.append([self.r.choice(["START", old]), n["name"]])
        spec["edges"] = es

    def join(self):
        g = self.anygraph()
        spec = self.case["graphs"][g]
        ns = self.names(g)
        js = [e for e in spec["edges"] if isinstance(e, dict) and "join" in e]
        if js and self.p(0.4):
            e = self.r.choice(js)
            spec["edges"].remove(e)
            spec["edges"] += [[x, e["to"]] for x in e["join"]]
        elif len(ns) >= 3:
            to = self.r.choice(ns)
            spec["edges"].append({"join": self.r.sample([x for x in ns if x != to], 2), "to": to})

    def value(self, spec, ch, who):
        k = spec["channels"][ch]
        r = self.r
        if k == "append":
            return [who]
        if k in ("add", "max"):
            return r.choice([1, 2, 3, -1])
        if k == "union":
            return r.choice([["x", who], ["a"], ["é", "Z"]])
        if k == "merge":
            return r.choice([{"obj": {who: 1}}, {"lit": {"p": None}}])
        if k == "messages":
            return [r.choice([{"obj": {"id": r.choice(["m1", "m2"]), "text": who}}, {"lit": {"id": "m1", "remove": True}}])]
        return r.choice([1, None, who, {"lit": {"a": 1}}, {"add": [{"get": ch}, 1]}])

    def write(self):
        g = self.anygraph()
        n = self.ops_node(g)
        if not n:
            return
        spec = self.case["graphs"][g]
        chs = [c for c in spec["channels"]]
        ch = self.r.choice(chs)
        k = spec["channels"][ch]
        if self.p(0.2) and k != "last":
            o = {
                "op": "overwrite",
                "ch": ch,
                "value": {
                    "append": ["!"],
                    "add": 7,
                    "max": -3,
                    "union": ["o"],
                    "merge": {"lit": {"o": 1}},
                    "messages": {"lit": [{"id": "m9", "text": "o"}]},
                }[k],
            }
        else:
            o = {"op": "set", "ch": ch, "value": self.value(spec, ch, n["name"])}
        n["ops"].insert(self.r.randint(0, len(n["ops"])), o)

    def channel(self):
        spec = self.case["graphs"][self.anygraph()]
        k = self.r.choice(["append", "add", "max", "union", "merge", "messages", "last"])
        ch = "c_" + k
        spec["channels"][ch] = k
        for n in self.r.sample(spec["nodes"], min(len(spec["nodes"]), 2)):
            if "ops" in n:
                n["ops"].append({"op": "set", "ch": ch, "value": self.value(spec, ch, n["name"])})

    def emit(self):
        n = self.ops_node(self.anygraph())
        if n:
            n["ops"].insert(
                self.r.randint(0, len(n["ops"])),
                {"op": "emit", "value": self.r.choice([n["name"], 1, {"obj": {"n": {"len": {"get": "log"}}}}])},
            )

    def ask(self):
        n = self.ops_node(self.anygraph())
        if n:
            i = self.r.randint(0, len(n["ops"]))
            q = n["name"] + self.r.choice(["?", "??"])
            n["ops"].insert(i, {"op": "interrupt", "value": q, "into": "v" + str(len(n["ops"]))})

    def fail(self):
        n = self.ops_node(self.anygraph())
        if n:
            o = {"op": "fail", "first": self.r.randint(1, 2)}
            if self.p(0.4):
                o["kind"] = self.r.choice(["transient", "other"])
            n["ops"].insert(self.r.randint(0, len(n["ops"])), o)
            if self.p(0.4):
                n["retry"] = {"max_attempts": self.r.randint(1, 3), **({"on": ["transient"]} if self.p(0.4) else {})}

    def defer(self):
        if '"send"' in json.dumps(self.case):
            return
        n = self.r.choice(self.case["graphs"][self.anygraph()]["nodes"])
        if n.get("defer"):
            n.pop("defer")
        else:
            n["defer"] = True

    def stop(self):
        g = self.anygraph()
        spec = self.case["graphs"][g]
        k = self.r.choice(["interrupt_before", "interrupt_after"])
        v = self.r.sample(self.names(g), 1)
        runs = [s for s in self.case["script"] if s["do"] == "run"]
        if runs and self.p(0.5):
            self.r.choice(runs)[k] = self.r.sample(self.names(), 1)
        else:
            spec[k] = v

    def view(self):
        spec = self.main
        spec[self.r.choice(["input", "output"])] = self.r.sample(sorted(spec["channels"]), self.r.randint(1, len(spec["channels"])))

    def send(self):
        if '"defer"' in json.dumps(self.case):
            return
        g = self.anygraph()
        n = self.ops_node(g)
        t = self.ops_node(g)
        if n and n is not t:
            d = self.r.choice(
                [
                    {"send": t["name"], "arg": {"obj": {"x": 1}}},
                    {"each": {"lit": [1, 2]}, "send": t["name"], "arg": {"obj": {"x": {"var": "item"}, "i": {"var": "index"}}}},
                ]
            )
            if self.p(0.5):
                n["ops"].append({"op": "if", "cond": {"lt": [{"len": {"get": "log"}}, 3]}, "then": [{"op": "goto", "to": [d]}]})
            else:
                self.case["graphs"][g]["edges"].append(
                    {"from": n["name"], "cases": [{"when": {"lt": [{"len": {"get": "log"}}, 4]}, "to": [d]}], "else": []}
                )

    def goto(self):
        g = self.anygraph()
        n = self.ops_node(g)
        if n:
            n["ops"].append(
                {
                    "op": "if",
                    "cond": {"lt": [{"len": {"get": "log"}}, self.r.randint(2, 4)]},
                    "then": [{"op": "goto", "to": self.r.sample(self.names(g), self.r.randint(1, min(2, len(self.names(g)))))}],
                }
            )

    def route(self):
        g = self.anygraph()
        ns = self.names(g)
        x = self.r.choice(ns)
        self.case["graphs"][g]["edges"].append(
            {
                "from": x,
                "cases": [
                    {
                        "when": self.r.choice([{"lt": [{"len": {"get": "log"}}, 3]}, {"ge": [{"len": {"get": "log"}}, 2]}, {"has": "x"}]),
                        "to": self.r.sample(ns, self.r.randint(0, min(2, len(ns)))),
                    }
                ],
                "else": [],
            }
        )

    def nest(self):
        [n for g in self.case["graphs"].values() for n in g["nodes"] if "subgraph" in n]
        kids = [g for g in self.case["graphs"] if g != "main"]
        if not kids:
            return
        k = self.r.choice(kids)
        ns = self.names()
        new = self.r.choice([x for x in POOL if x not in ns])
        if self.p(0.5):
            self.main["nodes"].append({"name": new, "subgraph": k})
        else:
            spec = self.main
            log = next((c for c, kk in spec["channels"].items() if kk == "append"), None)
            self.main["nodes"].append(
                {
                    "name": new,
                    "ops": [{"op": "call", "graph": k, "input": {"obj": {}}, "into": "v"}]
                    + ([{"op": "set", "ch": log, "value": [{"concat": [new, ":", {"len": {"at": [{"var": "v"}, log]}}]}]}] if log else []),
                }
            )
        self.main["edges"].append([self.r.choice(["START"] + ns), new])

    STRUCT = ["rename", "rename", "rename", "shuffle", "edge", "edge", "sibling", "sibling", "join", "write", "write", "channel", "emit"]
    # what a family is about
    MORE = {
        "interrupt": ["ask", "stop", "sibling"],
        "subgraph": ["nest", "ask", "fail", "stop", "write"],
        "send": ["send", "goto"],
        "branch": ["route", "send"],
        "error": ["fail", "sibling"],
        "reducer": ["write", "channel", "write"],
        "update": ["join", "route"],
        "command": ["goto", "goto", "send", "ask"],
        "input": ["join", "view"],
        "stream": ["emit", "ask", "fail", "view", "nest"],
        "timetravel": ["join", "ask", "route"],
        "retry": ["fail", "fail"],
        "linear": ["write", "channel"],
        "defer": ["defer", "defer", "join"],
        "fan": ["sibling", "join"],
        "recursion": ["route", "edge"],
        "loop": ["route", "join"],
        "join": ["join", "join"],
        "history": ["route"],
        "schema": ["view", "view", "channel"],
        "build": [],
        "random": ["ask", "fail", "stop", "defer", "send", "goto", "route", "nest", "join"],
    }

    def mutate(self):
        fam = self.case["family"]
        for _ in range(self.r.randint(1, 6)):
            k = self.r.choice(self.STRUCT + self.MORE[fam] * 4)
            getattr(self, k)()

    # ---- script
    def newinput(self):
        spec = self.main
        o = {}
        for ch in spec.get("input", list(spec["channels"])):
            if ch not in spec["channels"]:
                continue
            if self.p(0.35):
                o[ch] = {
                    "append": ["in"],
                    "add": self.r.randint(-1, 2),
                    "max": self.r.randint(-2, 5),
                    "union": ["in", "b"],
                    "merge": {"p": 0},
                    "messages": [{"id": "m1", "text": "in"}],
                    "last": self.r.choice([1, None, "s", 5]),
                }[spec["channels"][ch]]
        return o

    def modes(self, s):
        if s["do"] != "run" or "modes" in s and self.p(0.5):
            return s
        fresh = isinstance(s.get("input"), dict)
        if self.p(0.35):
            s["modes"] = sorted(self.r.sample(MODES if fresh else ["values", "updates", "custom", "checkpoints"], self.r.randint(1, 4)))
            if fresh and len(self.case["graphs"]) > 1 and self.p(0.5):
                s["subgraphs"] = True
        return s

    def tail(self, rec, fam):
        """One more step, fit for where the thread is."""
        r = self.r
        snap = rec.snapshot({})
        n = len(rec.ids("t"))
        qs = [q for t in snap["tasks"] if t["name"] in snap["next"] for q in t["interrupts"]]
        uq = []
        for q in qs:
            if q not in uq:
                uq.append(q)
        if n == 0:
            return {"do": "run", "input": self.newinput()}
        u = r.random()
        names = self.names()
        if snap["next"] and u < 0.6:
            if len(qs) == 1 and self.p(0.85):
                return (
                    {"do": "run", "resume": r.choice(["yes", "no", 1, {"a": 1}])}
                    if self.p(0.8)
                    else {"do": "run", "resume_map": [[qs[0], "A"]]}
                )
            if qs and len(uq) == len(qs):
                if self.p(0.85):
                    return {"do": "run", "resume_map": [[q, "A%d" % k] for k, q in enumerate(r.sample(uq, r.randint(1, len(uq))))]}
                if self.p(0.5):
                    return {"do": "run", "resume": "one"}
            return {"do": "run", "input": None}
        if fam in ("timetravel", "update", "random", "history", "join", "interrupt", "defer", "loop", "subgraph", "error"):
            if u < 0.7:
                return {"do": "run", "input": None, "at": r.randrange(n)}
            if u < 0.8:
                return {
                    "do": "update",
                    "values": self.newinput(),
                    "as_node": r.choice(names + ["START"]),
                    **({"at": r.randrange(n)} if self.p(0.5) else {}),
                }
        if fam == "update" and u < 0.9:
            return {"do": "update", "values": self.newinput(), **({"at": r.randrange(n)} if self.p(0.3) else {})}
        if fam == "timetravel" and u < 0.9:
            return {"do": "run", "input": self.newinput(), "at": r.randrange(n)}
        if fam == "command" and u < 0.9:
            return {"do": "run", "command": {"update": self.newinput(), "goto": [r.choice(names)]}}
        if u < 0.85:
            return {"do": "state", **({"at": r.randrange(n)} if self.p(0.7) else {})}
        return {"do": "run", "input": self.newinput()}

    def record(self):
        case = self.case
        fam = case["family"]
        r = self.r
        script = case["script"]
        case["script"] = []
        rec = recorder.Case(case)
        try:
            b = rec.build("main")
            rec.graph = b.compile(checkpointer=rec.saver)
        except recorder.BuildErr as e:
            case["build"] = {"error": e.args[0]}
            return case
        except ValueError as e:
            case["build"] = {"error": recorder.buildkind(str(e))}
            return case
        case["build"] = "ok"
        kept = case.get("checkpointer", True)

        def do(s):
            s = self.modes(s)
            o = rec.step(s)
            if "recursion" not in fam and o.get("error", {}).get("kind") == "recursion_limit" and "limit" not in s:
                raise Skip("long")
            qs = [canon(q) for t in (o.get("after") or {}).get("tasks", []) for q in t["interrupts"]]
            if len(set(qs)) != len(qs):
                raise Skip("same question twice")
            case["script"].append({**s, "expect": o})
            return o

        over = False
        for s in script:
            if "at" in s and s["at"] >= len(rec.ids(s.get("thread", "t"))):
                continue
            if s["do"] == "run" and kept and ("resume" in s or "resume_map" in s):
                snap = rec.snapshot(s)
                qs = [q for t in snap["tasks"] if t["name"] in snap["next"] for q in t["interrupts"]]
                if "resume" in s and len(qs) != 1 and not (len(qs) > 1 and self.p(0.3)):
                    if len(qs) > 1:
                        s = {**{k: v for k, v in s.items() if k != "resume"}, "resume_map": [[q, "A%d" % i] for i, q in enumerate(qs)]}
                    else:
                        s = {"do": "run", "input": None}
                elif "resume_map" in s and not all(q in qs for q, _ in s["resume_map"]):
                    if not qs:
                        continue
                    s = {**s, "resume_map": [[q, "A%d" % i] for i, q in enumerate(qs)]}
            if self.p(0.08):
                continue
            if isinstance(s.get("input"), dict) and self.p(0.3):
                s = {**s, "input": {**s["input"], **self.newinput()}}
            if "limit" in s and self.p(0.5):
                s = {**s, "limit": max(1, s["limit"] + r.randint(-1, 2))}
            if s["do"] == "update" and "as_node" in s and self.p(0.3):
                s = {**s, "as_node": r.choice(self.names() + ["START"])}
            if "at" in s and self.p(0.4):
                s = {**s, "at": r.randrange(len(rec.ids(s.get("thread", "t"))))}
            o = do(s)
            if o.get("error", {}).get("kind") in ("invalid_concurrent_update", "unknown_target") and self.p(0.6):
                over = True
                break
        if not over and kept:
            for _ in range(r.choice([0, 0, 1, 2, 3])):
                o = do(self.tail(rec, fam))
                if o.get("error", {}).get("kind") in ("invalid_concurrent_update", "unknown_target"):
                    over = True
                    break
        if kept and case["script"]:
            do({"do": "history"})
        if not case["script"]:
            raise Skip("nothing")
        return case


def make(base, seed):
    v = Vary(base, seed)
    v.mutate()
    c = v.record()
    c["name"] = f"{base['family']}-v{seed}"
    c["seed"] = seed
    c["about"] = "after " + base["name"]
    c["recorded_from"] = "langgraph 1.2.22"
    # what is not the same twice is no recording
    again = copy.deepcopy(c)
    script = again["script"]
    for s in script:
        s.pop("expect")
    b, outs = recorder.record(again)
    if canon([s["expect"] for s in c["script"]]) != canon(outs):
        raise Skip("not the same twice")
    return c


if __name__ == "__main__":
    out, per, first = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    fams = sys.argv[4:]
    os.makedirs(out + "/cases", exist_ok=True)
    by = collections.defaultdict(list)
    for f in sorted(glob.glob(str(CASES / "*.json"))):
        d = json.load(open(f))
        by[d["family"]].append(d)

    def alarm(*a):
        raise TimeoutError()

    signal.signal(signal.SIGALRM, alarm)
    why = collections.Counter()
    for fam in fams or sorted(by, key=lambda f: -len(by[f])):
        seed, made = first, 0
        while made < per and seed < first + per * 6:
            seed += 1
            base = by[fam][seed % len(by[fam])]
            try:
                signal.alarm(12)
                c = make(base, seed)
                json.dump(c, open(f"{out}/cases/{c['name']}.json", "w"))
                made += 1
            except KeyboardInterrupt:
                raise
            except BaseException as e:
                why[(fam, repr(e)[:70])] += 1
            finally:
                signal.alarm(0)
        print(fam, made, flush=True)
    for k, v in why.most_common(40):
        print(v, k)
