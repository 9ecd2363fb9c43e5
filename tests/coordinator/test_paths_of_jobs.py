"""Nothing in the coordinator opens a path that a job can change, but through `app.files`.

A call that goes by a path is either below a directory that no job can write,
or listed here with the reason why it may be there.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import app.coordinator

ROOT = Path(app.coordinator.__file__).parent
#: Of `os` and `shutil`, unless they are given a descriptor to start from.
FUNCTIONS = {
    *("open", "stat", "lstat", "mkdir", "makedirs", "unlink", "remove", "rename", "replace"),
    *("rmdir", "chmod", "chown", "lchown", "link", "symlink", "truncate", "utime", "mknod"),
    *("mkfifo", "readlink", "access", "statvfs", "getxattr", "setxattr"),
}
#: Of `os` and `shutil`, whatever they are given.
TREES = {"walk", "fwalk", "scandir", "listdir", "rmtree", "copytree", "copy", "copy2", "copyfile"}
TREES |= {"move", "chown", "make_archive", "unpack_archive"}
#: Of `pathlib.Path`; those that `Directory` has, too, under the same name are left out.
METHODS = {
    *("glob", "rglob", "iterdir", "read_text", "read_bytes", "write_text", "write_bytes"),
    *("touch", "mkdir", "chmod", "is_dir", "is_file", "is_symlink", "resolve", "lstat"),
    *("symlink_to", "hardlink_to", "samefile", "exists", "unlink", "rename", "rmdir"),
}

#: Why a module may call something of the above. No job can write where these work.
ALLOWED: dict[str, tuple[str, set[str]]] = {}


def calls_by_path(module: Path) -> Iterator[tuple[int, str]]:
    """The lines and names of calls that go by a path."""
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        keywords = {keyword.arg for keyword in node.keywords}
        match node.func:
            case ast.Name("open"):
                yield node.lineno, "open"
            case ast.Attribute(ast.Name("os" | "shutil" as owner), name):
                relative = keywords & {"dir_fd", "src_dir_fd", "dst_dir_fd"}
                if name in TREES or (name in FUNCTIONS and not relative):
                    yield node.lineno, f"{owner}.{name}"
            case ast.Attribute(_, name) if name in METHODS:
                yield node.lineno, name


def test_every_call_by_a_path_has_a_reason() -> None:
    found: dict[str, set[str]] = {}
    problems = []
    for path in sorted(ROOT.rglob("*.py")):
        module = str(path.relative_to(ROOT))
        for line, name in calls_by_path(path):
            found.setdefault(module, set()).add(name)
            if name not in ALLOWED.get(module, ("", set()))[1]:
                problems.append(f"{module}:{line} calls {name}")
    assert not problems, "\n".join(problems)
    assert found == {module: names for module, (_, names) in ALLOWED.items()}
    assert all(reason for reason, _ in ALLOWED.values())
