"""
Run the course, the lab or the tests, installing what they need first.

    python run.py course [NN ...]      execute the notebooks, all or those numbered
    python run.py lab [options]        open them in JupyterLab
    python run.py test [options]       run every test but the GPU and download tiers
    python run.py install              only install, as the notebooks do on Colab
    python run.py site                 the executed lessons as a static site
    python run.py badges               write the repository's address into the notebooks

Packages go into ``.venv`` beside this file, or into the virtual environment, conda
environment or Colab machine that is active; ``--no-venv`` takes the Python this file
is started with. A second start with nothing changed installs nothing.

Only the standard library is imported up here, and nothing newer than Python 3.8 can
read is written, so that an old Python still gets as far as being refused politely.
"""

import argparse
import asyncio
import atexit
import contextlib
import hashlib
import importlib.util
import json
import multiprocessing
import os
import platform
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple


def refuse_old_python(version):
    """
    Say why a Python is too old for this course.

    Parameters
    ----------
    version : sequence of int
        Major and minor number first, as in ``sys.version_info``.

    Returns
    -------
    str
        One sentence, empty when the version will do.

    Examples
    --------
    >>> refuse_old_python((3, 11, 0))
    ''
    """
    if tuple(version[:2]) >= (3, 11):
        return ""
    return (
        "This course needs Python 3.11 or newer and this is Python "
        f"{version[0]}.{version[1]}: install a newer one from https://www.python.org "
        "and start run.py with that."
    )


# Here, because the annotations below are evaluated and an old Python stumbles on them.
if refuse_old_python(sys.version_info):
    sys.exit(refuse_old_python(sys.version_info))

ROOT = Path(__file__).resolve().parent
STAMP = "ftlib-installed.json"
EXTRAS = {
    "course": ["constrained", "lab", "serving"],
    "lab": ["constrained", "lab", "serving"],
    "test": ["constrained", "harness", "lab", "serving", "site", "test"],
    "site": ["constrained", "lab", "serving", "site"],
    "install": ["constrained", "serving"],
}
# What a Colab machine lacks of the packages that the lessons import, and that these
# import; tests/test_colab_setup.py works it out. Its own torchao is too old for peft.
COLAB_LACKS = [
    "bitsandbytes",
    "bm25s",
    "colorama",
    "datasketch",
    "diskcache",
    "evaluate",
    "ftfy",
    "genson",
    "outlines",
    "outlines-core",
    "phonenumbers",
    "portalocker",
    "presidio-analyzer",
    "requests-file",
    "rouge-score",
    "sacrebleu",
    "tldextract",
    # 0.18 is for Colab's torch 2.11; a later one may want a later torch.
    "torchao>=0.16,<0.19",
]
TEST_TIERS = "not gpu and not download and not slow"

ALWAYS = {
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    # evaluate runs copies of the metrics' files and keeps them there.
    "HF_MODULES_CACHE": str(ROOT / "runs" / "evaluate" / "modules"),
    "TOKENIZERS_PARALLELISM": "false",
    # A kernelspec of the same name in the user's home must not win.
    "JUPYTER_PREFER_ENV_PATH": "1",
    # Files are UTF-8 on Windows too.
    "PYTHONUTF8": "1",
}
OFFLINE = {
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
}
# The packages whose versions can change a result.
REPORTED = [
    "accelerate",
    "bitsandbytes",
    "datasets",
    "evaluate",
    "ipywidgets",
    "numpy",
    "peft",
    "tokenizers",
    "torch",
    "transformers",
]

# What most lessons import, at six seconds each: where a process can be forked it is
# loaded once for all of them.
PRELOADED = [
    "ipykernel.kernelapp",
    "ftlib.deployment",
    "ftlib.drift",
    "ftlib.forgetting",
    "ftlib.lesson",
    "ftlib.panels",
    "ftlib.project",
    "ftlib.retrieval",
    "transformers.models.qwen3.modeling_qwen3",
]
# NVIDIA's, AMD's, and either's in WSL.
DRIVERS = ["/dev/nvidiactl", "/dev/kfd", "/dev/dxg"]

