"""What can go wrong, as types. Messages say what was found, what was expected and what to do; never the values."""

from collections.abc import Mapping


class GeomixError(ValueError):
    """Base of every error that geomix raises on bad input."""


class ShapeError(GeomixError):
    """The arrays do not have the shapes that the operation needs."""


class PolicyError(GeomixError):
    """An array is not a policy: NaN, +inf, negative or unnormalised probabilities, or no token left."""


class DisjointSupportError(GeomixError):
    """No token has positive probability under both policies, so no geometric mixture exists."""


class OptionError(GeomixError):
    """An option has a value that is not one of those offered."""


class FileError(GeomixError):
    """A file cannot be read as logits."""


class CoverageError(GeomixError):
    """The reward is infinite on a token that the current policy can produce: Φ₁, Φ₂ and progress are undefined."""


class ExpressionError(GeomixError):
    """A statement of one's own cannot be read: the place, what was found there and what was expected."""

    def __init__(self, message: str, code: str, position: int, values: Mapping[str, str]) -> None:
        super().__init__(message)
        self.code, self.position, self.values = code, position, dict(values)
        """What `claims.words.problem` says it from, in each language."""
