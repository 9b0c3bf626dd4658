"""Geometric mixtures of policies: the mathematics and the solvers behind geomix. Knows nothing of the screen.

    batch = PolicyBatch.from_logits(theta, target)          # [B, V], numpy or torch
    result = solve_alpha(batch, criterion="kl_symmetry")    # .alpha [B], .status, .residual, .bracket

Where things are:
    policies      PolicyBatch: validated log-probabilities, supports, ℓ, reward
    transforms    temperature, top-k, top-p, explicit smoothing
    geodesics     e-geodesic (the geometric family), m-geodesic, Fisher–Rao arc, their lengths; log Z, Δ, Var
    divergences   KL, Rényi, χ², total variation, entropy, Bhattacharyya, effective sample size
    progress      Φ₁, Φ₂, κ₃, SNR, step sizes, exact progress, the updated policy (tilts: how they are computed)
    simplex       the distributions of largest SNR among all, in closed form
    criteria      solve_alpha: KL symmetry in both readings, SNR, Wald; Chernoff information; the listing corrected
    solvers       batched root and maximum finding
    logits        solve_logits: α_KL straight from raw logits of any size, with a bound a row; certificates: verify it
    logit_maxima  maximise_logits: α_SNR and α_Wald likewise; logit_curves: everything that is drawn of a row
    compression   one row of any vocabulary as a few thousand atoms, for curves
    claims        what the document says, what a computation says of it, and a search for counterexamples
    census        how often each claim holds
    scenarios     seeded families of policies, and the bundled real rows
    files         logits from strangers' files, read or memory-mapped safely (formats, file_words); kinds: what they are
    topk          top-k log-probabilities as servers report them (json_files); tails: intervals over what they did not;
                  intervals: the table of them; topk_report: what is in such files; token_names: names of tokens
    inspection    what is in files; results: a table of all rows, solved and verified; result_files: written and read
    datasets      rows that somebody brought; found: what they were taken for; spool, served_files: where they lie
    overview      what a table says as a whole; fixed_alpha: what one α for all rows loses; mixture_files: q as a file
    crosscheck    a sample of a table solved again by independent code
    curves        what is drawn of one row; summary: what is said of it
    status        what a solver says of a row; errors: what can go wrong
"""

from geomix_core.criteria import AlphaResult, chernoff_information, optimal_sampling_distribution, solve_alpha
from geomix_core.errors import (
    CoverageError,
    DisjointSupportError,
    FileError,
    GeomixError,
    OptionError,
    PolicyError,
    ShapeError,
)
from geomix_core.geodesics import e_geodesic, fisher_rao_arc, m_geodesic, path_lengths, tilted_moments
from geomix_core.policies import PolicyBatch
from geomix_core.progress import exact_progress, exact_step, learning_signal, updated_policy
from geomix_core.status import Status

__all__ = [
    "AlphaResult",
    "CoverageError",
    "DisjointSupportError",
    "FileError",
    "GeomixError",
    "OptionError",
    "PolicyBatch",
    "PolicyError",
    "ShapeError",
    "Status",
    "chernoff_information",
    "e_geodesic",
    "exact_progress",
    "exact_step",
    "fisher_rao_arc",
    "learning_signal",
    "m_geodesic",
    "optimal_sampling_distribution",
    "path_lengths",
    "solve_alpha",
    "tilted_moments",
    "updated_policy",
]
