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

#: Why no job can write where modules, or the modules of a folder, call something of the above.
ALLOWED: dict[str, tuple[str, set[str]]] = {
    "atlas.py": ("the models' own directory is the coordinator's", {"mkdir"}),
    "cache.py": (
        "the cache's own directory is the coordinator's; jobs read it",
        {"iterdir", "mkdir", "open", "os.listdir", "os.utime", "rename", "touch", "unlink"},
    ),
    "checkpoints.py": ("it is Directory's rename", {"rename"}),
    "config.py": ("the operator's configuration", {"read_text"}),
    "config_values.py": ("the operator's secrets", {"read_text"}),
    "confinement.py": ("the system's directories", {"iterdir", "resolve"}),
    "drive.py": (
        "the folder of the tenants' folders; access goes through a held descriptor",
        {"mkdir", "os.access"},
    ),
    "isolation": (
        "the system, the runner's own files, and directories that are around those of a job;"
        " what is below them is walked by app.files",
        {
            *("chmod", "exists", "is_dir", "is_symlink", "iterdir", "mkdir", "open", "os.access"),
            *("os.chown", "os.lchown", "os.listdir", "os.lstat", "os.open", "os.readlink"),
            *("os.scandir", "os.stat", "os.statvfs", "os.unlink", "read_text", "resolve"),
            # In the kernel's own file system of control groups.
            *("os.getxattr", "rmdir"),
        },
    ),
    "job_secrets.py": ("a directory of mode 0700", {"iterdir", "mkdir", "read_bytes", "unlink"}),
    "jobdir.py": (
        "a job's lock is beside what it writes; /proc",
        {"os.open", "read_bytes", "read_text"},
    ),
    "jobdir_steps.py": (
        "the marker of a job's directory is beside what the job writes",
        {"read_bytes", "write_bytes"},
    ),
    "journal.py": ("logs and metrics are written by the runner", {"os.open"}),
    "journal_writer.py": ("logs and metrics are written by the runner", {"os.open"}),
    "launcher.py": (
        "a run's directory is the runner's; of the metrics file only the time is read",
        {"exists", "lstat", "mkdir", "open", "resolve"},
    ),
    "listening.py": ("the operator's certificates", {"read_bytes"}),
    "logs.py": ("a log is written by the runner", {"exists", "mkdir", "read_text", "write_text"}),
    "memory_reserve.py": ("/proc and /sys", {"read_text"}),
    "metrics.py": ("metrics are written by the runner", {"mkdir"}),
    "metrics_blocks.py": ("metrics are written by the runner", {"unlink"}),
    "metrics_file.py": ("without following a link, in the runner's directory", {"os.open"}),
    "notices.py": ("the coordinator's socket", {"os.open", "unlink"}),
    "reserve.py": ("a file of the data directory", {"os.open", "os.truncate"}),
    "run_exit.py": ("a run's directory is the runner's", {"open", "os.replace"}),
    "run_killing.py": (
        "/proc and /sys, and the runs, which no job can add to",
        {"exists", "is_dir", "iterdir", "read_bytes", "read_text"},
    ),
    "runner.py": (
        "a run's directory is its own; a short name for TMPDIR that nobody can guess",
        {"exists", "os.symlink", "touch"},
    ),
    "server.py": ("the data directory", {"mkdir", "os.access", "os.open"}),
    "store_steps.py": ("the data directory", {"iterdir", "os.open", "unlink"}),
    "stored_secrets.py": ("a run's directory is the runner's", {"exists", "is_dir", "iterdir"}),
    "workers": ("/proc, and where this code is", {"open", "resolve"}),
    "workspace.py": (
        "a job's directory and its program are beside what it writes; this project's own code;"
        " what is in the job's directory goes through Directory",
        {"exists", "glob", "is_file", "mkdir", "open", "touch", "unlink"},
    ),
}
#: Modules that run as a job's own process, and have no more rights than it.
OF_JOBS = {"evaluate_model.py", "evaluator"}


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
    problems = []
    for path in sorted(ROOT.rglob("*.py")):
        module = str(path.relative_to(ROOT))
        place = module.split("/")[0]
        if place in OF_JOBS:
            continue
        reason, names = ALLOWED.get(place, ("", set()))
        assert reason or not names
        problems += [
            f"{module}:{line} calls {name}; use app.files, or say why no job can write there"
            for line, name in calls_by_path(path)
            if name not in names
        ]
    assert not problems, "\n".join(problems)


def test_calls_by_a_path_are_found(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text("""
open("a")
os.open("a", 0)
os.open("a", 0, dir_fd=3)
os.walk("a")
shutil.rmtree("a")
path.rglob("*")
directory.open_file("a")
""")
    assert list(calls_by_path(module)) == [
        *((2, "open"), (3, "os.open"), (5, "os.walk"), (6, "shutil.rmtree"), (7, "rglob"))
    ]
