"""The small language of the recorded cases: reducers, expressions and destinations, as tests/conformance/README.md has them."""

import copy
import json
from typing import Annotated, Any

from langgraph.graph import END
from langgraph.types import Send
from typing_extensions import TypedDict


def canon(value):
    """JSON in one form: equal values are equal texts."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


class Skip(Exception):
    """A case that is not to be recorded."""


class Failure(Exception):
    """A node fails as its case says."""

    def __init__(self, path, kind):
        super().__init__(f"{kind} in {path}")
        self.path = path
        self.kind = kind


class UnknownLabel(Exception):
    """A route has led to a label that its table does not have."""


def r_append(a, b):
    return list(a) + list(b)


def r_add(a, b):
    return a + b


def r_max(a, b):
    return a if a >= b else b


def r_union(a, b):
    return sorted(set(a) | set(b), key=lambda s: s.encode())


def r_merge(a, b):
    return {**a, **b}


def r_messages(a, b):
    out = list(a)
    for item in b:
        i = next((k for k, x in enumerate(out) if x.get("id") == item.get("id")), None)
        if item.get("remove"):
            if i is not None:
                out.pop(i)
        elif i is not None:
            out[i] = item
        else:
            out.append(item)
    return out


RED = {
    "append": (list, r_append),
    "add": (int, r_add),
    "max": (int, r_max),
    "union": (list, r_union),
    "merge": (dict, r_merge),
    "messages": (list, r_messages),
}


def schema(name, channels, keys=None):
    ann = {}
    for ch, kind in channels.items():
        if keys is not None and ch not in keys:
            continue
        if kind == "last":
            ann[ch] = Any
        else:
            t, f = RED[kind]
            ann[ch] = Annotated[t, f]
    return TypedDict(name, ann)


def num(v):
    return 0 if v is None else int(v)


def text(v):
    return v if isinstance(v, str) else json.dumps(v, separators=(",", ":"))


def ev(e, ch, var):
    """Evaluates an expression against channels and variables."""
    if isinstance(e, list):
        return [ev(x, ch, var) for x in e]
    if not isinstance(e, dict):
        return e
    ((k, a),) = e.items()

    def E(x):
        return ev(x, ch, var)

    if k == "lit":
        return copy.deepcopy(a)
    if k == "get":
        return copy.deepcopy(ch.get(a))
    if k == "has":
        return a in ch
    if k == "var":
        return copy.deepcopy(var.get(a))
    if k == "obj":
        return {x: E(y) for x, y in a.items()}
    if k == "len":
        v = E(a)
        return 0 if v is None else len(v)
    if k == "not":
        return not E(a)
    if k == "add":
        return sum(num(E(x)) for x in a)
    if k == "mul":
        return num(E(a[0])) * num(E(a[1]))
    if k == "concat":
        return "".join(text(E(x)) for x in a)
    if k == "at":
        c, i = E(a[0]), E(a[1])
        if isinstance(c, dict):
            return c.get(i)
        if isinstance(c, list) and isinstance(i, int) and 0 <= i < len(c):
            return c[i]
        return None
    if k == "or":
        v = E(a[0])
        return E(a[1]) if v is None else v
    if k == "eq":
        return E(a[0]) == E(a[1])
    if k == "lt":
        return num(E(a[0])) < num(E(a[1]))
    if k == "ge":
        return num(E(a[0])) >= num(E(a[1]))
    raise Skip("expr " + k)


def dests(ds, ch, var):
    """Destinations as the recorded engine takes them."""
    out = []
    for d in ds:
        if isinstance(d, str):
            out.append(END if d == "END" else d)
        elif "each" in d:
            for i, item in enumerate(ev(d["each"], ch, var) or []):
                out.append(Send(d["send"], ev(d["arg"], ch, {**var, "item": item, "index": i})))
        else:
            out.append(Send(d["send"], ev(d["arg"], ch, var)))
    return out
