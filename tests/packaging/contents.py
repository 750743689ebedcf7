"""Compare the built wheel and sdist with the clone: `contents.py FOLDER`, the build's output."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

PACKAGE = "kie_cover_async"
TOP_LEVEL_MODULES = {"_kie_cover_async_command.py", "_kie_cover_async_pytest.py"}
# Files that only a clone needs, and files that the build adds.
CLONE_ONLY, WRITTEN = {".ci/run"}, {"PKG-INFO"}
METADATA = {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"}


def tracked() -> set[str]:
    listed = subprocess.run(["git", "ls-files"], check=True, capture_output=True, text=True)  # noqa: S607 - whichever git made the clone
    return set(listed.stdout.split("\n")) - {""}


def wheel_files(folder: Path) -> set[str]:
    [wheel] = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if not name.endswith("/")}


def sdist_files(folder: Path) -> set[str]:
    [sdist] = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        return {entry.name.partition("/")[2] for entry in archive if entry.isfile()}


def report_differences(what: str, found: set[str], expected: set[str]) -> bool:
    """Return whether both sets are equal, and print each difference."""
    for words, names in (("has", found - expected), ("lacks", expected - found)):
        for name in sorted(names):
            sys.stderr.write(f"the {what} {words} {name}\n")
    return found == expected


def main() -> None:
    folder, here = Path(sys.argv[1]), tracked()
    in_wheel = {
        name for name in here if name.startswith(f"{PACKAGE}/") or name in TOP_LEVEL_MODULES
    }
    wheel = wheel_files(folder)
    info = {name for name in wheel if ".dist-info/" in name}
    as_expected = [
        report_differences("wheel", wheel - info, in_wheel),
        report_differences("wheel's metadata", {name.partition("/")[2] for name in info}, METADATA),
        report_differences("sdist", sdist_files(folder), (here - CLONE_ONLY) | WRITTEN),
        f"{PACKAGE}/py.typed" in wheel,
    ]
    sys.exit(not all(as_expected))


if __name__ == "__main__":
    main()
