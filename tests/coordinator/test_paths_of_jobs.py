"""Nothing in the coordinator opens a path that a job can change, but through `app.files`.

A call that goes by a path is either below a directory that no job can write,
or listed here with the reason why it may be there.
"""

import ast
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

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
    "data/atlas.py": ("the models' own directory is the coordinator's", {"mkdir"}),
    "data/archives": (
        "it is Directory's, and a descriptor that the worker was started with",
        {"exists", "open"},
    ),
    "data/cache.py": (
        "the cache's own directory is the coordinator's; jobs read it",
        {"iterdir", "mkdir", "open", "os.listdir", "os.utime", "rename", "touch", "unlink"},
    ),
    "data/fetched_sources.py": ("a directory of the coordinator's own, for one check", {"mkdir"}),
    "execution/on_nodes/object_cache.py": (
        "the cache's own directory is the node's; jobs read other names of its files",
        {"iterdir", "mkdir", "open", "os.utime", "read_text", "rename", "write_text"},
    ),
    "execution/on_nodes/checkpoints.py": ("it is Directory's exists", {"exists"}),
    "execution/on_nodes/holding.py": ("it is Directory's exists", {"exists"}),
    "execution/on_nodes/view.py": ("a run's own drive, before the run begins", {"mkdir"}),
    "execution/checkpoints.py": ("it is Directory's rename", {"rename"}),
    "settings/coordinator.py": ("the operator's configuration", {"read_text"}),
    "settings/values.py": ("the operator's secrets", {"read_text"}),
    "isolation/system_paths.py": ("the system's directories", {"iterdir", "resolve"}),
    "data/drive.py": (
        "the folder of the tenants' folders; access goes through a held descriptor",
        {"mkdir", "os.access"},
    ),
    "resources": (
        "/proc, and the kernel's own file system of control groups",
        {
            *("chmod", "exists", "is_dir", "iterdir", "mkdir", "open", "os.access", "os.getxattr"),
            *("os.listdir", "os.lstat", "os.open", "os.readlink", "os.scandir", "os.stat"),
            "os.statvfs",
            *("read_text", "resolve", "rmdir"),
        },
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
    "jobs/secrets.py": ("a directory of mode 0700", {"iterdir", "mkdir", "read_bytes", "unlink"}),
    "storage/process_identity.py": ("/proc", {"read_bytes", "read_text"}),
    "storage/locks.py": ("a job's lock is beside what it writes", {"os.open"}),
    "storage/job_directory.py": (
        "a job's lock is beside what it writes; /proc",
        {"os.open", "read_bytes", "read_text"},
    ),
    "storage/job_directory_steps.py": (
        "the marker of a job's directory is beside what the job writes",
        {"read_bytes", "write_bytes"},
    ),
    "storage/journal.py": ("logs and metrics are written by the runner", {"os.open"}),
    "storage/journal_sums.py": ("logs and metrics are written by the runner", {"os.open"}),
    "storage/journal_writer.py": ("logs and metrics are written by the runner", {"os.open"}),
    "engines/local/launcher.py": (
        "a run's directory is the runner's; of the metrics file only the time is read",
        {"exists", "lstat", "mkdir", "open", "resolve"},
    ),
    "service/listening.py": ("the operator's certificates", {"read_bytes"}),
    "logs/log.py": (
        "a log is written by the runner",
        {"exists", "mkdir", "read_bytes", "read_text", "write_text"},
    ),
    "logs/run_starts.py": (
        "beside a log, which is written by the runner",
        {"os.open", "touch", "write_bytes"},
    ),
    "resources/memory_reserve.py": ("/proc and /sys", {"read_text"}),
    "metrics/snapshots.py": ("metrics are written by the runner", {"mkdir"}),
    "metrics/blocks.py": ("metrics are written by the runner", {"os.unlink", "unlink"}),
    "metrics/metrics_file.py": ("without following a link, in the runner's directory", {"os.open"}),
    "engines/local/notifications.py": ("the coordinator's socket", {"os.open", "unlink"}),
    "engines/ray/idle_workers.py": ("/proc, of Ray's own workers", {"os.readlink"}),
    "engines/agent": (
        "a node's own directories of runs, around those that a job may write",
        {
            *("chmod", "glob", "is_dir", "mkdir", "os.replace", "read_bytes", "rmdir", "touch"),
            "write_bytes",
        },
    ),
    "driver/__main__.py": ("a socket in a directory of the coordinator's own", {"rmdir", "unlink"}),
    "engines/remote": (
        "a run's directory is the coordinator's; where this code is, and what the driver says",
        {"exists", "mkdir", "os.listdir", "os.open", "os.stat", "resolve"},
    ),
    "storage/disk_reserve.py": ("a file of the data directory", {"os.open", "os.truncate"}),
    "engines/local/runner_protocol.py": (
        "a run's directory is the runner's",
        {"open", "os.replace"},
    ),
    "engines/local/run_notes.py": ("a run's directory is the runner's", {"open", "os.open"}),
    "engines/local/run_orders.py": (
        "a run's directory is the runner's",
        {"exists", "glob", "touch"},
    ),
    "engines/local/run_killing.py": (
        "/proc and /sys, and the runs, which no job can add to",
        {"exists", "is_dir", "iterdir", "read_bytes", "read_text"},
    ),
    "engines/local/runner": (
        "a run's directory is its own; a short name for TMPDIR that nobody can guess",
        {"exists", "os.symlink", "touch"},
    ),
    "packages/base.py": (
        "an environment before anything is installed into it; the packages of this Python",
        {"mkdir", "read_text", "touch", "write_text"},
    ),
    "packages/environments.py": (
        "directories around those that an installation writes; those are walked by app.files",
        {"iterdir", "mkdir", "os.listdir", "os.utime", "rename", "touch", "unlink"},
    ),
    "packages/entries.py": ("around what an installation writes", {"os.listdir"}),
    "packages/installing.py": (
        "beside what an installation writes, before it begins",
        {"write_text"},
    ),
    "retention/disk_bytes.py": ("the store, in the data directory", {"glob", "is_file"}),
    "retention/kept_files.py": ("it is Directory's rmdir", {"rmdir"}),
    "database/sqlite.py": ("the store, in the data directory", {"resolve"}),
    "jobs/changes/witness.py": ("a note beside the store, in the data directory", {"os.open"}),
    "ownership/moving.py": (
        "the store, in the data directory",
        {"exists", "is_file", "os.replace", "unlink"},
    ),
    "ownership/leader_lock.py": ("the data directory", {"glob", "os.open", "os.rename", "unlink"}),
    "ownership/data_directory.py": ("the data directory", {"mkdir", "os.access", "os.open"}),
    "server.py": ("the data directory", {"mkdir"}),
    "jobs/steps/store_steps.py": ("the data directory", {"iterdir", "os.open", "unlink"}),
    "jobs/steps/secrets.py": ("a run's directory is the runner's", {"exists", "is_dir", "iterdir"}),
    "trainers/asking.py": ("a worker's directory, before it begins", {"mkdir"}),
    "trainers/environment.py": (
        "the operator's Python",
        {"glob", "open", "os.access", "os.stat", "resolve"},
    ),
    "trainers/hub.py": ("the machine's cache of models, which jobs read", {"is_file", "open"}),
    "trainers/program.py": ("this project's own code", {"is_dir", "is_file", "iterdir", "open"}),
    "execution/models.py": ("the machine's cache of models, which jobs read", {"open"}),
    "workers": ("/proc, and where this code is", {"open", "resolve"}),
    "execution/workspace.py": (
        "a job's directory and its program are beside what it writes",
        {"exists", "is_file", "mkdir", "touch"},
    ),
    "execution/preparation.py": (
        "this project's own code; what is in the job's directory goes through Directory",
        {"exists", "glob", "open", "unlink"},
    ),
}
#: Modules that run as a job's own process, and have no more rights than it.
OF_JOBS = {"evaluations/evaluate_model.py", "evaluations/evaluator"}


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
        places = {module, *map(str, PurePosixPath(module).parents)}
        if places & OF_JOBS:
            continue
        place = max(places & ALLOWED.keys(), key=len, default="")
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
