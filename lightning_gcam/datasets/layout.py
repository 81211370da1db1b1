"""The folders as a dataset's owner publishes them, and what is said where something is missing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lightning_gcam._errors import InputError


@dataclass(frozen=True)
class Layout:
    """What a dataset looks like on the disk.

    Args:
        dataset: its name in `available_datasets()`.
        tree: what `root` holds, a line each.
        source: where to get it, and what to unpack.

    Example:
        >>> layout = Layout("numbers", ("digits/<name>.png",), "Get digits.zip from https://example.org.")
        >>> layout.require(Path("no/such/folder"), "digits")
        Traceback (most recent call last):
            ...
        lightning_gcam._errors.InputError: `root` "no/such/folder" is no folder, or cannot be read. For "numbers" it
        holds:
            digits/<name>.png
        Get digits.zip from https://example.org.
    """

    dataset: str
    tree: tuple[str, ...]
    source: str

    def require(self, root: Path, *relatives: str) -> Path:
        """The first of `relatives` that is there, below `root`.

        Raises:
            InputError: where none is, with the whole layout and its owner's address.
        """
        if not root.is_dir():
            raise InputError(f'`root` "{root}" is no folder, or cannot be read. {self._expected()}')
        found = next((root / each for each in relatives if (root / each).exists()), None)
        if found is None:
            wanted = " or ".join(f'"{each}"' for each in relatives)
            raise InputError(
                f'`root` "{root}" holds no {wanted}.{self._nearby(root, relatives)} {self._expected()}'
            )
        return found

    def missing(self, path: Path, named_by: str) -> InputError:
        """What is raised for a file that a list names and that is not there."""
        return InputError(
            f'"{path}" is not there, and {named_by} names it. Was an archive not unpacked to its end? '
            f"{self._expected()}"
        )

    def unreadable(self, path: Path, error: Exception) -> InputError:
        """What is raised for a file that is there and has another form than its owner gives it."""
        cause = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        return InputError(
            f'"{path}" cannot be read as a file of "{self.dataset}" ({cause}). Was it changed, or cut off? Get it '
            f"again. {self.source}"
        )

    def _expected(self) -> str:
        tree = "\n".join(f"    {each}" for each in self.tree)
        return f'For "{self.dataset}" it holds:\n{tree}\n{self.source}'

    def _nearby(self, root: Path, relatives: tuple[str, ...]) -> str:
        """People give the folder inside of the one that is meant."""
        for outer in list(root.absolute().parents)[:3]:
            if any((outer / each).exists() for each in relatives):
                return f' "{outer}" does: give that one.'
        return ""
