"""The last exports.yaml that could be loaded, kept in Dagster's home: what is used while an edited one cannot be."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from tempfile import NamedTemporaryFile

FOLDER = "exports_yaml"


@dataclass(frozen=True)
class Unloadable:
    """exports.yaml as it is now, which cannot be loaded."""

    mistakes: tuple[str, ...]
    since: datetime
    """When that was noticed first."""
    last_good: datetime
    """When the one that is used instead was loaded first."""

    def __str__(self) -> str:
        first = self.mistakes[0].splitlines()[0].removesuffix(" For example:")
        more = f" ({len(self.mistakes) - 1} more)" if self.mistakes[1:] else ""
        return (
            f"exports.yaml cannot be loaded since {_moment(self.since)}: {first}{more} "
            f"The one of {_moment(self.last_good)} is used."
        )


@dataclass(frozen=True)
class Kept:
    """The text of an exports.yaml, its variables unresolved, in a file for its owner alone.

    Several processes keep and read it at once: the file is replaced as a whole, and only by another text.
    """

    file: Path

    @classmethod
    def of(cls, exports: Path, home: Path) -> Kept:
        return cls(home / FOLDER / f"{sha256(str(exports).encode()).hexdigest()[:16]}.yaml")

    @property
    def _mark(self) -> Path:
        """A file that is there as long as exports.yaml cannot be loaded."""
        return self.file.with_suffix(".unloadable")

    def text(self) -> str | None:
        try:
            return self.file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            return None

    def keep(self, text: str) -> None:
        """A home that cannot be written keeps nothing."""
        with suppress(OSError):
            self._mark.unlink(missing_ok=True)
            if self.text() != text:
                self.file.parent.mkdir(mode=0o700, exist_ok=True)
                with NamedTemporaryFile("w", encoding="utf-8", dir=self.file.parent, delete=False) as part:
                    part.write(text)
                Path(part.name).replace(self.file)

    def instead_of(self, mistakes: tuple[str, ...]) -> Unloadable:
        with suppress(OSError):  # it is there already, or cannot be written
            self._mark.touch(exist_ok=False)
        return Unloadable(mistakes, _modified(self._mark), _modified(self.file))


def _modified(file: Path) -> datetime:
    try:
        return datetime.fromtimestamp(int(file.stat().st_mtime), UTC)
    except OSError:
        return datetime.now(UTC).replace(microsecond=0)


def _moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
