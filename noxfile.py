"""What a change has to pass: `nox -l` lists it, `nox` runs it all, `nox -s tests` the tests."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from secrets import token_hex

import nox

nox.needs_version = ">=2025.10.14"
nox.options.download_python = "never"
nox.options.sessions = ["tests", "lint", "types", "docs"]

PROJECT = nox.project.load_toml("pyproject.toml")
RUNNING = f"{sys.version_info.major}.{sys.version_info.minor}"


def is_present(version: str) -> bool:
    """Whether this Python can be called: a pyenv shim may be on the PATH and yet lead nowhere."""
    command = sys.executable if version == RUNNING else shutil.which(f"python{version}")
    if command is None:
        return False
    return subprocess.run([command, "-c", ""], capture_output=True, check=False).returncode == 0


def group(name: str) -> list[str]:
    """The requirements of a dependency group, for a pip of any age."""
    return nox.project.dependency_groups(PROJECT, name)


def lowest_of(*lists: str) -> list[str]:
    """The runtime dependencies, or those of an extra, each at its lower bound."""
    project = PROJECT["project"]
    every = {"dependencies": project["dependencies"], **project["optional-dependencies"]}
    return [requirement.replace(">=", "==") for name in lists for requirement in every[name]]


# Two more than there are cores, because some tests wait for processes and servers.
AT_ONCE = f"--numprocesses={(os.cpu_count() or 1) + 2}"

# Where backoff has a say; to all else it is the same which of the two is there.
MEET_BACKOFF = [
    "tests/client/test_reading.py",
    "tests/client/test_waiting.py",
    "tests/test_retry.py",
    "tests/test_schedule.py",
    "tests/test_waiter.py",
]

SCHEMAS = {
    "dependabot": [".github/dependabot.yml"],
    "github-issue-config": [".github/ISSUE_TEMPLATE/config.yml"],
    "github-issue-forms": [f".github/ISSUE_TEMPLATE/{name}.yml" for name in ("bug", "feature")],
    "github-workflows": [f".github/workflows/{name}.yml" for name in ("docs", "release", "tests")],
    "readthedocs": [".readthedocs.yaml"],
}

PYTHONS = [version for version in ("3.11", "3.12", "3.13", "3.14") if is_present(version)]
# atheris has wheels for these; where none is present, the session says so and the others run.
FUZZED_ON = [version for version in PYTHONS if version != "3.14"][-1:] or ["3.13"]


@nox.session
@nox.parametrize(
    "python, backoff",
    [
        *(nox.param(version, "backoff", id=version) for version in PYTHONS),
        nox.param(PYTHONS[-1], "python-backoff", id=f"{PYTHONS[-1]}, python-backoff"),
    ],
)
def tests(session: nox.Session, backoff: str) -> None:
    """The tests, on each Python from 3.11 on that is present; some again with python-backoff."""
    session.install(".[cli]", *group("test"))
    if backoff == "python-backoff":
        # Both distributions write the same folder, so the order matters.
        session.run_install("pip", "uninstall", "--yes", "--quiet", "backoff")
        session.install("--force-reinstall", "--no-deps", "python-backoff")
    # The safe path keeps the package's folder here from hiding the installed package.
    session.env["PYTHONSAFEPATH"] = "1"
    pytest = ("-m", "pytest", AT_ONCE)
    chosen = MEET_BACKOFF if backoff == "python-backoff" else []
    if chosen or session.python != PYTHONS[0]:
        # No line is for one Python only, so it is enough to count them on one.
        session.run("python", *pytest, *(session.posargs or chosen))
        return
    session.env["COVERAGE_FILE"] = str(Path(session.virtualenv.location) / "coverage")
    session.run("coverage", "erase")
    session.run("coverage", "run", *pytest, *session.posargs)
    session.run("coverage", "combine", "--quiet")
    if not session.posargs:
        # Without these servers their tests are skipped.
        skipped = [] if shutil.which("redis-server") else ["*/fleet/*", "*/redis_server.py"]
        if not (shutil.which("postgres") or any(Path("/usr/lib/postgresql").glob("*/bin"))):
            skipped += ["*/fleet/*", "*/postgres_*.py", "*/lossy_proxy.py"]
        omitted = [f"--omit={','.join(skipped)}"] if skipped else []
        session.run("coverage", "report", *omitted)


@nox.session(python=PYTHONS[0])
def lowest(session: nox.Session) -> None:
    """The tests again, with the lowest release that is allowed of each dependency."""
    session.install(
        ".[cli]", *lowest_of("dependencies", "cli", "speedups", "fleet"), *group("test")
    )
    session.env["PYTHONSAFEPATH"] = "1"
    session.run("pytest", AT_ONCE, *session.posargs)
    # Older releases of pytest do not read the project's settings.
    session.install(*lowest_of("testing"))
    settings = ("asyncio_mode=auto", "pythonpath=tests")
    options = [part for setting in settings for part in ("--override-ini", setting)]
    session.run("pytest", "-W", "error", "--import-mode=importlib", *options, "tests/testing")


@nox.session
def package(session: nox.Session) -> None:
    """What would be published: the contents of wheel and sdist, and the tests that read files."""
    session.install("hatchling", *group("test"))
    built, unpacked = (Path(session.create_tmp(), name).resolve() for name in ("built", "unpacked"))
    shutil.rmtree(built, ignore_errors=True)
    shutil.rmtree(unpacked, ignore_errors=True)
    session.run("hatchling", "build", "--directory", str(built))
    session.run("python", "tests/packaging/contents.py", str(built))
    [sdist] = built.glob("*.tar.gz")
    shutil.unpack_archive(sdist, unpacked, filter="data")
    [root] = unpacked.iterdir()
    session.chdir(root)
    session.install(".[cli]")
    session.env["PYTHONSAFEPATH"] = "1"
    reading = ("tests/docs", "tests/faults", "tests/api", "tests/test_architecture.py")
    session.run("pytest", AT_ONCE, *reading)


@nox.session
def lint(session: nox.Session) -> None:
    """Check rules and format by ruff, and the workflows by zizmor and their JSON schemas."""
    session.install(*group("lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("zizmor", "--offline", "--quiet", ".")
    for schema, files in SCHEMAS.items():
        session.run("check-jsonschema", "--quiet", "--builtin-schema", f"vendor.{schema}", *files)


@nox.session
def types(session: nox.Session) -> None:
    """Check the types of package, examples and tests/typing by mypy, and the exports by pyright."""
    session.install(".[cli,testing]", *group("types"), *group("test"))
    session.run("mypy")
    session.run("pyright", "--verifytypes", "kie_cover_async", "--ignoreexternal")


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation, with every warning and every broken reference an error."""
    session.install(".[cli]", *group("docs"))
    session.run("sphinx-build", "-W", "-n", "--keep-going", "-q", "docs", "docs/_build/html")