LESSON_BYTES = 2_000_000_000  # what a lesson may hold
CELL_SECONDS = 3600
START_SECONDS = 120
SAMPLE_SECONDS = 0.5  # a look costs milliseconds of one of two cores
SHOWN_LINES = 15


class Place(NamedTuple):
    """
    Where the packages go.

    Parameters
    ----------
    kind : {"own", "active", "colab"}
        Our ``.venv``, the environment this Python belongs to, or a Colab machine.
    python : Path
        The interpreter that runs everything.
    home : Path
        The environment's folder, where the stamp is kept.
    """

    kind: str
    python: Path
    home: Path


# --- which Python ------------------------------------------------------------------


def choose_place(
    no_venv: bool, prefix: str, base_prefix: str, environ: dict, on_colab: bool
) -> Place:
    """
    Choose the Python that gets the packages.

    Parameters
    ----------
    no_venv : bool
        Take the running Python whatever it is.
    prefix, base_prefix : str
        As in ``sys``; they differ inside a virtual environment.
    environ : dict
        The environment variables.
    on_colab : bool
        Whether ``google.colab`` can be imported.

    Returns
    -------
    Place
        The running Python where it is an environment of its own, else ``.venv``.
    """
    running = Path(sys.executable)
    if on_colab or "COLAB_RELEASE_TAG" in environ:
        return Place("colab", running, Path(prefix))
    conda = environ.get("CONDA_PREFIX")
    in_conda = bool(conda) and Path(conda).resolve() == Path(prefix).resolve()
    if no_venv or in_conda or prefix != base_prefix:
        return Place("active", running, Path(prefix))
    home = ROOT / ".venv"
    folder, name = ("Scripts", "python.exe") if os.name == "nt" else ("bin", "python")
    return Place("own", home / folder / name, home)


def _is_colab() -> bool:
    """Tell whether ``google.colab`` is installed."""
    try:
        return importlib.util.find_spec("google.colab") is not None
    except ModuleNotFoundError:  # there is no package `google` at all
        return False


# --- installing --------------------------------------------------------------------


def digest_requirements(root: Path, version: str) -> str:
    """
    Condense all that an installation depends on.

    Parameters
    ----------
    root : Path
        The folder of ``pyproject.toml`` and ``constraints.txt``. It counts too: the
        package is installed as a link to it.
    version : str
        Of the Python that has the packages, such as "3.12".

    Returns
    -------
    str
        A SHA-256 that changes when any of them does.
    """
    parts = [
        f"{root} {version}".encode(),
        (root / "pyproject.toml").read_bytes(),
        (root / "constraints.txt").read_bytes(),
    ]
    # Each part's own hash first, so that a line moved from one file to the next shows.
    hashes = b"".join(hashlib.sha256(part).digest() for part in parts)
    return hashlib.sha256(hashes).hexdigest()


def is_installed(stamp: dict, digest: str, extras: list[str]) -> bool:
    """
    Tell whether an installation still serves.

    Parameters
    ----------
    stamp : dict
        What the last installation left; empty when there was none.
    digest : str
        From `digest_requirements`, now.
    extras : list of str
        The extras that are needed now.

    Returns
    -------
    bool
        True when nothing has changed and every extra is there.
    """
    return stamp.get("digest") == digest and set(extras) <= set(stamp.get("extras", []))


def _list_pip_commands(kind: str, extras: list[str]) -> list[list[str]]:
    """Give the arguments of each call of pip."""
    if kind == "colab":
        # Colab's own numpy, torch and ipywidgets must stay, and nothing that is loaded
        # already may change, or its kernel would have to be restarted.
        own = ["-c", "constraints.txt", "-e", ".", *COLAB_LACKS]
        return [["install", "--no-deps", *own]]
    named = f".[{','.join(sorted(extras))}]" if extras else "."
    return [["install", "-c", "constraints.txt", "-e", named]]


def _ask_version(python: Path) -> str:
    """Give a Python's version such as "3.12", empty when it is missing or broken."""
    if python == Path(sys.executable):
        return f"{sys.version_info[0]}.{sys.version_info[1]}"
    program = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        done = subprocess.run(
            [str(python), "-c", program], check=False, capture_output=True, text=True
        )
    except OSError:
        return ""
    return done.stdout.strip()


