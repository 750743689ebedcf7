"""What would be published, held against the clone: `contents.py FOLDER`, where it was built to."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

PACKAGE = "kie_cover_async"
BESIDE_IT = {"_kie_cover_async_command.py", "_kie_cover_async_pytest.py"}
# What only a clone needs, and what a builder writes.
CLONE_ONLY, WRITTEN = {".ci/run"}, {"PKG-INFO"}
METADATA = {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"}


def tracked() -> set[str]:
    listed = subprocess.run(["git", "ls-files"], check=True, capture_output=True, text=True)  # noqa: S607 - whichever git made the clone
    return set(listed.stdout.split("\n")) - {""}


def of_the_wheel(folder: Path) -> set[str]:
    [wheel] = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if not name.endswith("/")}


def of_the_sdist(folder: Path) -> set[str]:
    [sdist] = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        return {entry.name.partition("/")[2] for entry in archive if entry.isfile()}


def told(what: str, found: set[str], expected: set[str]) -> bool:
    """Whether they are the same; says what is not."""
    for words, names in (("has", found - expected), ("has not", expected - found)):
        for name in sorted(names):
            sys.stderr.write(f"the {what} {words} {name}\n")
    return found == expected


def main() -> None:
    folder, here = Path(sys.argv[1]), tracked()
    in_wheel = {name for name in here if name.startswith(f"{PACKAGE}/") or name in BESIDE_IT}
    wheel = of_the_wheel(folder)
    info = {name for name in wheel if ".dist-info/" in name}
    as_expected = [
        told("wheel", wheel - info, in_wheel),
        told("wheel's metadata", {name.partition("/")[2] for name in info}, METADATA),
        told("sdist", of_the_sdist(folder), (here - CLONE_ONLY) | WRITTEN),
        f"{PACKAGE}/py.typed" in wheel,
    ]
    sys.exit(not all(as_expected))


if __name__ == "__main__":
    main()
