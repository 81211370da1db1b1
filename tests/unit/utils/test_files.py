"""Files that are whole or not there, at any moment and whatever lies beside them."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from lightning_gcam.utils.files import atomic_write, atomic_write_text, atomic_write_texts, printable

PACKAGE = Path(__file__).resolve().parents[3] / "lightning_gcam"


def test_it_is_on_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, order = tmp_path / "deep" / "file", list[str]()
    synchronize, replace = os.fsync, os.replace
    sizes: list[int] = []

    def fsync(descriptor: int) -> None:
        order.append("fsync")
        sizes.append(os.fstat(descriptor).st_size)
        synchronize(descriptor)

    def rename(source: Any, target: Any) -> None:
        order.append("replace")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", rename)
    with atomic_write(path) as file:
        file.write(b"x" * 1000)
        assert not path.exists()
    assert order == ["fsync", "replace"] and sizes == [1000], "all of it, not only what was flushed by itself"
    assert path.read_bytes() == b"x" * 1000


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_what_fails_leaves_the_old_file_and_no_trace(tmp_path: Path, error: BaseException) -> None:
    (tmp_path / "file").write_text("old")

    def write() -> None:
        with atomic_write_text(tmp_path / "file") as file:
            file.write("new")
            raise error

    with pytest.raises(type(error)):
        write()
    assert (tmp_path / "file").read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_links_are_replaced_or_refused_but_never_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "file").symlink_to(victim)
    with atomic_write_text(tmp_path / "file") as file:
        file.write("new")
    assert (victim.read_text(), (tmp_path / "file").read_text()) == ("mine", "new")
    monkeypatch.setattr("secrets.token_hex", lambda _: "guessed")
    (tmp_path / "file.guessed.part").symlink_to(victim)
    with pytest.raises(FileExistsError), atomic_write_text(tmp_path / "file"):
        pass
    assert victim.read_text() == "mine" and (tmp_path / "file.guessed.part").is_symlink()


def test_others_may_read_it_as_any_file_of_the_user(tmp_path: Path) -> None:
    (tmp_path / "usual").write_text("")
    with atomic_write(tmp_path / "ours"):
        pass
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_text_and_names_of_any_kind(tmp_path: Path) -> None:
    for name in ("x" * 255, "ä" * 127, ".hidden", "two.dots.png"):
        with atomic_write_text(tmp_path / name, newline="") as file:
            file.write("ü \udcff\r\n")
        assert (tmp_path / name).read_bytes() == b"\xc3\xbc \\udcff\r\n"
    assert printable("ü\udcff\n") == "ü\\udcff\\n"


def test_a_file_system_without_fsync_will_do_and_a_broken_disk_will_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    def refuses(code: int) -> Any:
        def fsync(_: int) -> None:
            raise OSError(code, os.strerror(code))

        return fsync

    monkeypatch.setattr(os, "fsync", refuses(errno.EINVAL))
    with atomic_write_text(tmp_path / "file") as file:
        file.write("there")
    monkeypatch.setattr(os, "fsync", refuses(errno.EIO))
    with pytest.raises(OSError, match="Input/output error"), atomic_write_text(tmp_path / "file") as file:
        file.write("lost")
    assert (tmp_path / "file").read_text() == "there"


def test_several_files_are_all_on_disk_before_the_first_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [tmp_path / "first", tmp_path / "second"]
    names: list[str] = []
    replace = os.replace

    def rename(source: Any, target: Any) -> None:
        assert sorted(each.stat().st_size for each in tmp_path.glob("*.part")) in ([1000, 1000], [1000])
        names.append(Path(target).name)
        replace(source, target)

    monkeypatch.setattr(os, "replace", rename)
    with atomic_write_texts(paths) as files:
        for file, sign in zip(files, "ab", strict=True):
            file.write(sign * 1000)
    assert names == ["first", "second"]
    assert [path.read_text() for path in paths] == ["a" * 1000, "b" * 1000]


def test_where_one_of_several_files_finds_no_room_all_stay_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [tmp_path / "first", tmp_path / "second"]
    for path in paths:
        path.write_text("old")
    calls: list[int] = []

    def fsync(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")

    def write() -> None:
        with atomic_write_texts(paths) as files:
            for file in files:
                file.write("new")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="No space left"):
        write()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["first", "second"]
    assert [path.read_text() for path in paths] == ["old", "old"]


def test_no_other_file_of_the_package_writes_and_renames() -> None:
    found = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if re.search(r'\.part"|os\.replace\(', path.read_text(encoding="utf-8"))
    }
    assert found == {"utils/files.py"}


@pytest.mark.parametrize(("write", "content"), [(atomic_write, b"ours"), (atomic_write_text, "ours")])
def test_what_lies_under_the_name_of_the_part_is_not_written_to(
    write: Any, content: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of bytes and of text: a link to elsewhere at the name before the file is whole is an error."""
    elsewhere, path = tmp_path / "elsewhere", tmp_path / "report.html"
    elsewhere.write_text("theirs")
    monkeypatch.setattr("secrets.token_hex", lambda _: "known")
    (tmp_path / "report.html.known.part").symlink_to(elsewhere)

    with pytest.raises(FileExistsError, match="report.html.known.part"), write(path) as file:
        file.write(content)

    assert elsewhere.read_text() == "theirs"
    assert not path.exists()
