"""What `up` makes of the folder for pictures: who may read there, and what becomes of old ones and of links in it."""

import grp
import os
import stat
import subprocess
from pathlib import Path

import pytest

from tests.support.checkout import CHECKOUT
from tests.support.plays import Task, refusals, refused, role, run_play

OWNER, FORMER = 10001, 10002
READERS = grp.getgrnam("video")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder as a former release left it, with links that its owner put there."""
    for parent in [*reversed(tmp_path.parents), tmp_path]:
        if parent.stat().st_uid == os.geteuid():
            parent.chmod(parent.stat().st_mode | 0o055)
    images = tmp_path / "images"
    for folder in ("analyzed_images_from_pi1", "dead-letters"):
        (images / folder).mkdir(parents=True)
        (images / folder / "one file").write_bytes(b"a person")
    victims = tmp_path / "victims"
    victims.mkdir()
    (victims / "shadow").write_bytes(b"secret")
    (images / "analyzed_images_from_pi1/link.jpg").symlink_to(victims / "shadow")
    (images / "analyzed_images_from_pi2").symlink_to(victims)
    (images / "analyzed_images_from_pi1/hard.jpg").hardlink_to(victims / "shadow")
    for path in [images, *images.rglob("*")]:
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() else 0o644)
        if path.name != "hard.jpg":
            os.lchown(path, FORMER, FORMER)
    for victim in (victims, victims / "shadow"):
        os.chown(victim, 0, 0)
    return images


def pictures(images: Path, **variables: object) -> Task:
    return role("common", {"posture_images_dir": str(images), "common_pictures_owner": OWNER, **variables},
                tasks_from="pictures")  # fmt: skip


def owned(path: Path) -> tuple[int, int, str]:
    status = path.lstat()
    return status.st_uid, status.st_gid, oct(stat.S_IMODE(status.st_mode))


def test_a_former_releases_pictures_are_taken_over_and_links_lead_nowhere(images: Path, tmp_path: Path) -> None:
    tasks = [pictures(images, posture_images_group=READERS.gr_name)]
    ran = run_play(tmp_path, tasks)
    assert "changed=2" in ran.stdout, ran.stdout
    folders = [images, images / "analyzed_images_from_pi1", images / "dead-letters"]
    assert [owned(folder) for folder in folders] == [(OWNER, READERS.gr_gid, "0o2750")] * 3
    files = [folder / "one file" for folder in folders[1:]]
    assert [owned(file) for file in files] == [(OWNER, READERS.gr_gid, "0o640")] * 2
    victims = [tmp_path / "victims", tmp_path / "victims/shadow"]
    assert [owned(victim) for victim in victims] == [(0, 0, "0o755"), (0, 0, "0o644")]
    assert "changed=0" in run_play(tmp_path, tasks).stdout


@pytest.mark.parametrize(
    "swap",
    [
        "rm -f 'one file'; ln -s '{victims}/shadow' 'one file'",
        "for at in '{images}/dead-letters'; do rm -rf $at; ln -s '{victims}' $at; ln $at/shadow \"$at/one file\"; done",
    ],
)
def test_a_link_that_comes_while_root_is_at_work_is_not_followed(images: Path, tmp_path: Path, swap: str) -> None:
    """The folders' owner may swap anything between the look and the change: a `chown` of ours does, just before."""
    victims, tools = tmp_path / "victims", tmp_path / "tools"
    tools.mkdir()
    chown = tools / "chown"
    chown.write_text(f'#!/bin/sh\n{swap.format(victims=victims, images=images)}\nexec /bin/chown "$@"\n')
    chown.chmod(0o755)
    script = CHECKOUT / "roles/common/files/take_pictures"
    ran = subprocess.run(
        ["sh", script, images, str(OWNER), str(OWNER)],
        env={"PATH": f"{tools}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (images / "dead-letters").is_symlink() or (images / "dead-letters/one file").is_symlink(), ran.stderr
    assert [owned(victim) for victim in (victims, victims / "shadow")] == [(0, 0, "0o755"), (0, 0, "0o644")]


def test_nothing_is_said_of_folders_that_are_right(images: Path) -> None:
    """Over ssh a warning is output as well."""
    script = CHECKOUT / "roles/common/files/take_pictures"
    command: list[str | Path] = ["sh", script, images, str(OWNER), str(OWNER)]
    first, again = (subprocess.run(command, capture_output=True, text=True, check=True) for _ in range(2))
    assert "took over " in first.stdout
    assert (again.stdout, again.stderr) == ("", "")


def test_only_members_of_the_group_read_what_is_made_there_later(images: Path, tmp_path: Path) -> None:
    assert "failed=0" in run_play(tmp_path, [pictures(images, posture_images_group=READERS.gr_name)]).stdout
    picture = images / "analyzed_images_from_pi9/new.jpg"
    save = f"from pathlib import Path; from posture_analyzer import gallery; gallery.save(Path('{picture}'), b'new')"
    python = CHECKOUT / ".venv/bin/python"
    subprocess.run([python, "-c", save], user=OWNER, group=OWNER, extra_groups=[], check=True)
    assert owned(picture) == (OWNER, READERS.gr_gid, "0o640")

    def may_read(*, group: int) -> bool:
        cat = subprocess.run(
            ["cat", picture], user=65534, group=group, extra_groups=[], capture_output=True, check=False
        )
        return cat.stdout == b"new"

    assert may_read(group=READERS.gr_gid)
    assert not may_read(group=65534)


def test_without_a_group_nobody_else_reads(images: Path, tmp_path: Path) -> None:
    assert "failed=0" in run_play(tmp_path, [pictures(images)]).stdout
    assert owned(images / "analyzed_images_from_pi1/one file") == (OWNER, OWNER, "0o640")


def test_a_group_that_is_not_there_is_told_with_how_to_make_it(images: Path, tmp_path: Path) -> None:
    run_play(tmp_path, refusals(tmp_path, {"group": pictures(images, posture_images_group="nobodys-lab")}))
    said = refused(tmp_path)["group"]
    assert said is not None
    assert said.startswith("There is no group nobodys-lab on localhost, as posture_images_group says: make it there")


def test_the_images_entry_point_gives_no_link_away(images: Path, tmp_path: Path) -> None:
    """Docker makes the folder as root's; what a former program put beside may be a link."""
    for path in (images, images / "analyzed_images_from_pi1"):
        os.chown(path, 0, 0)
    os.chown(images, OWNER, OWNER)
    start = [str(CHECKOUT / "docker/start"), "sh", "sh", "-c", "id -u"]
    ran = subprocess.run(
        start, env={**os.environ, "POSTURE_IMAGES_DIR": str(images)}, capture_output=True, text=True, check=True
    )
    assert ran.stdout == f"{OWNER}\n"
    assert owned(images / "analyzed_images_from_pi1")[:2] == (OWNER, OWNER)
    assert owned(tmp_path / "victims")[:2] == (0, 0)
