"""Real projects answer the same, and pass the same tests, under both handlers.

    python -m tests.real.run [--only pages|tests] [PACKAGE ...]

Each comes from the package index, into build/real, with an environment of its own. Its
pages are served by `djasgi serve --handler django` and `--handler djasgi` from copies of
one database, and compared byte for byte but for what `normal.py` names. The tests are
those of its source distribution. The exit code is 1 if there is a difference.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tarfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.django.run import HANDLERS, Result, compare
from tests.real.crawl import Both
from tests.real.projects import PROJECTS, Project
from tests.support.command import environment
from tests.support.process import Process
from tests.support.server import URL

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "real"
OVERLAYS = Path(__file__).with_name("overlays")

MODES = ("debug", "production")


def call(*command: str | Path, cwd: Path | None = None, **variables: str) -> None:
    """Run a command that has to succeed; what it says is shown if it does not."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env=environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}:\n{done.stdout[-6000:]}")


def install(project: Project) -> tuple[Path, str]:
    """The environment's `bin` folder, and what is installed of note."""
    folder = BUILD / project.package
    binaries = folder / "venv" / "bin"
    stamp = folder / "installed"
    wanted = "\n".join(project.requirements)
    if not stamp.exists() or stamp.read_text() != wanted:
        call(sys.executable, "-m", "venv", "--clear", folder / "venv")
        pip = (binaries / "python", "-m", "pip", "--disable-pip-version-check")
        call(*pip, "install", "--editable", ROOT, *project.requirements)
        stamp.write_text(wanted)
    code = "import sys; from importlib.metadata import version; print(*[f'{p} {version(p)}' for p in sys.argv[1:]], sep=', ')"
    names: list[str | Path] = [
        binaries / "python",
        "-c",
        code,
        project.package,
        "django",
        "uvicorn",
    ]
    return binaries, subprocess.check_output(names, text=True).strip()


def make(project: Project, binaries: Path) -> Path:
    """The project with its database, anew."""
    folder = BUILD / project.package / "made"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    call(binaries / project.start[0], *project.start[1:], cwd=folder)
    root = folder / "mysite"
    for overlay in ("common", project.package):
        shutil.copytree(OVERLAYS / overlay, root, dirs_exist_ok=True)
    python, settings = binaries / "python", {"DJANGO_SETTINGS_MODULE": project.settings}
    apps = [each.parent.name for each in root.glob("*/models.py")]
    if apps:
        call(python, "manage.py", "makemigrations", *apps, cwd=root, **settings)
    call(python, "manage.py", "migrate", cwd=root, **settings)
    call(python, "manage.py", "collectstatic", "--no-input", cwd=root, **settings)
    call(python, "fill.py", cwd=root, **settings)
    return root


def crawl(project: Project, binaries: Path, made: Path, mode: str) -> Both:
    """The project's tour of two servers."""
    assert project.tour
    with ExitStack() as stack:
        folders, ports = [], []
        for handler in HANDLERS:
            # Of the same length, for they appear in pages.
            folder = BUILD / project.package / handler
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(made, folder)
            server = stack.enter_context(
                Process(
                    [
                        binaries / "djasgi", "serve", "--handler", handler,
                        "--server", "uvicorn", "--workers", "1", "--port", "0",
                        "--settings", project.settings, "--project", ".",
                    ],
                    # What comes from a set of texts is in the same order then.
                    environ=environment(CRAWL=mode, PYTHONHASHSEED="0"),
                    cwd=folder,
                )
            )  # fmt: skip
            stack.callback(server.stop)
            folders.append(folder)
            ports.append(int(server.wait_for(URL)[1]))
            server.wait_for(r"ready in \d")
        both = Both((folders[0], folders[1]), (ports[0], ports[1]), project.rules)
        serving = [each.send("GET", "/which-handler/", {}) for each in both.browsers]
        assert [each.text for each in serving] == list(HANDLERS), serving
        project.tour(both)
        return both