def _make_venv(place: Place, stamp: dict) -> None:
    """Make ``.venv`` unless a working one is there, whatever Python it was made of."""
    found = _ask_version(place.python)
    # The system's Python may have been replaced under the packages of the older one.
    if found and stamp.get("python", found) == found:
        if refuse_old_python([int(number) for number in found.split(".")]):
            sys.exit(f".venv holds Python {found}: delete that folder and start again.")
        return
    print("Making .venv ...", flush=True)
    command = [sys.executable, "-m", "venv", "--clear", str(place.home)]
    if subprocess.run(command, check=False).returncode:
        sys.exit(
            "The virtual environment could not be made (see above): on Debian or "
            "Ubuntu run `apt install python3-venv`, elsewhere install Python anew."
        )


def _has_pip(place: Place) -> bool:
    """Tell whether a place has pip, bringing Python's own copy when it has none."""
    for arguments in (["pip", "--version"], ["ensurepip"], ["pip", "--version"]):
        command = [str(place.python), "-m", *arguments]
        done = subprocess.run(command, check=False, capture_output=True)
        if arguments[0] == "pip" and done.returncode == 0:
            return True
    return False


def install(place: Place, extras: list[str]) -> None:
    """
    Install what is needed, when it is not there yet.

    Parameters
    ----------
    place : Place
        Where to.
    extras : list of str
        The extras of ``pyproject.toml`` that the command needs.
    """
    stamp = _read_json(place.home / STAMP)
    if is_installed(
        stamp, digest_requirements(ROOT, _ask_version(place.python)), extras
    ):
        return
    if place.kind == "own":
        _make_venv(place, stamp)
    if not _has_pip(place):
        sys.exit(
            f"{place.python} has no pip: on Debian or Ubuntu run `apt install "
            "python3-venv`, or delete .venv, and run the same command again."
        )
    # What another command needed stays, so that two commands in turn install once.
    extras = sorted(set(extras) | set(stamp.get("extras", [])))
    print("Installing the packages, once; this takes some minutes ...", flush=True)
    for arguments in _list_pip_commands(place.kind, extras):
        command = [str(place.python), "-m", "pip", *arguments]
        if subprocess.run(command, check=False, cwd=ROOT).returncode:
            sys.exit(
                "The packages could not be installed (pip says why above): connect "
                "this machine to the network once and run the same command again; "
                "after that no network is needed."
            )
    version = _ask_version(place.python)
    digest = digest_requirements(ROOT, version)
    text = json.dumps({"digest": digest, "python": version, "extras": extras})
    # A folder that refuses the stamp costs a check by pip at each start, no more.
    with contextlib.suppress(OSError):
        _write_atomically(place.home / STAMP, text)


