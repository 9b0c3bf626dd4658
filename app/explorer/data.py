"""The contract between Python and the browser: one binary message with everything that the explorer shows of a row.

A message is `<header length: uint32, little-endian> <header: JSON, UTF-8, padded with spaces to 8 bytes> <arrays>`.
Each array is little-endian float64 ("f8") or float32 ("f4") and begins at a multiple of 8 bytes from the start of the
arrays. The header, by key:

    version     of this contract; the browser refuses any other
    key         names the content but for alpha and eta: a message with the key on screen redraws nothing
    alpha, eta  the point on screen
    language    for the lang attribute
    arrays      {name: [dtype, first byte, [shape]]}
    curves      {name: [encoding, scale]}: `curves.name` `[A]` over `alpha`; linear y, log exp(y), sinh scale·sinh(y)
    progress    {unit, harm, slope} of exact progress as a sum over `atoms.theta`, `.target`, `.gap`, `.ell` and, unless
                it is ℓ, `.reward`, each `[K]` (`sampling.Atoms`); null where nothing can be learned. Below −harm units
                it is written as a bound
    order       how many samples Lagrange's polynomial takes (`sampling.interpolate`)
    axis        {reach, log} of η
    tokens      names of the tokens, in the order of `tokens.theta`, `tokens.target` (log-probabilities)
    marks       [{symbol, alpha}] on the α track, in order of α
    maxima      [[alpha, snr, sign]] of SNR, highest first
    scalars     {chernoff, ceiling, snr_ceiling, snr_best}, null where there is none
    range       [η_low, η_high] over which the worst progress is taken
    watched     the token, by its place in `tokens`, of which sentences speak; null for none
    numbers     the groups of the strip: lists of {symbol, quantity} and of operators {operator}
    choices     null, or the table of ways to choose α: {columns: [{symbol, quantity}], rows: [{symbol, name: runs,
                values: {quantity: number or null}}]}; the browser adds a row for the current α
    sentences   {panel: variants} below its drawing; a variant is {when, pieces}, and the first one holds whose `when`
                is null or {quantity, from, to} with from ≤ quantity < to (null: no bound). Pieces are runs, and
                {quantity, symbol} for a number that moves
    formats     {quantity: [kind, digits]}: number, fixed, percent (as in `notation`)
    notes       {panel: runs}: why a panel has nothing to draw
    remarks     {panel: runs}: what must be said beside its drawing
    panels      names of the panels, in reading order
    parts       {track, strip}: whether they are shown; below: pixels that the page needs below the explorer; largest:
                of its type, in pixels, where it may be larger than on a page
    symbols     {name: {runs, light, dark, dash, shape}} from `notation`
    meanings    {symbol: what it is, in words}, for the tip over a number of the strip or a column of the table
    words       {name: runs}; spoken: {name: text with {placeholders}} for screen readers
    look        {helper}: the grey of helper lines

Runs are [[text, level]], level −1 below the line, 0 on it, 1 above.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from geomix_app.explorer.sampling import ORDER, Curve, Samples, reaching
from geomix_app.notation import SYMBOLS, runs

VERSION = 4
LIMIT = 1_000_000
"""Bytes that a message may have."""

HARM = 6
"""Units of progress: an update that loses more than so many has no number."""

Runs = Sequence[tuple[str, int]]

PANELS = ("policies", "delta", "snr", "progress")
"""The panels that show everything at once, in reading order."""

NUMBERS: Mapping[str, tuple[dict[str, str], ...]] = {
    "delta": (
        {"symbol": "delta", "quantity": "delta"},
        {"operator": "="},
        {"symbol": "kl_to_theta", "quantity": "kl_to_theta"},
        {"operator": "−"},
        {"symbol": "kl_to_target", "quantity": "kl_to_target"},
    ),
    "log_partition": ({"symbol": "log_partition", "quantity": "log_partition"},),
    "snr": (
        {"symbol": "snr", "quantity": "snr"},
        {"operator": "="},
        {"symbol": "signal", "quantity": "phi1"},
        {"operator": "/ √"},
        {"symbol": "noise", "quantity": "phi2"},
    ),
    "eta_star": ({"symbol": "eta_star", "quantity": "eta_star"},),
    "progress": (
        {"symbol": "progress", "quantity": "progress"},
        {"operator": "="},
        {"symbol": "share", "quantity": "share"},
        {"operator": "×"},
        {"symbol": "ceiling", "quantity": "ceiling"},
    ),
    "ess": ({"symbol": "ess", "quantity": "ess"},),
}
"""The numbers, in formulas: what stands between them is an operator."""

STRIP = ("delta", "snr", "eta_star", "progress", "ess")
"""The groups that the strip shows unless a page chooses others."""

COLUMNS: tuple[dict[str, str], ...] = (
    {"symbol": "alpha", "quantity": "alpha"},
    {"symbol": "kl_to_theta", "quantity": "kl_to_theta"},
    {"symbol": "kl_to_target", "quantity": "kl_to_target"},
    {"symbol": "ess", "quantity": "ess"},
    {"symbol": "snr", "quantity": "snr"},
    {"symbol": "snr_share", "quantity": "snr_share"},
    {"symbol": "exact_gain", "quantity": "exact_gain"},
    {"symbol": "gain_share", "quantity": "gain_share"},
)
"""What the table says of each way to choose α."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A value of α to snap to, under the name of a symbol or of a number ("0", "½", "1")."""

    symbol: str
    alpha: float


