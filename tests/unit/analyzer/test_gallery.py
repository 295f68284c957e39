"""Names of annotated pictures, and how they are written."""

import errno
import os
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from posture_analyzer import gallery

IMAGES = Path("/var/lib/posture/images")
LONGEST_NAME = 255


def path_of(filename: str | None, *, key: str = "key", pi_id: str = "pi1", images_dir: Path = IMAGES) -> Path:
    return gallery.picture_path(images_dir, pi_id=pi_id, filename=filename, key=key)


@pytest.mark.parametrize(
    ("filename", "stem"),
    [
        ("camera.jpg", "camera"),
        ("2026-01-02T03:04:05.678.jpeg", "2026-01-02T03_04_05.678"),
        ("shot", "shot"),
        ("my photo (1).png", "my_photo_1"),
        ("C:\\Users\\me\\shot.jpg", "shot"),
        ("/home/pi/shot.jpg", "shot"),
        ("../../etc/passwd", "passwd"),
        ("..", "image"),
        ("...", "image"),
        (".hidden.jpg", "hidden"),
        ("/", "image"),
        ("", "image"),
        (None, "image"),
        ("Küche.jpg", "K_che"),
        ("摄像头.jpg", "image"),
        ("a\0b\n.jpg", "a_b"),
        ("x" * 300 + ".jpg", "x" * 100),
    ],
)
def test_the_name_keeps_what_is_harmless_of_the_publishers(filename: str | None, stem: str) -> None:
    # The first 12 hex digits of sha256("key").
    assert path_of(filename) == IMAGES / "analyzed_images_from_pi1" / f"{stem}-2c70e12b7a06.jpg"


@given(st.text())
@example("../../../etc/cron.d/x")
@example("..\\..\\x")
@example("\0/..")
@example("a/../../b")
@example("\u2025/\u2216..")
def test_no_filename_leads_out_of_the_pis_directory(filename: str) -> None:
    path = path_of(filename)
    assert Path(os.path.normpath(path)) == path
    assert path.parent == IMAGES / "analyzed_images_from_pi1"
    assert len(f".{path.name}.part".encode()) <= LONGEST_NAME
    assert path.name.isascii()
    assert not path.name.startswith((".", "-jpg"))


@given(st.text(), st.text(min_size=1), st.text(min_size=1))
def test_each_key_has_a_picture_of_its_own(filename: str, one: str, other: str) -> None:
    assert (path_of(filename, key=one) == path_of(filename, key=other)) == (one == other)


def test_a_picture_is_written_whole_and_nothing_else(tmp_path: Path) -> None:
    path = path_of("shot.jpg", images_dir=tmp_path)
    for content in (b"first, longer", b"second"):
        gallery.save(path, content)
        assert path.read_bytes() == content
        assert list(path.parent.iterdir()) == [path]


def test_a_leftover_of_a_crash_is_overwritten(tmp_path: Path) -> None:
    path = path_of("shot.jpg", images_dir=tmp_path)
    path.parent.mkdir()
    path.with_name(f".{path.name}.part").write_bytes(b"half a picture, then the power went")
    gallery.save(path, b"whole")
    assert path.read_bytes() == b"whole"
    assert list(path.parent.iterdir()) == [path]


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    path = path_of("shot.jpg", images_dir=tmp_path)
    gallery.save(path, b"old")
    monkeypatch.setattr(os, "fdatasync", full)
    with pytest.raises(OSError, match="No space left"):
        gallery.save(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]


def test_an_interrupt_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fdatasync", interrupted)
    path = path_of("shot.jpg", images_dir=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        gallery.save(path, b"new")
    assert not list(path.parent.iterdir())


def test_a_missing_images_directory_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        gallery.save(path_of("shot.jpg", images_dir=tmp_path / "not mounted"), b"picture")


def test_the_names_are_flushed_with_their_folders_and_those_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[Path] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: flushed.append(Path(f"/proc/self/fd/{descriptor}").readlink()))
    paths = [path_of(f"{number}.jpg", pi_id=pi_id, images_dir=tmp_path) for pi_id in ("pi1", "pi2") for number in "12"]
    for path in paths:
        gallery.save(path, b"picture")
    gallery.flush_names(paths)
    assert sorted(flushed) == sorted([tmp_path, *tmp_path.iterdir()])
    gallery.flush_names([])
    assert len(flushed) == 3


def test_a_file_system_that_cannot_flush_folders_is_used_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(number: int) -> None:
        def fsync(_descriptor: int) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, "fsync", fsync)

    path = path_of("shot.jpg", images_dir=tmp_path)
    gallery.save(path, b"picture")
    failing(errno.EINVAL)
    gallery.flush_names([path])
    failing(errno.EIO)
    with pytest.raises(OSError, match="Input/output error"):
        gallery.flush_names([path])


@pytest.mark.parametrize(("umask", "folder", "file"), [(0, 0o750, 0o640), (0o022, 0o750, 0o640), (0o077, 0o700, 0o600)])
def test_a_picture_is_for_its_owner_and_the_folders_group(tmp_path: Path, umask: int, folder: int, file: int) -> None:
    path = path_of("shot.jpg", images_dir=tmp_path)
    before = os.umask(umask)
    try:
        gallery.save(path, b"picture")
    finally:
        os.umask(before)
    assert (path.parent.stat().st_mode & 0o7777, path.stat().st_mode & 0o7777) == (folder, file)


def test_a_leftover_that_all_may_read_does_not_give_the_picture_its_mode(tmp_path: Path) -> None:
    path = path_of("shot.jpg", images_dir=tmp_path)
    path.parent.mkdir()
    leftover = path.with_name(f".{path.name}.part")
    leftover.touch()
    leftover.chmod(0o644)
    gallery.save(path, b"picture")
    assert path.stat().st_mode & 0o7777 == 0o640


def test_a_link_in_the_pictures_place_is_not_written_through(tmp_path: Path) -> None:
    path, victim = path_of("shot.jpg", images_dir=tmp_path), tmp_path / "victim"
    path.parent.mkdir()
    victim.write_bytes(b"not ours")
    path.with_name(f".{path.name}.part").symlink_to(victim)
    gallery.save(path, b"picture")
    assert (victim.read_bytes(), path.read_bytes()) == (b"not ours", b"picture")
    assert not path.is_symlink()