def _write_atomically(path: Path, text: str) -> None:
    """Write a file whole or not at all, making its folder when it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8", newline="\n")
    part.replace(path)


# --- starting ----------------------------------------------------------------------


def make_environment(environ: dict, profile: str) -> dict:
    """
    Give the environment variables for what is started.

    Parameters
    ----------
    environ : dict
        The user's own; what is set there stands.
    profile : str
        "laptop" or none stays offline; "colab" and "gpu" fetch their model.

    Returns
    -------
    dict
        All variables.
    """
    offline = {} if profile in ("colab", "gpu") else OFFLINE
    chosen = {"FTLIB_PROFILE": profile} if profile else {}
    return {**ALWAYS, **offline, **environ, **chosen}


def list_command(python: Path, command: str, profile: str, rest: list[str]) -> list:
    """
    Give the command line that does the work.

    Parameters
    ----------
    python : Path
        The interpreter that has the packages.
    command : {"course", "lab", "site", "test"}
        What to do.
    profile : str
        The profile asked for, or an empty one.
    rest : list of str
        What else stood on the command line.

    Returns
    -------
    list of str
        Ready to be started.
    """
    start = [str(python)]
    if command == "course":
        return [*start, str(ROOT / "run.py"), "_course", profile, *rest]
    if command == "lab":
        return [
            *start,
            *("-m", "jupyterlab"),
            "--ServerApp.ip=127.0.0.1",
            f"--ServerApp.root_dir={ROOT}",
            "--LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb",
            # Three things that would ask the network.
            "--LabApp.news_url=None",
            "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
            "--LabApp.extension_manager=readonly",
            *rest,
        ]
    if command == "site":
        return [*start, str(ROOT / "docs" / "build_site.py"), *rest]
    return [*start, "-m", "pytest", "-m", TEST_TIERS, *rest]


def _hand_over(command: list, environ: dict) -> int:
    """Become the command, or where the system has no such thing wait for its status."""
    sys.stdout.flush()
    os.chdir(ROOT)
    if os.name == "posix":
        # Ctrl-C, a kill and the exit status then reach whom they are meant for.
        os.execve(command[0], command, environ)
    with subprocess.Popen(command, env=environ) as child:
        while True:
            try:
                return child.wait()
            except KeyboardInterrupt:
                continue  # the child had the same Ctrl-C and ends by itself


def main(argv: list[str]) -> int:
    """
    Do what the command line says.

    Parameters
    ----------
    argv : list of str
        The arguments without the program's name.

    Returns
    -------
    int
        The exit status.
    """
    if argv[:1] == ["_course"]:  # this very file, started in the chosen Python
        os.chdir(ROOT)  # the first place where what is preloaded is looked for
        try:
            return run_course(ROOT, argv[1], argv[2:])
        except KeyboardInterrupt:
            sys.exit("\nStopped; what had run is in runs/course/.")
    parser = argparse.ArgumentParser(
        prog="run.py",
        usage="python run.py course [NN ...] | lab | test | install | site | badges "
        "[--profile P] [--no-venv]",
        description="Other arguments go to JupyterLab (lab), pytest (test) or "
        "docs/build_site.py (site).",
        allow_abbrev=False,
    )
    parser.add_argument("command", choices=[*EXTRAS, "badges"])
    parser.add_argument(
        "--profile",
        choices=["laptop", "colab", "gpu"],
        default="",
        help="the model and machine the notebooks are run for (default: laptop)",
    )
    parser.add_argument(
        "--no-venv", action="store_true", help="use the Python this is started with"
    )
    args, rest = parser.parse_known_args(argv)
    profile = args.profile
    if args.command == "badges":  # which needs no package
        badges = [sys.executable, str(ROOT / "docs" / "badges.py")]
        return subprocess.run(badges, check=False).returncode
    if args.command == "course":
        profile = profile or "laptop"
        choose_notebooks(_list_notebooks(ROOT), rest)  # refuse before installing
    place = choose_place(
        args.no_venv, sys.prefix, sys.base_prefix, dict(os.environ), _is_colab()
    )
    if place.kind == "colab" and args.command in ("lab", "site"):
        sys.exit(
            "Colab is a notebook server: open notebooks/00_start_here.ipynb in it. "
            "What else there is to do is for a machine of your own."
        )
    install(place, EXTRAS[args.command] if place.kind != "colab" else [])
    if args.command == "install":
        return 0
    command = list_command(place.python, args.command, profile, rest)
    return _hand_over(command, make_environment(dict(os.environ), profile))


# --- the course: from here on the packages are installed ---------------------------


def _list_notebooks(root: Path) -> list[Path]:
    """List every ``notebooks/NN_*.ipynb`` in order."""
    return sorted((root / "notebooks").glob("[0-9][0-9]_*.ipynb"))


def choose_notebooks(notebooks: list[Path], wanted: list[str]) -> list[Path]:
    """
    Pick the lessons that were asked for.

    Parameters
    ----------
    notebooks : list of Path
        All lessons in order.
    wanted : list of str
        Numbers such as "01" or "1"; none means all.

    Returns
    -------
    list of Path
        The chosen ones, in the course's order. An unknown number ends the program
        with one sentence.
    """
    if not notebooks:
        sys.exit("There is no notebook in notebooks/: clone the repository again.")
    numbers = {number.zfill(2) for number in wanted}
    known = [path.name[:2] for path in notebooks]
    for number in sorted(numbers - set(known)):
        sys.exit(f"There is no lesson {number}: choose from {', '.join(known)}.")
    return [path for path in notebooks if not numbers or path.name[:2] in numbers]


def count_at_once(cores: int, free_bytes: int, profile: str) -> int:
    """
    Say how many lessons to run at once.

    Parameters
    ----------
    cores : int
        Those of this machine.
    free_bytes : int
        Memory that can be had.
    profile : str
        The model that is run.

    Returns
    -------
    int
        As many as there are cores and memory for: Wren is so small that two lessons on
        a core each take two thirds of the time that they take in turn on two cores. One
        where a GPU's driver is, or for a larger model.

    Examples
    --------
    >>> count_at_once(2, 8_000_000_000, "gpu")
    1
    """
    if profile != "laptop" or _has_gpu_driver():
        return 1
    return max(1, min(cores, free_bytes // LESSON_BYTES))


def find_ready(waiting: list[Path], unfinished: list[Path]) -> list[Path]:
    """
    Find the lessons that can begin: what they read of others is there.

    Parameters
    ----------
    waiting : list of Path
        Those that have not begun, in order.
    unfinished : list of Path
        Those, and the ones that are running.

    Returns
    -------
    list of Path
        Of `waiting`, those whose first cell names no folder of an unfinished lesson
        before them. The first of them is among these when nothing is running.
    """
    return [
        path
        for path in waiting
        if not any(
            other.name < path.name and f"`runs/{other.stem}`" in _read_head(path)
            for other in unfinished
        )
    ]


def _read_head(path: Path) -> str:
    """Read a notebook's first cell, empty where it cannot be read."""
    cells = _read_json(path).get("cells") or [{}]
    return "".join(cells[0].get("source", ""))


