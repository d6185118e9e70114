"""Fashion-MNIST: where its files are looked for, that they are checked, and how it is split."""

import gzip
import hashlib
import struct
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gmn import zoo
from gmn.zoo import fashion, images
from gmn.zoo.building import catalogue, inrs
from gmn.zoo.images import MissingImages

TRAIN, TEST = 200, 50


@pytest.fixture
def replica(tmp_path, monkeypatch):
    """Files in the published layout, smaller, in the cache; no package is installed."""
    monkeypatch.setenv("GRAPH_METANETWORKS_CACHE", str(tmp_path))
    monkeypatch.setattr(fashion, "INSIDE", "no/such/folder")
    monkeypatch.setattr(fashion, "TEST_IMAGES", TEST)
    folder = tmp_path / "fashion-mnist"
    folder.mkdir()
    generator = torch.Generator().manual_seed(0)
    checksums = {}
    for name in fashion.FILES:
        count = TRAIN if name.startswith("train") else TEST
        if "images" in name:
            pixels = torch.randint(256, (count, 28, 28), generator=generator, dtype=torch.uint8)
            content = struct.pack(">IIII", 2051, count, 28, 28) + pixels.numpy().tobytes()
        else:
            content = struct.pack(">II", 2049, count) + bytes(i % 10 for i in range(count))
        (folder / name).write_bytes(gzip.compress(content))
        checksums[name] = hashlib.sha256(content).hexdigest()
    monkeypatch.setattr(fashion, "FILES", checksums)
    caches = (images.load_all, inrs._shuffled_images)
    for cache in caches:
        cache.cache_clear()
    yield folder
    for cache in caches:
        cache.cache_clear()


def test_the_official_split_is_kept_and_images_are_pooled(replica):
    data = images.load("fashion")
    assert data.train_images.shape == (TRAIN, 1, 14, 14)
    assert data.test_images.shape == (TEST, 1, 14, 14)
    assert data.test_labels.tolist() == [i % 10 for i in range(TEST)]
    raw = gzip.decompress((replica / "t10k-images-idx3-ubyte.gz").read_bytes())[16:]
    corner = (raw[0] + raw[1] + raw[28] + raw[29]) / 4 / 255
    assert float(data.test_images[0, 0, 0, 0]) == pytest.approx(corner)


def test_inrs_keep_the_official_test_images(replica, tmp_path, monkeypatch):
    few = replace(catalogue.BUILDERS["inr-fashion"], steps=0)
    monkeypatch.setitem(catalogue.BUILDERS, "inr-fashion", few)
    built = zoo.build("inr-fashion", TRAIN + TEST, 0, tmp_path / "z", workers=1, progress=False)
    for row in built.rows:
        assert (row["split"] == "test") == (row["image"] >= TRAIN)
    assert sum(row["split"] == "val" for row in built.rows) == 20  # 8 % of 25 images, by class


def test_absent_and_other_files_are_named_with_the_way_out(replica):
    path = replica / "train-labels-idx1-ubyte.gz"
    path.write_bytes(gzip.compress(b"other"))
    with pytest.raises(MissingImages, match=r"train-labels.*SHA-256.*gmn\.zoo\.fashion"):
        images.load("fashion")
    path.write_bytes(path.read_bytes()[:10])
    with pytest.raises(MissingImages, match="cannot be read"):
        images.load("fashion")
    (replica / "train-images-idx3-ubyte.gz").unlink()
    with pytest.raises(MissingImages, match=r"neither in .*python -m gmn\.zoo\.fashion"):
        images.load("fashion")


def test_fetching_without_apt_says_what_to_do(replica, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(fashion.MissingFashion, match="unpack its files"):
        fashion.fetch()


def test_fetched_files_stand_beside_no_others(replica, tmp_path, monkeypatch):
    published = {name: (replica / name).read_bytes() for name in fashion.FILES}

    def unpacked(command, check, cwd=None):
        if command[0] == "apt-get":
            (Path(cwd) / f"{fashion.PACKAGE}_1.deb").touch()
            return
        inside = Path(command[-1]) / fashion.INSIDE
        inside.mkdir(parents=True)
        for name, content in published.items():
            (inside / name).write_bytes(content)

    monkeypatch.setattr(fashion.subprocess, "run", unpacked)
    (replica / "t10k-images-idx3-ubyte.gz").write_bytes(b"torn")
    for _ in range(2):  # over files that were unpacked by hand, then over its own
        assert fashion.fetch() == replica
        assert len(fashion.read()[1]) == TRAIN + TEST
    monkeypatch.setenv("GRAPH_METANETWORKS_CACHE", str(tmp_path / "other"))
    victim = tmp_path / "other" / "fashion-mnist" / "mine"
    victim.parent.mkdir(parents=True)
    victim.write_text("mine")
    with pytest.raises(fashion.MissingFashion, match="holds files that are not a data set"):
        fashion.fetch()
    assert [path.name for path in victim.parent.iterdir()] == ["mine"]