@dataclass(frozen=True, slots=True)
class Live:
    """A number that moves with the point, in a sentence, in the colour of a symbol."""

    quantity: str
    symbol: str | None = None


@dataclass(frozen=True, slots=True)
class Sentence:
    """One way to say what a panel shows, for points where low ≤ quantity < high; `quantity` None: everywhere."""

    pieces: Sequence[tuple[str, int] | Live]
    quantity: str | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One way to choose α, in the table: its symbol's colour, its name, and what it costs."""

    symbol: str
    name: Runs
    values: Mapping[str, float | None]


@dataclass(frozen=True, eq=False)
class Scene:
    """Everything that the explorer shows of a row; `samples` is None where the policies have no token in common."""

    alpha: float
    eta: float
    language: str
    tokens: Sequence[str]
    log_theta: np.ndarray
    log_target: np.ndarray
    samples: Samples | None
    marks: Sequence[Mark]
    maxima: Sequence[tuple[float, float, int]]
    chernoff: float | None
    ceiling: float | None
    snr_ceiling: float | None
    notes: Mapping[str, Runs]
    remarks: Mapping[str, Runs]
    words: Mapping[str, Runs]
    spoken: Mapping[str, str]
    helper: str
    meanings: Mapping[str, str] = field(default_factory=dict)
    sentences: Mapping[str, Sequence[Sentence]] = field(default_factory=dict)
    choices: Sequence[Row] = ()
    snr_best: float | None = None
    eta_range: tuple[float, float] = (0.5, 2.0)
    watched: int | None = None
    numbers: Sequence[str] = STRIP
    panels: Sequence[str] = PANELS
    parts: Mapping[str, Any] = field(default_factory=lambda: {"track": True, "strip": True, "below": 24})


