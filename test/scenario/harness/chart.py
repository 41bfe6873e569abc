# SPDX-License-Identifier: Apache-2.0
"""Renders the Helm chart without Helm: the part of Go's templates that the chart uses, and no more.

Known: {{ .Path }}, {{- and -}}, if/else/end, define/include, tpl, toYaml, pipes with default, quote, indent and
sha256sum. Anything else is an error.
"""

import hashlib
import re

import yaml

TOKEN = re.compile(r"\{\{(-?)\s*((?:(?!\}\}).)*?)\s*(-?)\}\}", re.S)
WORD = re.compile(r'"[^"]*"|\([^()]*\)|\S+')


def tokens(text):
    """[(is code, text)] with the white space that {{- and -}} eat taken away."""
    out, at, eats = [], 0, False
    for m in TOKEN.finditer(text):
        plain = text[at:m.start()]
        plain = plain.lstrip() if eats else plain
        out.append((False, plain.rstrip() if m[1] else plain))
        out.append((True, m[2]))
        at, eats = m.end(), bool(m[3])
    out.append((False, text[at:].lstrip() if eats else text[at:]))
    return out


class Chart:
    def __init__(self, folder, values=None, release="r1", namespace="ns"):
        meta = yaml.safe_load((folder / "Chart.yaml").read_text())
        base = yaml.safe_load((folder / "values.yaml").read_text())
        self.dot = {"Values": merge(base, values or {}),
                    "Release": {"Name": release, "Namespace": namespace, "Service": "Helm"},
                    "Chart": {"Name": meta["name"], "AppVersion": meta["appVersion"]}}
        self.defines = {}
        self.texts = {p.name: p.read_text() for p in sorted((folder / "templates").iterdir())}
        for name, text in self.texts.items():
            if name.startswith("_"):
                self.render(text)

    def objects(self):
        """All objects that the chart makes, by (kind, name)."""
        found = {}
        for name, text in self.texts.items():
            if name.startswith("_"):
                continue
            for o in yaml.safe_load_all(self.render(text)):
                if o:
                    found[o["kind"], o["metadata"]["name"]] = o
        return found

    def render(self, text):
        out, rest = self._block(tokens(text), 0, True)
        assert rest is None, "an end too many"
        return out

    def _block(self, toks, at, shown):
        """(text, index of the end or else that stopped it)."""
        out = []
        while at < len(toks):
            is_code, text = toks[at]
            if not is_code:
                out.append(text)
            elif text in ("end", "else"):
                return "".join(out), at
            elif text.startswith("if "):
                yes = bool(self._value(text[3:]))
                body, at = self._block(toks, at + 1, shown and yes)
                other = ""
                if toks[at][1] == "else":
                    other, at = self._block(toks, at + 1, shown and not yes)
                out.append(body if yes else other)
            elif text.startswith("define "):
                body, end = self._body(toks, at + 1)
                self.defines[text[8:-1]] = body
                at = end
            elif shown:
                out.append(str(self._value(text)))
            at += 1
        return "".join(out), None

    @staticmethod
    def _body(toks, at):
        end = next(i for i in range(at, len(toks)) if toks[i] == (True, "end"))
        return toks[at:end], end

    def _value(self, text):
        stages = [s.strip() for s in re.split(r"\|(?![^(]*\))", text)]
        value = self._call(WORD.findall(stages[0]))
        for stage in stages[1:]:
            value = self._call(WORD.findall(stage), value)
        return value

    def _call(self, words, piped=None):
        args = [self._atom(w) for w in words[1:]] + ([piped] if piped is not None or len(words) > 1 else [])
        if piped is None and len(words) > 1:
            args = args[:len(words) - 1]
        call = {"toYaml": lambda v: yaml.safe_dump(v, default_flow_style=False).rstrip("\n"),
                "quote": lambda v: f'"{v}"',
                "indent": lambda n, v: "\n".join(" " * n + line for line in v.split("\n")),
                "default": lambda d, v: v or d,
                "not": lambda v: not v,
                "sha256sum": lambda v: hashlib.sha256(v.encode()).hexdigest(),
                "tpl": lambda v, dot: self.render(v),
                "include": lambda name, dot: self._block(self.defines[name], 0, True)[0]}
        if words[0] in call:
            return call[words[0]](*args)
        assert len(words) == 1, f"unknown function {words[0]}"
        return self._atom(words[0])

    def _atom(self, word):
        if word.startswith("("):
            return self._value(word[1:-1])
        if word.startswith('"'):
            return word[1:-1]
        if word.isdigit():
            return int(word)
        assert word.startswith("."), f"unknown word {word}"
        value = self.dot
        for key in filter(None, word.split(".")):
            assert key in value, f"{word}: no value {key}"
            value = value[key]
        return value


def merge(base, over):
    out = dict(base)
    for k, v in over.items():
        out[k] = merge(base[k], v) if isinstance(v, dict) and isinstance(base.get(k), dict) else v
    return out
