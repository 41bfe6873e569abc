# SPDX-License-Identifier: Apache-2.0
"""scripts/check-structure against small trees: a good one, and the same with each rule broken once."""

import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]

GOOD = {
    "common/base/str.h": "struct str;\n",
    "common/base/mem.h": "#define POOL_MAGIC 0x1u\n",
    "common/io/loop.h": '#include "common/base/str.h"\n#define LOOP_MAGIC 0x2u\n'
                        "struct loop {\n    unsigned magic;\n    int fd;\n};\n",
    "common/io/loop.c": '#include "common/io/loop.h"\n#include <uv.h>\n\n'
                        "void tick(void *p)\n{\n    struct loop *l = CAST_OBJ(struct loop, p, LOOP_MAGIC);\n}\n",
    "common/otlp/wire.h": '#include "common/base/str.h"\n',
    "common/pipeline/graph.h": '#include "common/otlp/wire.h"\n',
    "common/components/exporters/debug.c": '#include "common/pipeline/graph.h"\n\n'
                                           "const struct component debug_component = {\n    0,\n};\n",
    "gateway/main.c": '#include "common/components/exporters/debug.h"\n',
    "gateway/components.def": "COMPONENT(debug)\n",
    "agent/main.c": '#include "common/pipeline/graph.h"\n#include "bpf/wire.h"\n',
    "agent/components.def": "COMPONENT(debug)\n",
    "bpf/wire.h": "struct record;\n",
    "bpf/conn.h": "struct conn;\n",
    "bpf/socket.bpf.c": '#include "bpf/wire.h"\n#include "bpf/conn.h"\n',
}

# What breaks a rule: files that replace or join those above, and the message that must come.
BAD = {
    "include upwards": (
        {"common/base/str.h": '#include "common/io/loop.h"\n'},
        "common/base/str.h:1: common/base may not include common/io/loop.h"),
    "io and otlp are side by side": (
        {"common/otlp/wire.h": '\n#include "common/io/loop.h"\n'},
        "common/otlp/wire.h:2: common/otlp may not include common/io/loop.h"),
    "the programs know nothing of each other": (
        {"gateway/main.c": '#include "agent/main.h"\n'},
        "gateway/main.c:1: gateway may not include agent/main.h"),
    "the kernel side includes nothing of the user side": (
        {"bpf/wire.h": '#include "common/base/str.h"\n'},
        "bpf/wire.h:1: bpf may not include common/base/str.h"),
    "the agent sees one header of the kernel side": (
        {"agent/main.c": '#include "bpf/conn.h"\n'},
        "agent/main.c:1: agent may not include bpf/conn.h"),
    "a library outside of its owner": (
        {"common/io/dial.c": "#include <openssl/ssl.h>\n"},
        "common/io/dial.c:1: <openssl/ssl.h> belongs to "),
    "a library that has no owner in this room": (
        {"gateway/main.c": "#include <uv.h>\n"}, "gateway/main.c:1: <uv.h> belongs to "),
    "a generated header outside of its owner": (
        {"gateway/main.c": '#include "proto/export.pb.h"\n'},
        'gateway/main.c:1: "proto/export.pb.h" belongs to '),
    "a component without its line": (
        {"common/components/exporters/file.c": "const struct component file_component = {\n};\n"},
        "common/components/exporters/file.c:1: component file is in no components.def"),
    "a line without its component": (
        {"gateway/components.def": "COMPONENT(debug)\nCOMPONENT(zipkin)\n"},
        "gateway/components.def:1: no component zipkin"),
    "a long function": (
        {"common/io/long.c": "int f(void)\n{\n" + "    g();\n" * 150 + "}\n"},
        "common/io/long.c:2: function of 151 lines, more than 150"),
    "a long file": (
        {"common/io/long.h": "int f(void);\n" * 1001}, "common/io/long.h:1: 1002 lines, more than 1000"),
    "a magic number twice": (
        {"gateway/table.h": "#define TABLE_MAGIC 0x1u\n"}, "TABLE_MAGIC is also POOL_MAGIC"),
    "no licence": (
        {"scripts/run": "#!/bin/sh\ntrue\n"}, "scripts/run:1: no line SPDX-License-Identifier: Apache-2.0"),
    "the licence of the user side in the kernel side": (
        {"bpf/conn.h": "/* SPDX-License-Identifier: Apache-2.0 */\n"},
        "bpf/conn.h:1: no line SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only"),
    "a file that its folder's README does not name": (
        {"common/io/README.md": "loop.c and my-loop. To add one: do.\n", "common/io/tls.h": "\n"},
        "common/io/README.md:1: does not name tls.h"),
    "a README that says nothing to who comes after": (
        {"common/otlp/README.md": "wire.h\n"}, "common/otlp/README.md:1: does not say how to add one"),
    "a struct without its magic number": (
        {"common/io/loop.h": "#define LOOP_MAGIC 0x2u\nstruct loop {\n    int fd;\n};\n"},
        "common/io/loop.h:2: struct loop is read back by CAST_OBJ and does not begin with its magic number"),
}


def check(root, files):
    """The script on a tree of these files, each with its licence, and with READMEs that name them."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        licence = "BSD-2-Clause OR GPL-2.0-only" if name.startswith("bpf/") else "Apache-2.0"
        if path.suffix in (".c", ".h") and "SPDX" not in text:
            text = text.replace("\n", f" /* SPDX-License-Identifier: {licence} */\n", 1)
        path.write_text(text)
    for folder in [p for p in root.rglob("*") if p.is_dir()]:
        names = [p.name + "/" * p.is_dir() for p in folder.iterdir()]
        if "README.md" not in names:
            (folder / "README.md").write_text(f"{' '.join(names)}. To add one: do.\n")
    return subprocess.run([sys.executable, ROOT / "scripts" / "check-structure", root],
                          capture_output=True, text=True)


def test_a_good_tree_has_no_breach(tmp_path):
    done = check(tmp_path, GOOD)
    assert (done.returncode, done.stdout) == (0, "structure: no breach\n"), done.stdout + done.stderr


@pytest.mark.parametrize("what", BAD)
def test_each_breach_is_told_once_and_with_its_place(tmp_path, what):
    files, message = BAD[what]
    done = check(tmp_path, {**GOOD, **files})
    assert done.returncode == 1, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 1 and message in lines[0], done.stdout


def test_longest_that_may_be(tmp_path):
    done = check(tmp_path, {**GOOD, "common/io/long.c": "int f(void)\n{\n" + "    g();\n" * 149 + "}\n",
                            "common/io/long.h": "int f(void);\n" * 999})
    assert done.returncode == 0, done.stdout