def pack(scene: Scene) -> bytes:
    """The scene as a message."""
    blocks = {
        "tokens.theta": _floats(scene.log_theta),
        "tokens.target": _floats(scene.log_target),
        **_sampled(scene.samples),
    }
    arrays, body = {}, b""
    for name, block in blocks.items():
        arrays[name] = [block.dtype.str[1:], len(body), list(block.shape)]
        body += block.tobytes() + b"\0" * (-block.nbytes % 8)
    header = _header(scene) | {"arrays": arrays}
    content = json.dumps(header, ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True)
    key = hashlib.blake2b(content.encode("utf-8") + body, digest_size=12).hexdigest()
    now = {"version": VERSION, "key": key, "alpha": scene.alpha, "eta": scene.eta}
    text = json.dumps(now | header, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8")
    text += b" " * (-(len(text) + 4) % 8)
    return struct.pack("<I", len(text)) + text + body


def unpack(message: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """(header, arrays) of a message, as the browser reads it."""
    (length,) = struct.unpack_from("<I", message)
    header: dict[str, Any] = json.loads(message[4 : 4 + length].decode("utf-8"))
    start = 4 + length
    arrays = {
        name: np.frombuffer(message, f"<{dtype}", math.prod(shape), start + first).reshape(shape)
        for name, (dtype, first, shape) in header["arrays"].items()
    }
    return header, arrays


def _header(scene: Scene) -> dict[str, Any]:
    samples = scene.samples
    atoms = samples.atoms if samples else None
    return {
        "language": scene.language,
        "curves": _codes(samples.curves) if samples else {},
        "progress": {"unit": atoms.unit, "harm": HARM, "slope": atoms.slope} if atoms else None,
        "order": ORDER,
        "axis": {"reach": reaching(samples.reach, scene.eta), "log": samples.logarithmic} if samples else None,
        "tokens": list(scene.tokens),
        "marks": [{"symbol": m.symbol, "alpha": m.alpha} for m in scene.marks],
        "maxima": [list(m) for m in scene.maxima],
        "scalars": {
            "chernoff": _finite(scene.chernoff),
            "ceiling": _finite(scene.ceiling),
            "snr_ceiling": _finite(scene.snr_ceiling),
            "snr_best": _finite(scene.snr_best),
        },
        "range": list(scene.eta_range),
        "watched": scene.watched,
        "numbers": [list(NUMBERS[name]) for name in scene.numbers],
        "choices": _table(scene) if scene.choices else None,
        "sentences": {name: [_written(s) for s in variants] for name, variants in scene.sentences.items()},
        "formats": _formats(scene),
        "notes": {name: list(note) for name, note in scene.notes.items()},
        "remarks": {name: list(remark) for name, remark in scene.remarks.items()},
        "panels": list(scene.panels),
        "parts": dict(scene.parts),
        "symbols": {
            name: {"runs": runs(s.html), "light": s.light, "dark": s.dark, "dash": s.dash, "shape": s.shape}
            for name, s in SYMBOLS.items()
        },
        "meanings": dict(scene.meanings),
        "words": {name: list(text) for name, text in scene.words.items()},
        "spoken": dict(scene.spoken),
        "look": {"helper": scene.helper},
    }


def _table(scene: Scene) -> dict[str, Any]:
    # Where nothing can be learned, and samples are worth nothing, the columns that say so would be empty.
    known = {q for r in scene.choices for q, x in r.values.items() if x is not None}
    known -= set() if scene.samples and "ess" in scene.samples.curves else {"ess"}
    return {
        "columns": [c for c in COLUMNS if c["quantity"] in known],
        "rows": [
            {"symbol": r.symbol, "name": list(r.name), "values": {q: _finite(x) for q, x in r.values.items()}}
            for r in scene.choices
        ],
    }


def _written(sentence: Sentence) -> dict[str, Any]:
    bound = {"quantity": sentence.quantity, "from": sentence.low, "to": sentence.high}
    pieces = [{"quantity": p.quantity, "symbol": p.symbol} if isinstance(p, Live) else list(p) for p in sentence.pieces]
    return {"when": None if sentence.quantity is None else bound, "pieces": pieces}


def _sampled(samples: Samples | None) -> dict[str, np.ndarray]:
    if samples is None:
        return {}
    blocks = {"alpha": _floats(samples.alpha)}
    blocks |= {f"curves.{name}": _floats(curve.values) for name, curve in samples.curves.items()}
    atoms = samples.atoms
    if atoms is not None:
        columns = {"theta": atoms.theta, "target": atoms.target, "gap": atoms.gap, "ell": atoms.ell}
        columns |= {} if np.array_equal(atoms.reward, atoms.ell) else {"reward": atoms.reward}
        blocks |= {f"atoms.{name}": _floats(column) for name, column in columns.items()}
    return blocks


def _formats(scene: Scene) -> dict[str, tuple[str, int]]:
    """How each quantity is written: the same decimals all along a curve, so that digits stand still as they change."""
    found: dict[str, tuple[str, int]] = {"alpha": ("fixed", 4), "exponent": ("fixed", 3)}
    found |= dict.fromkeys(("ess", "share", "snr_share", "gain_share"), ("percent", 1))
    found |= dict.fromkeys(("eta", "phi1", "phi2", "eta_star", "exact_step", "snr_ceiling", "ell"), ("number", 3))
    found |= {"hundred": ("fixed", 1), "probability": ("percent", 2), "watched": ("percent", 2)}
    curves = scene.samples.curves if scene.samples else {}

    def largest(*names: str) -> float:
        return max((float(np.abs(curves[n].values).max()) for n in names if n in curves), default=1.0)

    divergences = _decimals(largest("delta", "kl_to_theta", "kl_to_target"))
    found |= dict.fromkeys(("delta", "kl_to_theta", "kl_to_target", "chernoff", "log_partition"), divergences)
    found["snr"] = _decimals(largest("snr"))
    unit = scene.samples.atoms.unit if scene.samples and scene.samples.atoms else 1.0
    gains = ("progress", "quadratic", "exact_gain", "worst", "ceiling")
    found |= dict.fromkeys(gains, _decimals(unit))
    return found


def _decimals(largest: float) -> tuple[str, int]:
    """Decimals that give the largest value three digits or four; a power of ten where that would take over six."""
    if not 0 < largest < 1e5:
        return "number", 3
    places = max(0, math.ceil(2.5 - math.log10(largest)))
    return ("fixed", places) if places <= 6 else ("number", 3)


def _codes(curves: Mapping[str, Curve]) -> dict[str, list[Any]]:
    return {name: [curve.encoding, curve.scale] for name, curve in curves.items()}


def _floats(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values, "<f8")


def _finite(x: float | None) -> float | None:
    return x if x is not None and math.isfinite(x) else None
