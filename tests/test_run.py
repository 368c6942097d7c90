"""Run alone: ``python -m pytest tests/test_run.py -m ""``."""

import ast
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import run
from ftlib.lesson import LESSONS

SOURCE = Path(run.__file__)


# --- which Python ------------------------------------------------------------------


def test_an_older_python_is_refused_in_one_sentence_with_its_version():
    assert run.refuse_old_python((3, 10, 14)) == (
        "This course needs Python 3.11 or newer and this is Python 3.10: install a "
        "newer one from https://www.python.org and start run.py with that."
    )


@pytest.mark.parametrize("version", [(3, 11, 0), (3, 14, 2), (4, 0, 0)])
def test_a_python_that_will_do_is_not_refused(version):
    assert run.refuse_old_python(version) == ""


def test_python_3_8_can_still_read_the_file_that_refuses_it():
    ast.parse(SOURCE.read_text("utf-8"), feature_version=(3, 8))


def test_nothing_but_the_standard_library_is_imported_at_the_top():
    tree = ast.parse(SOURCE.read_text("utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Import):
            names = {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = {node.module.split(".")[0]}
        else:
            continue
        assert names <= sys.stdlib_module_names


def test_a_plain_python_gets_a_venv_beside_run_py():
    place = run.choose_place(False, "/usr", "/usr", {}, on_colab=False)
    assert place.kind == "own"
    assert place.home == SOURCE.parent / ".venv"
    assert place.home in place.python.parents


def test_no_venv_takes_the_running_python():
    place = run.choose_place(True, "/usr", "/usr", {}, on_colab=False)
    assert place == ("active", Path(sys.executable), Path("/usr"))


def test_an_active_virtual_environment_is_used():
    place = run.choose_place(False, "/home/a/venv", "/usr", {}, on_colab=False)
    assert place == ("active", Path(sys.executable), Path("/home/a/venv"))


def test_an_active_conda_environment_is_used():
    conda = {"CONDA_PREFIX": "/opt/conda"}
    place = run.choose_place(False, "/opt/conda", "/opt/conda", conda, on_colab=False)
    assert place == ("active", Path(sys.executable), Path("/opt/conda"))


def test_another_python_started_beside_an_active_conda_gets_a_venv():
    conda = {"CONDA_PREFIX": "/opt/conda"}
    place = run.choose_place(False, "/usr", "/usr", conda, on_colab=False)
    assert place.kind == "own"


@pytest.mark.parametrize(
    ("environ", "on_colab"), [({}, True), ({"COLAB_RELEASE_TAG": "release"}, False)]
)
def test_colabs_python_is_used(environ, on_colab):
    place = run.choose_place(False, "/usr", "/usr", environ, on_colab)
    assert place == ("colab", Path(sys.executable), Path("/usr"))


# --- installing --------------------------------------------------------------------


@pytest.fixture
def project(tmp_path):
    (tmp_path / "pyproject.toml").write_text("a = 1\n", encoding="utf-8")
    (tmp_path / "constraints.txt").write_text("torch==2.13.0\n", encoding="utf-8")
    return tmp_path


def test_the_digest_stays_while_nothing_changes(project):
    first = run.digest_requirements(project, "3.12")
    assert run.digest_requirements(project, "3.12") == first


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt"])
def test_the_digest_changes_when_a_pin_changes(project, name):
    before = run.digest_requirements(project, "3.12")
    (project / name).write_text("torch==2.13.1\n", encoding="utf-8")
    assert run.digest_requirements(project, "3.12") != before


def test_the_digest_changes_with_the_python(project):
    before = run.digest_requirements(project, "3.12")
    assert run.digest_requirements(project, "3.13") != before


def test_an_installation_serves_while_its_digest_and_extras_do():
    stamp = {"digest": "abc", "extras": ["lab"]}
    assert run.is_installed(stamp, "abc", ["lab"])
    assert not run.is_installed(stamp, "abd", ["lab"])
    assert not run.is_installed(stamp, "abc", ["lab", "test"])
    assert not run.is_installed({}, "abc", [])


def test_pip_gets_the_exact_versions_and_the_extras():
    assert run._list_pip_commands("own", ["test", "lab"]) == [
        ["install", "-c", "constraints.txt", "-e", ".[lab,test]"]
    ]


def test_without_extras_pip_gets_the_folder_alone():
    # Older versions of pip refuse ".[]".
    assert run._list_pip_commands("own", []) == [
        ["install", "-c", "constraints.txt", "-e", "."]
    ]


def test_colab_gets_what_it_lacks_in_one_call_and_nothing_that_these_ask_for():
    (command,) = run._list_pip_commands("colab", ["constrained"])
    assert command[:6] == ["install", "--no-deps", "-c", "constraints.txt", "-e", "."]
    assert command[6:] == run.COLAB_LACKS


def record_calls(monkeypatch, statuses):
    """Stand in for subprocess.run: remember the arguments, give these statuses."""
    calls = []

    def answer(command, **_):
        calls.append(command[1:])
        return subprocess.CompletedProcess(command, statuses.get(command[2], 0))

    monkeypatch.setattr(run.subprocess, "run", answer)
    return calls


def test_a_second_start_installs_nothing(project, monkeypatch):
    monkeypatch.setattr(run, "ROOT", project)
    place = run.Place("active", Path(sys.executable), project / "env")
    calls = record_calls(monkeypatch, {})
    run.install(place, ["lab"])
    assert calls[-1][1:3] == ["pip", "install"]
    calls.clear()
    run.install(place, ["lab"])
    assert calls == []
    run.install(place, ["lab", "test"])
    assert calls[-1][-1] == ".[lab,test]"
    calls.clear()
    run.install(place, ["lab"])
    assert calls == []


def test_a_failing_pip_ends_in_one_sentence_and_leaves_no_stamp(project, monkeypatch):
    monkeypatch.setattr(run, "ROOT", project)
    monkeypatch.setattr(run, "_has_pip", lambda _: True)
    record_calls(monkeypatch, {"pip": 1})
    place = run.Place("active", Path(sys.executable), project / "env")
    with pytest.raises(SystemExit, match="connect this machine to the network once"):
        run.install(place, ["lab"])
    assert not (project / "env").exists()


@pytest.mark.parametrize(
    ("found", "stamped", "made_anew"),
    [
        ("3.12", {"python": "3.12"}, False),
        ("3.12", {}, False),  # someone else made it
        ("3.13", {"python": "3.12"}, True),  # the system's Python was replaced
        ("", {"python": "3.12"}, True),  # or removed
    ],
)
def test_our_venv_is_made_anew_only_when_its_python_no_longer_serves(
    project, monkeypatch, found, stamped, made_anew
):
    calls = record_calls(monkeypatch, {})
    monkeypatch.setattr(run, "_ask_version", lambda _: found)
    run._make_venv(run.Place("own", Path("python"), project / ".venv"), stamped)
    assert bool(calls) is made_anew


def test_a_venv_of_an_old_python_is_refused_and_not_deleted(project, monkeypatch):
    monkeypatch.setattr(run, "_ask_version", lambda _: "3.9")
    with pytest.raises(SystemExit, match=r"\.venv holds Python 3\.9: delete"):
        run._make_venv(run.Place("own", Path("python"), project / ".venv"), {})


def test_a_python_tells_its_version_and_a_missing_one_none(tmp_path):
    running = f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert run._ask_version(Path(sys.executable)) == running
    assert run._ask_version(tmp_path / "python") == ""


# --- starting ----------------------------------------------------------------------


def test_children_stay_offline_and_silent_on_the_laptop():
    environ = run.make_environment({"HOME": "/home/a"}, "laptop")
    assert environ["HOME"] == "/home/a"
    assert environ["FTLIB_PROFILE"] == "laptop"
    assert environ["HF_HUB_OFFLINE"] == "1"
    assert environ["HF_DATASETS_OFFLINE"] == "1"
    assert environ["TRANSFORMERS_OFFLINE"] == "1"
    assert environ["HF_HUB_DISABLE_TELEMETRY"] == "1"
    assert environ["DO_NOT_TRACK"] == "1"
    assert environ["TOKENIZERS_PARALLELISM"] == "false"


def test_a_profile_that_fetches_its_model_is_silent_but_not_offline():
    environ = run.make_environment({}, "gpu")
    assert environ["FTLIB_PROFILE"] == "gpu"
    assert environ["HF_HUB_DISABLE_TELEMETRY"] == "1"
    assert "HF_HUB_OFFLINE" not in environ


@pytest.mark.parametrize("profile", ["", "laptop", "gpu"])
def test_the_copies_that_evaluate_runs_of_metrics_stay_in_runs(profile):
    folder = Path(run.make_environment({}, profile)["HF_MODULES_CACHE"])
    assert folder.is_absolute()
    assert folder.relative_to(run.ROOT).parts[0] == "runs"


def test_what_the_user_has_set_stands():
    environ = run.make_environment(
        {"HF_HUB_OFFLINE": "0", "HF_MODULES_CACHE": "/home/a/modules"}, ""
    )
    assert environ["HF_HUB_OFFLINE"] == "0"
    assert environ["HF_MODULES_CACHE"] == "/home/a/modules"
    assert "FTLIB_PROFILE" not in environ


def test_the_lab_listens_on_this_machine_only_and_opens_the_first_lesson():
    command = run.list_command(Path("py"), "lab", "", ["--port=9999"])
    assert command[:3] == ["py", "-m", "jupyterlab"]
    assert "--ServerApp.ip=127.0.0.1" in command
    assert "--LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb" in command
    assert command[-1] == "--port=9999"


def test_the_tests_are_all_tiers_but_gpu_download_and_slow():
    command = run.list_command(Path("py"), "test", "", ["-k", "mask", "tests/a.py"])
    assert command == [
        "py",
        "-m",
        "pytest",
        "-m",
        "not gpu and not download and not slow",
        "-k",
        "mask",
        "tests/a.py",
    ]


def test_the_site_is_built_by_its_own_program():
    command = run.list_command(Path("py"), "site", "", ["--linkcheck"])
    program = str(run.ROOT / "docs" / "build_site.py")
    assert command == ["py", program, "--linkcheck"]


def test_the_command_line_reaches_the_command_in_its_order(monkeypatch):
    handed = []
    monkeypatch.setattr(run, "install", lambda place, extras: handed.append(extras))
    monkeypatch.setattr(run, "_hand_over", lambda command, _: handed.append(command))
    run.main(["test", "tests/a.py", "-k", "mask", "--no-venv", "-x"])
    extras, command = handed
    assert extras == ["constrained", "harness", "lab", "serving", "site", "test"]
    assert command[0] == sys.executable
    assert command[-4:] == ["tests/a.py", "-k", "mask", "-x"]


def test_an_unknown_command_is_refused_before_anything_is_installed(capsys):
    with pytest.raises(SystemExit) as refusal:
        run.main(["coarse"])
    assert refusal.value.code == 2
    assert "course" in capsys.readouterr().err


def test_lessons_are_chosen_by_number_and_keep_their_order():
    notebooks = [Path("00_a.ipynb"), Path("01_b.ipynb"), Path("05_c.ipynb")]
    assert run.choose_notebooks(notebooks, []) == notebooks
    assert run.choose_notebooks(notebooks, ["05", "0"]) == [notebooks[0], notebooks[2]]
    with pytest.raises(SystemExit, match="no lesson 07: choose from 00, 01, 05"):
        run.choose_notebooks(notebooks, ["07"])


# --- the course --------------------------------------------------------------------


@pytest.fixture(autouse=True)
def own_threads(monkeypatch):
    """What a course sets for its kernels is not left to the tests after it."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.mark.parametrize(
    ("cores", "free_gb", "profile", "n"),
    [
        (2, 8, "laptop", 2),
        (8, 8, "laptop", 4),  # two gigabytes a lesson
        (2, 1, "laptop", 1),
        (2, 8, "gpu", 1),
        (2, 8, "colab", 1),
    ],
)
def test_as_many_lessons_run_at_once_as_there_is_room_for(
    cores, free_gb, profile, n, monkeypatch
):
    monkeypatch.setattr(run, "DRIVERS", [])
    assert run.count_at_once(cores, free_gb * 1_000_000_000, profile) == n


def test_on_a_gpu_one_lesson_runs_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "DRIVERS", [str(tmp_path)])
    assert run.count_at_once(8, 64_000_000_000, "laptop") == 1


def test_a_lesson_waits_for_those_before_it_that_it_reads(tmp_path):
    for name, head in {
        "00_first": "writes `runs/00_first`",
        "01_reads": "reads `runs/00_first`",
        "02_alone": "reads `data/00_first`, and sends you to `runs/03_last`",
        "03_last": "reads `runs/01_reads`",
    }.items():
        write_notebook(tmp_path, name, head=head)
    first, reads, alone, last = paths = sorted(tmp_path.iterdir())
    assert run.find_ready(paths, paths) == [first, alone]
    assert run.find_ready([reads, last], [reads, last]) == [reads]
    assert run.find_ready([last], [last, alone]) == [last]


def test_each_lesson_names_the_lessons_it_reads():
    notebooks = run._list_notebooks(run.ROOT)
    ready = run.find_ready(notebooks, notebooks)
    assert [path.stem for path in notebooks if path not in ready] == [
        lesson.name
        for lesson in LESSONS.values()
        if any(path.startswith("runs/") for path in lesson.reads)
    ]
    assert len(ready) == 7


def make_result(name, status="passed", **known):
    result = {"notebook": name, "status": status, "seconds": 1.0, "peak_rss_mb": None}
    return {**result, "checks": None, "headline": None, "needs": "", **known}


def test_the_summary_is_a_table_with_a_line_for_each_lesson():
    results = [
        make_result(
            "00_start_here",
            seconds=3.14,
            peak_rss_mb=412,
            checks={"00.1": "passed", "00.2": "blank"},
            headline="ready",
        ),
        make_result("01_first", "failed", seconds=101.0, error={"cell": 7}),
        make_result("02_data", "skipped", needs="01"),
    ]
    assert run.format_summary(results).splitlines() == [
        "notebook       seconds  peak RSS  checks passed  headline",
        "00_start_here      3.1    412 MB            1/2  ready",
        "01_first         101.0         -              -  failed in cell 7",
        "02_data            1.0         -              -  skipped (needs 01)",
    ]


def test_a_failure_shows_the_cell_its_source_and_its_error_without_colours():
    error = {
        "cell": 3,
        "source": "x = 0\n1 / x",
        "name": "ZeroDivisionError",
        "message": "division by zero",
        "traceback": run._strip_ansi("\x1b[0;31mZeroDivisionError\x1b[0m: division"),
    }
    shown = run.format_failure(make_result("01_first", "failed", error=error))
    assert shown == (
        "01_first failed in cell 3:\n\n    x = 0\n    1 / x\n\n"
        "    ZeroDivisionError: division"
    )


def test_the_lesson_that_makes_a_missing_input_is_named():
    message = "runs/07 is missing: run notebook 01 first"
    assert run._find_needed({"name": "MissingInput", "message": message}) == "01"


def test_a_missing_input_that_no_lesson_makes_is_a_failure():
    message = "data/07.jsonl is missing: clone again"
    assert run._find_needed({"name": "MissingInput", "message": message}) == ""


def test_another_error_is_no_missing_input():
    assert run._find_needed({"name": "OSError", "message": "notebook 01"}) == ""
    assert run._find_needed(None) == ""


def test_the_peak_memory_is_read_from_linuxs_account():
    assert run._read_peak("VmPeak:\t  99 kB\nVmHWM:\t    3 kB\n") == 3072
    assert run._read_peak("VmPeak:\t  99 kB\n") == 0


def test_the_memory_of_a_process_and_its_child_is_seen():
    child = "import time; kept = bytearray(60_000_000); time.sleep(1.5)"
    parent = (
        f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    )
    with subprocess.Popen([sys.executable, "-c", parent]) as process:
        watch = run.MemoryWatch()
        watch.follow(process.pid)
        process.wait()
        assert 60_000_000 < watch.stop() < 300_000_000


def test_a_file_is_written_whole_into_a_new_folder(tmp_path):
    run._write_atomically(tmp_path / "new" / "a.json", "{}\n")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.json"]
    assert (tmp_path / "new" / "a.json").read_bytes() == b"{}\n"


def write_notebook(folder, name, *cells, head="# A lesson"):
    import nbformat
    from nbformat import v4

    folder.mkdir(exist_ok=True)
    notebook = v4.new_notebook(cells=[v4.new_markdown_cell(head)])
    notebook.cells += [v4.new_code_cell(cell) for cell in cells]
    # A kernel that no machine has: the lesson must run all the same.
    notebook.metadata.kernelspec = {"name": "elsewhere", "display_name": "Elsewhere"}
    nbformat.write(notebook, folder / f"{name}.ipynb")


@pytest.mark.notebook
def test_a_failing_lesson_fails_the_course_and_the_others_still_run(tmp_path, capsys):
    lessons = tmp_path / "notebooks"
    write_notebook(lessons, "00_fails", "x = 0", "print('before')\n1 / x")
    write_notebook(
        lessons,
        "01_needs",
        "class MissingInput(Exception):\n    pass",
        "raise MissingInput('runs/a.jsonl is missing: run notebook 00 first')",
        head="Reads `runs/00_fails`",
    )
    write_notebook(
        lessons,
        "02_passes",
        "import json, pathlib, sys",
        "record = {'checks': {'02.1': 'passed'}, 'headline': sys.executable}",
        "folder = pathlib.Path('../runs/lessons')",
        "folder.mkdir(parents=True, exist_ok=True)",
        "_ = (folder / '02.json').write_text(json.dumps(record))",
    )
    stale = tmp_path / "runs" / "lessons" / "00.json"
    stale.parent.mkdir(parents=True)
    stale.write_text('{"headline": "from an earlier run"}', encoding="utf-8")

    assert run.run_course(tmp_path, "laptop", []) == 1

    shown = capsys.readouterr().out
    assert "/3] 00_fails: failed in cell 3, " in shown
    assert "/3] 01_needs: skipped (needs 00), " in shown
    assert "/3] 02_passes: passed, " in shown
    assert [shown.count(f"[{n}/3]") for n in (1, 2, 3)] == [1, 1, 1]
    assert "    print('before')\n    1 / x\n" in shown
    assert "    ZeroDivisionError: division by zero" in shown
    assert "\x1b" not in shown

    kept = tmp_path / "runs" / "course"
    summary = json.loads((kept / "summary.json").read_text("utf-8"))
    failed, skipped, passed = summary["notebooks"]
    assert failed["error"]["cell"] == 3
    assert failed["headline"] is None
    assert skipped["needs"] == "00"
    assert passed["headline"] == sys.executable
    assert passed["checks"] == {"02.1": "passed"}
    assert passed["peak_rss_mb"] > 20
    assert summary["profile"] == "laptop"
    assert summary["hardware"]["cpu_count"] == os.cpu_count()
    assert "before" in (kept / "00_fails.html").read_text("utf-8")
    assert (kept / "02_passes.ipynb").exists()


@pytest.mark.notebook
def test_a_lesson_whose_kernel_dies_is_reported(tmp_path, capsys):
    write_notebook(tmp_path / "notebooks", "00_dies", "import os\nos._exit(3)")
    assert run.run_course(tmp_path, "laptop", []) == 1
    assert "00_dies: failed in cell 2, " in capsys.readouterr().out


@pytest.mark.notebook
@pytest.mark.parametrize("has_driver", [False, True])
def test_kernels_are_forked_where_no_driver_of_a_gpu_is(
    has_driver, tmp_path, monkeypatch
):
    monkeypatch.setattr(run, "DRIVERS", [str(tmp_path)] * has_driver)
    is_child = f"import os\nassert (os.getppid() == {os.getpid()}) is {has_driver}"
    write_notebook(tmp_path / "notebooks", "00_asks", is_child)
    assert run.run_course(tmp_path, "laptop", []) == 0


def test_elsewhere_than_on_linux_nothing_is_forked(monkeypatch):
    monkeypatch.setattr(run, "DRIVERS", [])
    for system, is_forked in (("linux", True), ("darwin", False), ("win32", False)):
        monkeypatch.setattr(run.sys, "platform", system)
        assert run.can_fork() is is_forked


@pytest.mark.notebook
def test_each_kernel_begins_anew_and_ends_in_order(tmp_path, monkeypatch):
    monkeypatch.setenv("FTLIB_PROFILE", "gpu")
    lessons = tmp_path / "notebooks"
    lines = [
        "import atexit, os, sys",
        "from pathlib import Path",
        "import ftlib.lesson",
        "seen = [Path.cwd().name, os.environ['FTLIB_PROFILE'], hasattr(ftlib, 'mark')]",
        "ftlib.mark = True",
        "_ = atexit.register(Path(name).write_text, repr(seen))",
        "from matplotlib import pyplot as plt",
        "_ = plt.plot([1, 2])",
    ]
    for name in ("00_first", "01_second"):
        write_notebook(lessons, name, f"name = '{name}.txt'", "\n".join(lines))
    monkeypatch.setattr(run, "count_at_once", lambda *_: 1)  # the second after it
    assert run.run_course(tmp_path, "laptop", []) == 0
    for name in ("00_first.txt", "01_second.txt"):
        assert (lessons / name).read_text("utf-8") == "['notebooks', 'gpu', False]"
    for name in ("00_first", "01_second"):
        executed = (tmp_path / "runs" / "course" / f"{name}.ipynb").read_text("utf-8")
        assert '"image/png"' in executed  # shown, though matplotlib was loaded before
        assert '"stream"' not in executed


@pytest.mark.notebook
def test_lessons_run_at_once_but_for_what_one_reads_of_another(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "count_at_once", lambda *_: 2)
    monkeypatch.setattr(run.os, "cpu_count", lambda: 6)
    monkeypatch.delenv("OMP_NUM_THREADS")
    wait = [
        "import time",
        "from pathlib import Path",
        "for _ in range(600):",
        "    time.sleep(0.1 * (not Path('second').exists()))",
        "assert Path('second').exists()",
        "_ = Path('first').write_text('')",
    ]
    lessons = tmp_path / "notebooks"
    write_notebook(lessons, "00_first", "\n".join(wait))
    reads = "from pathlib import Path\nassert Path('first').exists()"
    write_notebook(lessons, "01_reads", reads, head="Reads `runs/00_first`")
    shares = "import os\nassert os.environ['OMP_NUM_THREADS'] == '3'"
    write_notebook(lessons, "02_second", shares, "open('second', 'w').close()")
    assert run.run_course(tmp_path, "laptop", []) == 0
    file = tmp_path / "runs" / "course" / "summary.json"
    summary = json.loads(file.read_text("utf-8"))
    names = [result["notebook"] for result in summary["notebooks"]]
    assert names == ["00_first", "01_reads", "02_second"]
    assert summary["at_once"] == 2


@pytest.mark.notebook
@pytest.mark.skipif(not run.can_fork(), reason="kernels are not forked here")
def test_a_course_that_is_killed_leaves_no_kernel(tmp_path):
    import psutil

    write_notebook(
        tmp_path / "notebooks",
        "00_sleeps",
        "import os, time\nfrom pathlib import Path\n"
        "_ = Path('new').write_text(str(os.getpid()))\n"
        "_ = Path('new').rename('pid')\ntime.sleep(600)",
    )
    course = f"import run; from pathlib import *; run.run_course({tmp_path!r}, '', [])"
    command = [sys.executable, "-c", course]
    with subprocess.Popen(command, cwd=run.ROOT, stderr=subprocess.DEVNULL) as process:
        pid = tmp_path / "notebooks" / "pid"
        while not pid.exists() and process.poll() is None:
            time.sleep(0.1)
        kernel = psutil.Process(int(pid.read_text("utf-8")))
        process.kill()
    assert kernel.wait(30) is None  # as of a process that is not this one's child


@pytest.mark.notebook
def test_lessons_that_all_pass_give_status_0(tmp_path):
    write_notebook(tmp_path / "notebooks", "00_passes", "1 + 1")
    assert run.run_course(tmp_path, "laptop", ["00"]) == 0


@pytest.mark.notebook
def test_a_lesson_that_cannot_be_read_is_reported_and_not_raised(tmp_path, capsys):
    folder = tmp_path / "notebooks"
    folder.mkdir()
    (folder / "00_torn.ipynb").write_text('{"cells": [', encoding="utf-8")
    assert run.run_course(tmp_path, "laptop", []) == 1
    assert "00_torn failed before its first cell" in capsys.readouterr().out