def run_course(root: Path, profile: str, wanted: list[str]) -> int:
    """
    Execute lessons, as many at once as the machine has room for, and report on them.

    Parameters
    ----------
    root : Path
        The repository; results go to its ``runs/course/``.
    profile : str
        For the record: the kernels read it from ``FTLIB_PROFILE``.
    wanted : list of str
        Numbers of lessons; none means all.

    Returns
    -------
    int
        0 when every lesson ran to its end, 1 otherwise.
    """
    import psutil

    notebooks = choose_notebooks(_list_notebooks(root), wanted)
    # As a kernel sets it, but before matplotlib is loaded.
    os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    cores, free_bytes = os.cpu_count() or 1, psutil.virtual_memory().available
    at_once = min(count_at_once(cores, free_bytes, profile), len(notebooks))
    if at_once > 1:  # read by torch and by what else computes, when it is loaded
        os.environ.setdefault("OMP_NUM_THREADS", str(cores // at_once))
    results, pages = asyncio.run(
        _run_notebooks(notebooks, root / "runs", profile, at_once)
    )
    for result in results:
        if result["status"] == "failed":
            print("\n" + format_failure(result))
    print("\n" + format_summary(results))
    for page in pages:  # last, so that a page that fails hides no result
        page.result()
    print("\nExecuted notebooks, HTML and summary.json are in runs/course/.")
    return 0 if all(result["status"] == "passed" for result in results) else 1


async def _run_notebooks(
    notebooks: list[Path], runs: Path, profile: str, at_once: int
) -> tuple[list[dict], list[Future]]:
    """Run lessons, each after those it reads from; give their results, and pages."""
    began, waiting, running = time.perf_counter(), list(notebooks), {}
    results, pages, printer = [], [], ThreadPoolExecutor(1)
    while waiting or running:
        ready = find_ready(waiting, [*waiting, *running.values()])
        for path in ready[: at_once - len(running)]:
            waiting.remove(path)
            running[asyncio.create_task(run_notebook(path, runs))] = path
            print(f"{path.stem} ...", flush=True)
        ended, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        for task in ended:
            path, result = running.pop(task), task.result()
            pages.append(printer.submit(_save_page, runs / "course" / path.stem))
            results = sorted([*results, result], key=lambda one: one["notebook"])
            print(
                f"[{len(results)}/{len(notebooks)}] {path.stem}: "
                f"{describe_status(result)}, {result['seconds']:.1f} s",
                flush=True,
            )
            # After each lesson, so that an interrupted course keeps what it has.
            summary = {
                "profile": profile,
                "at_once": at_once,
                "seconds": round(time.perf_counter() - began, 1),
                "hardware": _describe_hardware(),
                "notebooks": results,
            }
            text = json.dumps(summary, indent=2, ensure_ascii=False)
            _write_atomically(runs / "course" / "summary.json", text + "\n")
    return results, pages


async def run_notebook(path: Path, runs: Path) -> dict:
    """
    Execute one lesson in a kernel of this very Python, and keep what it shows.

    Parameters
    ----------
    path : Path
        The notebook, which is left as it is.
    runs : Path
        Gets ``course/NAME.ipynb``; the lesson's own record is read from
        ``lessons/NN.json`` there.

    Returns
    -------
    dict
        ``notebook``, ``status`` ("passed", "failed" or "skipped"), ``seconds``,
        ``peak_rss_mb``, ``checks``, ``headline``, ``reads``, ``writes``, ``needs``
        and ``error``.
    """
    import nbformat
    from nbclient import NotebookClient

    record_file = runs / "lessons" / f"{path.name[:2]}.json"
    executed = runs / "course" / path.name
    for old in (record_file, executed):
        old.unlink(missing_ok=True)
    reached = {"cell": 0}
    memory = MemoryWatch()
    notebook, error = None, None
    start = time.perf_counter()
    try:
        notebook = nbformat.read(path, as_version=4)
        client = NotebookClient(
            notebook,
            kernel_manager_class=_make_kernel_manager_class(),
            resources={"metadata": {"path": str(path.parent)}},
            timeout=CELL_SECONDS,
            startup_timeout=START_SECONDS,
            on_notebook_start=lambda **_: _follow_kernel(client, memory),
            on_cell_start=lambda cell_index, **_: reached.update(cell=cell_index + 1),
        )
        await client.async_execute()
    except Exception as problem:  # whatever it is, the other lessons are still tried
        error = _describe_error(problem, notebook, reached["cell"])
    seconds = time.perf_counter() - start
    peak = memory.stop()
    if notebook is not None:
        _write_atomically(executed, nbformat.writes(notebook) + "\n")

    needs = _find_needed(error)
    status = "skipped" if needs else "failed" if error else "passed"
    record = _read_json(record_file)
    return {
        "notebook": path.stem,
        "status": status,
        "seconds": round(seconds, 1),
        "peak_rss_mb": round(peak / 1e6) if peak else None,
        "checks": record.get("checks"),
        "headline": record.get("headline"),
        "reads": record.get("reads"),
        "writes": record.get("writes"),
        "needs": needs,
        "error": error,
    }


def _make_kernel_manager_class() -> type:
    """Make a kernel manager that starts this Python whatever the user's home holds."""
    from ipykernel.kernelspec import get_kernel_dict
    from jupyter_client import AsyncKernelManager
    from jupyter_client.kernelspec import KernelSpec

    class OwnPython(AsyncKernelManager):
        kernel_spec = KernelSpec(**get_kernel_dict())
        # Without it a kernel warns that other users of the machine could listen.
        transport_encryption = "auto"

        async def _async_launch_kernel(self, kernel_cmd, **kw):
            if can_fork():
                kernel = ForkedKernel(kernel_cmd, kw["env"], kw["cwd"])
                self.provisioner.process = kernel
                self.provisioner.pid = self.provisioner.pgid = kernel.pid
                self._reconcile_connection_info(self.provisioner.connection_info)
            else:
                await super()._async_launch_kernel(kernel_cmd, **kw)

    return OwnPython


def can_fork() -> bool:
    """
    Say whether libraries can be loaded once and forked.

    Returns
    -------
    bool
        On Linux, where no GPU's driver is: asked once, as imports do, it is of no use
        in a process forked after that.
    """
    return sys.platform == "linux" and not _has_gpu_driver()


def _has_gpu_driver() -> bool:
    """Say whether Linux has a GPU to compute on."""
    return any(map(os.path.exists, DRIVERS))


class ForkedKernel:
    """
    A kernel forked from a process that has loaded the libraries, to be used as a Popen.

    The process forks and does nothing else, so each kernel begins as a fresh one would
    after its imports.

    Parameters
    ----------
    command : list of str
        What starts a kernel: its options count, from ``-f`` on.
    environ : dict
        The kernel's environment variables.
    folder : str
        The folder it works in.
    """

    stdin = stdout = stderr = None

    def __init__(self, command: list[str], environ: dict, folder: str) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        options = command[command.index("-f") :]
        self._process = context.Process(
            target=_be_kernel, args=(options, environ, folder)
        )
        self._process.start()
        self.pid = self._process.pid

    def poll(self) -> int | None:
        """Give the exit status, None while the kernel lives."""
        return self._process.exitcode

    def wait(self) -> int | None:
        """Wait for the kernel's end and give its exit status."""
        self._process.join()
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        """Send the kernel a signal."""
        os.kill(self.pid, number)


def _be_kernel(options: list[str], environ: dict, folder: str) -> None:
    """Run a kernel in this process until it is shut down, or the course is killed."""
    os.setsid()  # with what it starts it is one group, to be ended together
    threading.Thread(target=_end_with_course, daemon=True).start()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environ)
    # Stopped with Ctrl-C, it would complain of the answer that nobody waits for.
    options += ["--quiet"]
    sys.argv = ["ipykernel_launcher", *options]
    from ipykernel import kernelapp

    try:
        kernelapp.launch_new_instance(options)
    finally:
        atexit._run_exitfuncs()  # which a forked process leaves out


def _end_with_course() -> None:
    """End this process and what it has started when the course's process has ended."""
    # ipykernel watches the process that forked it, which outlives the course for it.
    multiprocessing.parent_process().join()
    os.killpg(0, signal.SIGKILL)


def _follow_kernel(client, memory) -> None:
    """Watch a kernel that has just started, and let Ctrl-C end the whole course."""
    memory.follow(client.km.provisioner.pid)
    # nbclient's handlers would end this kernel only, and the next lesson would begin.
    with contextlib.suppress(NotImplementedError):  # Windows has none
        loop = asyncio.get_running_loop()
        loop.remove_signal_handler(signal.SIGINT)
        loop.remove_signal_handler(signal.SIGTERM)


class MemoryWatch:
    """Follow the memory of a process and its children, from a thread."""

    def __init__(self) -> None:
        self.peak = 0
        self._ended = threading.Event()
        self._thread = None

    def follow(self, pid: int) -> None:
        """
        Begin to watch.

        Parameters
        ----------
        pid : int
            The process.
        """
        self._thread = threading.Thread(target=self._watch, args=(pid,), daemon=True)
        self._thread.start()

    def stop(self) -> int:
        """
        End watching.

        Returns
        -------
        int
            The most bytes that were resident at once, 0 when nothing was watched.
        """
        self._ended.set()
        if self._thread:
            self._thread.join()
        return self.peak

    def _watch(self, pid: int) -> None:
        import psutil

        status = Path(f"/proc/{pid}/status")
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            ended = False
            while not ended:  # a look at the least, however short the lesson
                total = 0
                for each in [process, *process.children(recursive=True)]:
                    with contextlib.suppress(psutil.Error):
                        total += each.memory_info().rss
                self.peak = max(self.peak, total)
                # Linux remembers the peak that fell between two samples.
                with contextlib.suppress(OSError):
                    self.peak = max(self.peak, _read_peak(status.read_text()))
                ended = self._ended.wait(SAMPLE_SECONDS)


def _read_peak(status: str) -> int:
    """Read the peak, in bytes, from the text of Linux's ``/proc/PID/status``."""
    found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    return int(found.group(1)) * 1024 if found else 0


def _save_page(stem: Path) -> None:
    """Write an executed notebook as a page, where it could be read."""
    from nbconvert import HTMLExporter

    if stem.with_suffix(".ipynb").exists():
        page, _ = HTMLExporter().from_filename(str(stem.with_suffix(".ipynb")))
        _write_atomically(stem.with_suffix(".html"), page)


def _describe_error(problem: Exception, notebook, cell: int) -> dict:
    """Say in plain text what went wrong where; cell 0 means before the first."""
    name = getattr(problem, "ename", "") or type(problem).__name__
    message = getattr(problem, "evalue", "") or str(problem)
    if name == "DeadKernelError":
        message = (
            "The kernel died, mostly because memory ran out: close other programs."
        )
    if name == "CellTimeoutError":
        message = f"The cell ran for more than {CELL_SECONDS} seconds and was ended."
    running = notebook.cells[cell - 1] if notebook and cell else {}
    trace = []
    for output in running.get("outputs", []):
        trace += output.get("traceback", [])
    return {
        "cell": cell,
        "source": running.get("source", ""),
        "name": name,
        "message": _strip_ansi(message),
        "traceback": _strip_ansi("\n".join(trace)),
    }


def _strip_ansi(text: str) -> str:
    """Remove terminal colours."""
    return re.sub(r"\x1b\[[0-9;?]*[ -/]*[@-~]", "", text)


def _find_needed(error: dict | None) -> str:
    """Give the number of the lesson that makes a missing input, empty without one."""
    if not error or error["name"] != "MissingInput":
        return ""
    # "... is missing: run notebook 01 first"; the path before it may hold numbers too.
    named = re.search(r"notebook (\d\d)\b", error["message"])
    return named.group(1) if named else ""


def _read_json(path: Path) -> dict:
    """Read a JSON object; one that is missing or broken is empty."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _describe_hardware() -> dict:
    """Say what the lessons ran on, with the versions that can change a result."""
    from importlib import metadata

    import psutil

    versions = {}
    for name in REPORTED:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return {
        "cpu_count": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "machine": platform.machine(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "packages": versions,
    }


def describe_status(result: dict) -> str:
    """
    Say in a few words how a lesson went.

    Parameters
    ----------
    result : dict
        From `run_notebook`.

    Returns
    -------
    str
        Such as "passed", "failed in cell 7" or "skipped (needs 01)".
    """
    if result["status"] == "skipped":
        return f"skipped (needs {result['needs']})"
    if result["status"] == "failed":
        cell = result["error"]["cell"]
        return f"failed in cell {cell}" if cell else "failed before its first cell"
    return result["status"]


def format_failure(result: dict) -> str:
    """
    Show the cell that failed, and how.

    Parameters
    ----------
    result : dict
        From `run_notebook`, with an error.

    Returns
    -------
    str
        The end of the cell's source and of its traceback, both indented.
    """
    error = result["error"]
    source = error["source"].splitlines()[-SHOWN_LINES:]
    trace = error["traceback"].splitlines()[-SHOWN_LINES:]
    last = f"{error['name']}: {error['message']}"
    # The traceback ends with the error itself.
    end = trace or last.splitlines()
    lines = [f"{result['notebook']} {describe_status(result)}:", ""]
    lines += [f"    {line}".rstrip() for line in source]
    lines += [""] if source else []
    lines += [f"    {line}".rstrip() for line in end]
    return "\n".join(lines)


def format_summary(results: list[dict]) -> str:
    """
    Lay the results out as a table.

    Parameters
    ----------
    results : list of dict
        From `run_notebook`.

    Returns
    -------
    str
        A line of headings and a line a lesson, columns aligned.
    """
    rows = [("notebook", "seconds", "peak RSS", "checks passed", "headline")]
    for result in results:
        checks = list((result["checks"] or {}).values())
        passed = result["status"] == "passed"
        rows.append(
            (
                result["notebook"],
                f"{result['seconds']:.1f}",
                f"{result['peak_rss_mb']} MB" if result["peak_rss_mb"] else "-",
                f"{checks.count('passed')}/{len(checks)}" if checks else "-",
                (result["headline"] or "-") if passed else describe_status(result),
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for name, *numbers, headline in rows:
        cells = [name.ljust(widths[0])]
        cells += [text.rjust(w) for text, w in zip(numbers, widths[1:4], strict=True)]
        lines.append("  ".join([*cells, headline]))
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