@nox.session
def bench(session: nox.Session) -> None:
    """The figures of the documentation; name some of tests/benchmarks/ after `--` for those."""
    session.install(".", *group("bench"), *group("test"))
    session.env["PYTHONPATH"] = "tests"
    # A server on this machine, which only benchmarks are to trust.
    session.env["SSL_CERT_FILE"] = "tests/benchmarks/loopback.pem"
    for name in session.posargs or (
        "poll_cost",
        "instructions",
        "bulk",
        "schedules",
        "callbacks",
        "archive",
        "songs",
        "shared_rate",
        "callback_bus",
    ):
        session.run("python", f"tests/benchmarks/{name}.py")


@nox.session(python=FUZZED_ON)
def fuzz(session: nox.Session) -> None:
    """Coverage-guided fuzzing of all that reads what others wrote: `-- RUNS [TARGET…]` in all."""
    session.install(".", *group("fuzz"))
    session.env["PYTHONPATH"] = "tests"
    given, *chosen = session.posargs or ["1_000_000"]
    targets = chosen or ["answers", "envelopes", "records", "market", "callbacks", "rows", "images"]
    runs = int(given) // len(targets)
    for target in targets:
        corpus = Path(session.create_tmp()) / target
        corpus.mkdir(exist_ok=True)
        session.run("python", "tests/fuzz/run.py", target, str(runs), str(corpus))


@nox.session
def thorough(session: nox.Session) -> None:
    """The tests by Hypothesis, with thirty times as many inputs, other ones in each run."""
    session.install(".[cli]", *group("test"))
    session.env["PYTHONSAFEPATH"] = "1"
    options = ("-m", "hypothesis", "--hypothesis-profile=thorough", AT_ONCE)
    session.run("pytest", *options, *session.posargs)


@nox.session
def kills(session: nox.Session) -> None:
    """`collect` and `make` over 200 covers, killed at twenty random moments: `-- SEED` repeats."""
    session.install(".[cli]", *group("test"))
    seed = session.posargs[0] if session.posargs else token_hex(4)
    session.env.update(PYTHONSAFEPATH="1", KILLS="20", COVERS="200", SONGS="200", SEED=seed)
    tests = ("tests/cli/test_killed.py", "tests/cli/test_make_killed.py")
    patient = "--override-ini=faulthandler_timeout=600"
    session.run("pytest", "--log-cli-level=WARNING", patient, *tests)


@nox.session
def soak(session: nox.Session) -> None:
    """Covers by the ten thousand through a service where much goes wrong: some minutes."""
    session.install(".")
    session.run("python", "tests/soak/soak.py", *session.posargs)
