"""What each error code means: `meshd/errors.toml`, the one place where codes are listed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """One code: what it means in general, without the values of one case."""

    code: str
    title: str
    cause: str  # What usually causes it.
    fix: str

    def render(self) -> str:
        """Return the lines that `meshd explain CODE` prints."""
        return f"{self.code}: {self.title}\n  typical cause: {self.cause}\n  fix: {self.fix}"


def meanings() -> dict[str, Meaning]:
    """Return the meaning of every code, in the order of the codes."""
    import tomllib
    from importlib import resources

    text = resources.files("meshd").joinpath("errors.toml").read_text(encoding="utf-8")
    return {code: Meaning(code=code, **entry) for code, entry in tomllib.loads(text).items()}
