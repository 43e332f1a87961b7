"""Experiment files and settings nobody should write: from the JSON Schema of experiments, and from the shipped ones, damaged."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from orchestrator.experiment import yaml12

SWEEPS = sorted((Path(__file__).parents[3] / "sweeps").glob("*.yaml"))

NUMBERS = [0, 1, -1, 2, 3, 7, 0.5, 1.5, -0.0, 1e-300, 1e300, 1e18, 2**31, 2**63 - 1, 2**63, 10**39]
NUMBERS += [float("inf"), float("-inf"), float("nan")]
WORDS = [
    "",
    "no",
    "true",
    "null",
    "~",
    "1e-4",
    "010",
    "1:30",
    "0",
    "${schedule.steps}",
    "${",
    "${nowhere}",
    "???",
    "../../x",
]
WORDS += [
    "${oc.env:NOBODY}",
    "/",
    "~nobody/x",
    "a\0b",
    "\udc80",
    "x" * 3000,
    "[ppo]",
    "{use: exact}",
    "é",
    " ",
    "auto",
    "mod:X",
]
WILD = st.one_of(
    st.sampled_from(NUMBERS),
    st.sampled_from(WORDS),
    st.booleans(),
    st.none(),
    st.just([]),
    st.just({}),
    st.just([[[[]]]]),
    st.just({"use": "exact"}),
    st.just({"use": []}),
    st.integers(-5, 5).map(lambda n: [n, n]),
    st.dictionaries(st.sampled_from(WORDS), st.sampled_from(NUMBERS), max_size=2),
)


def wild(draw: Any) -> Any:
    """A value nobody should write, of which nothing is shared with other draws."""
    return copy.deepcopy(draw(WILD))


def flow(value: Any) -> str:
    """Plain data as one line of YAML."""
    if isinstance(value, float):
        return {"inf": ".inf", "-inf": "-.inf", "nan": ".nan"}.get(str(value), repr(value))
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(str(key))}: {flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(flow, value)) + "]"
    return json.dumps(value)


class Drawn:
    """Values that a JSON Schema describes, each now and then replaced by a wild one."""

    def __init__(self, schema: Mapping[str, Any]):
        self.definitions = schema["$defs"]

    def value(self, draw: Any, schema: Mapping[str, Any], depth: int = 0) -> Any:
        """One value of a schema; deep ones are cut short."""
        if draw(st.integers(0, 19)) == 0:
            return wild(draw)
        if "$ref" in schema:
            return self.value(draw, self.definitions[schema["$ref"].removeprefix("#/$defs/")], depth)
        for choices in ("anyOf", "oneOf"):
            if choices in schema:
                return self.value(draw, draw(st.sampled_from(schema[choices])), depth)
        if "enum" in schema:
            return draw(st.sampled_from(schema["enum"]))
        if "const" in schema:
            return schema["const"]
        kind = schema.get("type")
        kind = draw(st.sampled_from(kind)) if isinstance(kind, list) else kind
        match kind:
            case "object":
                return self._object(draw, schema, depth)
            case "array":
                items = schema.get("items", {}) if isinstance(schema.get("items", {}), Mapping) else {}
                fixed = schema.get("prefixItems", [])
                many = draw(st.integers(0, 2)) if depth < 4 and not fixed else 0
                return [self.value(draw, one, depth + 1) for one in (*fixed, *[items] * many)]
            case "integer":
                least = int(schema.get("minimum", 0))
                return draw(st.integers(least, int(schema.get("maximum", least + 4))))
            case "number":
                low = schema.get("minimum", schema.get("exclusiveMinimum", 0))
                high = schema.get("maximum", schema.get("exclusiveMaximum", max(low, 1)))
                return draw(st.sampled_from([low, high, (low + high) / 2]))
            case "boolean":
                return draw(st.booleans())
            case "string":
                return draw(st.sampled_from(WORDS))
            case "null":
                return None
        return wild(draw)

    def _object(self, draw: Any, schema: Mapping[str, Any], depth: int) -> dict[str, Any]:
        known = dict(schema.get("properties", {}))
        names = [name for name in known if draw(st.integers(0, 5)) == 0 or name in schema.get("required", ())]
        made = {name: self.value(draw, known[name], depth + 1) for name in names if depth < 6 or name == "use"}
        for rule in schema.get("allOf", ()):  # `use` decides on the options
            chosen = rule.get("if", {}).get("properties", {}).get("use", {}).get("const")
            if chosen is not None and made.get("use") == chosen and depth < 6:
                options = self.value(draw, rule["then"], depth + 1)
                made = {**options, **made} if isinstance(options, dict) else made
        if isinstance(schema.get("additionalProperties"), Mapping) and depth < 4 and draw(st.booleans()):
            key = draw(st.sampled_from(["a", "b", "no", "1e-4", "optimizer.lr", "sampler.count", "../x"]))
            made[key] = self.value(draw, schema["additionalProperties"], depth + 1)
        return made


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in plain data, itself included."""
    found = [path]
    if isinstance(value, dict):
        found += [place for key, item in value.items() for place in places(item, (*path, key))]
    elif isinstance(value, list):
        found += [place for index, item in enumerate(value) for place in places(item, (*path, index))]
    return found


def shipped(draw: Any) -> dict[str, Any]:
    """A shipped experiment with up to three places replaced, removed or doubled."""
    data = yaml12.read(draw(st.sampled_from(SWEEPS)).read_text(encoding="utf-8"))
    for _ in range(draw(st.integers(0, 3))):
        path = draw(st.sampled_from(places(data)[1:]))
        holder = data
        for part in path[:-1]:
            holder = holder[part]
        how = draw(st.integers(0, 3))
        if how == 0:
            del holder[path[-1]]
        elif how == 1 and isinstance(holder, dict):
            holder[f"{path[-1]}x"] = copy.deepcopy(holder[path[-1]])
        else:
            holder[path[-1]] = wild(draw)
        if not data:
            break
    return data


def damaged(draw: Any, text: str) -> str:
    """Text with a stretch taken out, doubled, or replaced by signs that mean something to YAML."""
    for _ in range(draw(st.integers(0, 2))):
        begin = draw(st.integers(0, max(0, len(text) - 1)))
        end = min(len(text), begin + draw(st.integers(0, 12)))
        middle = draw(
            st.sampled_from(
                ["", text[begin:end] * 2, "[", "}", ": ", "\n", "\t", "&a ", "*a", "!!x ", "'", "|", "<<: "]
            )
        )
        text = text[:begin] + middle + text[end:]
    return text


def overrides(draw: Any, data: Any) -> list[str]:
    """Settings of the command line: of places that are there, or are not."""
    made = []
    known = [".".join(map(str, place)) for place in places(data) if place]
    keys = [
        *known,
        "arms.zz.optimizer.lr",
        "search.optimizer.lr",
        "rewards.3.weight",
        "seeds.9",
        "a..b",
        "tune.samples",
        "x" * 99,
    ]
    for _ in range(draw(st.integers(0, 2))):
        key = draw(st.sampled_from(keys))
        made.append(f"{key}={flow(wild(draw))}" if draw(st.integers(0, 9)) else key)
    return made