def source(project: Project, binaries: Path) -> Path:
    """The archive of the source distribution of what is installed."""
    folder = BUILD / project.package / "source"
    code = (
        f"from importlib.metadata import version; print(version({project.package!r}))"
    )
    command: list[str | Path] = [binaries / "python", "-c", code]
    version = subprocess.check_output(command, text=True).strip()
    archive = folder / f"{project.package.replace('-', '_')}-{version}.tar.gz"
    if not archive.exists():
        # The pip of this environment: an older one builds what it downloads.
        call(
            sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check",
            "download", "--no-deps", "--no-binary", project.package,
            "--dest", folder, f"{project.package}=={version}",
        )  # fmt: skip
    return archive


def run(project: Project, archive: Path, binaries: Path, handler: str) -> Result:
    """The project's tests in a process of their own, in a folder that they write into."""
    suite = project.suite
    assert suite
    unpacked = archive.parent / handler
    shutil.rmtree(unpacked, ignore_errors=True)
    with tarfile.open(archive) as tar:
        tar.extractall(unpacked, filter="data")
    folder = unpacked / archive.name.removesuffix(".tar.gz")
    result = folder.parent / "result.json"
    log = BUILD / project.package / f"tests-{handler}.log"
    with log.open("w") as output:
        subprocess.run(
            [
                binaries / "python", Path(__file__).with_name("suite.py"),
                result, handler, "async", suite.runner, *suite.arguments,
            ],
            cwd=folder,
            env=environment(DJANGO_SETTINGS_MODULE=suite.settings),
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )  # fmt: skip
    data: dict[str, Any] = json.loads(result.read_text()) if result.exists() else {}
    if not data.get("results"):
        raise SystemExit(f"The tests of {project.package} did not run: {log}")
    return Result(data["results"], Counter(data["warnings"]))


def pages(project: Project, binaries: Path) -> int:
    """Crawl, and say what differs; the number of differences."""
    made = make(project, binaries)
    count = 0
    for mode in MODES:
        both = crawl(project, binaries, made, mode)
        statuses = ", ".join(f"{n} of {s}" for s, n in sorted(both.statuses.items()))
        print(f"  pages, {mode}: {both.pages} compared ({statuses})")
        print(f"    {len(both.differences)} differences", flush=True)
        for difference in both.differences:
            print(f"    {difference}")
        count += len(both.differences)
    return count


def tests(project: Project, binaries: Path) -> int:
    """Run the tests with both handlers; the number of differences."""
    archive = source(project, binaries)
    with ThreadPoolExecutor(len(HANDLERS)) as pool:
        jobs = [pool.submit(run, project, archive, binaries, name) for name in HANDLERS]
        django, djasgi = (job.result() for job in jobs)
    worse, better = compare(django, djasgi, "async")
    counts = dict(Counter(djasgi.outcomes.values()))
    print(f"  tests: {len(djasgi.outcomes)} compared, {counts}")
    print(f"    {len(worse)} differences, {len(better)} improvements", flush=True)
    for line in [*worse, *better]:
        print(f"    {line}")
    return len(worse)


def main() -> int:
    """Run, compare, and say so."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    names = [project.package for project in PROJECTS]
    parser.add_argument("--only", choices=("pages", "tests"))
    parser.add_argument("packages", nargs="*", metavar="PACKAGE", help=", ".join(names))
    arguments = parser.parse_args()
    if unknown := set(arguments.packages) - set(names):
        parser.error(f"not among {', '.join(names)}: {', '.join(sorted(unknown))}")
    differences = 0
    for project in PROJECTS:
        if arguments.packages and project.package not in arguments.packages:
            continue
        binaries, versions = install(project)
        print(versions, flush=True)
        if project.tour and arguments.only != "tests":
            differences += pages(project, binaries)
        if project.suite and arguments.only != "pages":
            differences += tests(project, binaries)
    print(f"{differences} differences")
    return int(differences > 0)


if __name__ == "__main__":
    sys.exit(main())
