"""What a script may write, of every kind, odd and plain: strategies for property tests."""

import json
from typing import Any

from hypothesis import strategies as st

#: Numbers as JSON texts, those that no number can hold included.
numbers = st.one_of(
    st.integers(-(2**70), 2**70).map(str),
    st.floats().map(json.dumps),
    st.sampled_from(
        [
            *("NaN", "Infinity", "-Infinity", "-0", "1e400", "-1e19", "1e30", "1E-999"),
            *(str(2**power + more) for power in (31, 53, 63, 64) for more in (-1, 0, 1)),
            *(str(-(2**63) - more) for more in (0, 1)),
        ]
    ),
    st.integers(300, 6000).map(lambda digits: "9" * digits),
    st.integers(300, 6000).map(lambda digits: "0." + "9" * digits),
)


def _deep(brackets: str, depth: int) -> str:
    return brackets[0] * depth + brackets[1] * depth


#: Values as JSON texts, or nearly.
values = st.one_of(
    numbers,
    st.sampled_from(["null", "true", "false", '""', '"\\ud800"', '"\\u0000"', "", ",", "}"]),
    st.text(max_size=20).map(json.dumps),
    st.builds(_deep, st.sampled_from(["[]"]), st.sampled_from([1, 63, 64, 65, 254, 255, 1000])),
    st.sampled_from([60, 255, 2000, 50_000]).map(lambda depth: '{"a":' * depth + "1" + "}" * depth),
)

#: Names of a line's fields, known ones among them.
fields = st.one_of(
    st.sampled_from(
        [
            *("step", "total_steps", "epoch", "loss", "lr", "train_loss", "learning_rate"),
            *("gpu_memory_bytes", "gpu_utilization", "eval_loss", "level", "message", "rank"),
        ]
    ),
    st.text(max_size=12),
    st.integers(120, 300).map(lambda length: "n" * length),
)


def _object(members: list[tuple[str, str]]) -> bytes:
    text = ", ".join(f"{json.dumps(name)}: {value}" for name, value in members)
    return f"{{{text}}}".encode("utf-8", "surrogatepass")


#: Lines that are, or could be, JSON objects.
objects = st.lists(st.tuples(fields, values), max_size=8).map(_object)

_level = st.sampled_from(['"info"', '"ERROR"', '"none"', "1"])

#: Lines of a metrics file.
metrics_lines = st.one_of(
    objects,
    st.builds(
        lambda step, rest: _object([("step", step), *rest]),
        st.one_of(numbers, st.integers(0, 1000).map(str)),
        st.lists(st.tuples(fields, values), max_size=6),
    ),
    st.binary(max_size=60),
    st.builds(lambda line, at: line[:at], objects, st.integers(0, 200)),
).map(lambda line: line.replace(b"\n", b" "))

#: What a process prints, in pieces.
outputs = st.one_of(
    st.builds(
        lambda level, message, rest: (
            _object([("level", level), ("message", message), *rest]) + b"\n"
        ),
        _level,
        st.text(max_size=10).map(json.dumps),
        st.lists(st.tuples(fields, values), max_size=4),
    ),
    st.binary(max_size=80),
    st.text(max_size=40).map(lambda text: text.encode("utf-8", "replace")),
    st.sampled_from([b"\n", b"\r", b"\r\n", b"\x00", b"\xff\xfe", b"\x1b[31m", b"ERROR: x\n"]),
    st.integers(8_000, 70_000).map(lambda length: b"x" * length),
)

#: Names of files, as bytes: whatever Linux takes.
names = (
    st.one_of(
        st.binary(min_size=1, max_size=40),
        st.integers(1, 10**40).map(lambda number: b"step-%d" % number),
        st.sampled_from(
            [
                *(b"step-9223372036854775808", b"ckpt-20261126154000123456", b"step-\xff1"),
                *(b".hidden", b"x.tmp", b"tmp-checkpoint-5", b"-c.py", b"a\nb", b"\xc3\x28"),
                *(b"x" * 247, b"x" * 255, "\u0661".encode(), b"\xed\xa0\x80", b"%s%n", b"'\"$(x)"),
            ]
        ),
        st.text(min_size=1, max_size=20).map(lambda text: text.encode("utf-8", "surrogatepass")),
    )
    .map(lambda name: name.replace(b"/", b"_").replace(b"\x00", b"_")[:255])
    .filter(lambda name: name not in (b"", b".", b".."))
)

#: Trees: by name, what is there. A file has its bytes, a directory is a tree.
trees: st.SearchStrategy[dict[bytes, Any]] = st.recursive(
    st.dictionaries(
        names,
        st.one_of(
            st.binary(max_size=30),
            st.sampled_from(["fifo", "dangling", "to /etc", "to itself", "hard", "holes"]),
        ),
        max_size=4,
    ),
    lambda below: st.dictionaries(
        names, st.one_of(below, st.sampled_from([50, 99, 100, 120]), st.just("fifo")), max_size=3
    ),
    max_leaves=8,
)

#: Makes a tree like `trees`; for scripts, too, that have it as text. A number is a directory with
#: so many below each other.
PLANT = '''
import os

def plant(tree, folder):
    """Make a tree below a folder, as far as the system takes it."""
    place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for name, what in tree.items():
            try:
                plant_one(place, name, what)
            except OSError as error:
                print(error.strerror)
    finally:
        os.close(place)

def plant_one(place, name, what):
    if isinstance(what, bytes):
        made = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=place)
        os.write(made, what)
        os.close(made)
    elif isinstance(what, dict):
        os.mkdir(name, dir_fd=place)
        plant(what, f"/proc/self/fd/{place}/".encode() + name)
    elif isinstance(what, int):
        os.mkdir(name, dir_fd=place)
        below = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=place)
        for _ in range(what):
            os.mkdir("d", dir_fd=below)
            deeper = os.open("d", os.O_RDONLY | os.O_DIRECTORY, dir_fd=below)
            os.close(below)
            below = deeper
        os.close(below)
    elif what == "fifo":
        os.mkfifo(name, dir_fd=place)
    elif what == "hard":
        made = os.open(b"." + name[:200], os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=place)
        os.close(made)
        os.link(b"." + name[:200], name, src_dir_fd=place, dst_dir_fd=place)
    elif what == "holes":
        made = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=place)
        os.ftruncate(made, 1 << 30)
        os.close(made)
    else:
        leads = {"dangling": b"nowhere", "to /etc": b"/etc", "to itself": name}[what]
        os.symlink(leads, name, dir_fd=place)
'''
