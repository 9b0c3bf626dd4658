"""Every symbol and term: its LaTeX, its formula, and where it is used. Names and meanings: text/*/glossary.toml."""

from __future__ import annotations

from dataclasses import dataclass

from geomix_app.catalogue import LANGUAGES, catalogue
from geomix_app.notation import SYMBOLS


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the glossary."""

    name: str
    """Key of its words; that of a quantity of `geomix_core.claims.quantities` where it is one."""
    symbols: tuple[str, ...] = ()
    """Keys of `notation.SYMBOLS` that stand for it."""
    formula: str = ""
    """Its definition in LaTeX, from the relation on."""
    sections: str = ""
    """Of the document; none for what the document does not have."""
    pages: tuple[str, ...] = ()
    own_latex: str = ""
    """How it is written where no figure has a symbol for it."""

    @property
    def latex(self) -> str:
        return self.own_latex or SYMBOLS[self.symbols[0]].latex


_ALL = ("policies", "geodesic", "choosing", "progress")
_PATHS, _CHOICE, _STEPS = ("geodesic",), ("choosing", "validate"), ("progress",)

ENTRIES = (
    Entry("theta", ("theta",), sections="§1.1", pages=_ALL),
    Entry("target", ("target",), sections="§1.1", pages=_ALL),
    Entry("q", ("q", "e_geodesic"), r"=\pi_\theta^\alpha\,\pi_t^{1-\alpha}/Z(\alpha)", "§4.2", _ALL),
    Entry("alpha", ("alpha", "here"), sections="§4.2", pages=_ALL),
    Entry("eta", ("eta",), sections="§1.2", pages=("choosing", "progress")),
    Entry("reference", (), "", "§1.1", ("policies", "choosing"), r"\pi_{\mathrm{ref}}"),
    Entry("uniform", ("uniform",), r"=1/V", "§6.5", ("claims",), "u"),
    Entry("reward", (), r"=\log\pi_t-\log\pi_{\mathrm{ref}}", "§1.1", ("policies", "progress"), "r"),
    Entry("ell", ("ell",), r"=\log\pi_t-\log\pi_\theta", "§5.3", ("policies", "geodesic")),
    Entry("weight", (), r"\in\{\pi_\theta/q,\;q/\pi_\theta\}", "§1.2", ("choosing", "progress"), "w"),
    Entry("tilt", (), r"=w\,r", "§2.2", ("choosing", "progress"), "h"),
    Entry("updated", ("updated",), r"\propto\pi_\theta\,e^{\eta h}", "§1.2", ("derivation", "progress")),
    Entry("samples", (), "", "§1.2, §7.3", ("derivation", "claims"), "N"),
    Entry("vocabulary", (), "", "§1.1", ("policies", "validate"), "V"),
    Entry("kl", (), r"=\sum p\log(p/q)", "§5.2", _ALL, r"\mathrm{KL}(p\|q)"),
    Entry(
        "kl_to_theta", ("kl_to_theta",), r"=(1-\alpha)\Delta(\alpha)-\log Z(\alpha)", "§5.2", ("geodesic", "choosing")
    ),
    Entry(
        "kl_to_target", ("kl_to_target",), r"=-\alpha\Delta(\alpha)-\log Z(\alpha)", "§5.2", ("geodesic", "choosing")
    ),
    Entry("tv", (), r"=\tfrac12\sum|p-q|", "", ("policies",), r"\mathrm{TV}(p,q)"),
    Entry("chi2", (), r"=\sum(p-q)^2/q", "", ("policies", "choosing"), r"\chi^2(p\|q)"),
    Entry("entropy", (), r"=-\sum p\log p", "", ("policies",), "H(p)"),
    Entry("largest", (), "", "§6.5", ("claims",), r"\max p"),
    Entry("z", ("log_partition",), r"=\sum\pi_\theta^\alpha\pi_t^{1-\alpha}", "§4.2", _PATHS, r"Z(\alpha)"),
    Entry(
        "delta", ("delta",), r"=\mathrm{KL}(q_\alpha\|\pi_\theta)-\mathrm{KL}(q_\alpha\|\pi_t)", "§5.3", ("choosing",)
    ),
    Entry("variance", (), r"=-\Delta'(\alpha)", "§5.3", ("derivation",), r"\mathrm{Var}_{q_\alpha}[\ell]"),
    Entry("ess", ("ess",), r"=1/\mathbb{E}_{q_\alpha}[(\pi_\theta/q_\alpha)^2]", "", ("geodesic", "choosing")),
    Entry("alpha_kl", ("alpha_kl",), r":\ \Delta(\alpha_{\mathrm{KL}})=0", "§5.2, §5.3", ("geodesic", *_CHOICE)),
    Entry("chernoff", (), r"=-\min_\alpha\log Z(\alpha)", "", ("geodesic", "choosing"), "C"),
    Entry("bhattacharyya", (), r"=-\log\sum\sqrt{\pi_\theta\pi_t}", "", ("claims",), "B"),
    Entry("alpha_snr", ("alpha_snr",), r"=\arg\max_\alpha\mathrm{SNR}(\alpha)", "§5.1", _CHOICE),
    Entry(
        "alpha_wald",
        ("alpha_wald",),
        r"=\arg\max_\alpha\min_\eta\mathrm{Progress}",
        "§3.3",
        ("choosing", "derivation"),
    ),
    Entry(
        "progress",
        ("progress",),
        r"=\mathbb{E}_{\pi_t}[\log\pi_{\theta'}-\log\pi_\theta]",
        "§1.3",
        _STEPS,
    ),
    Entry(
        "phi1",
        ("signal", "phi1"),
        r"=\mathbb{E}_{\pi_t}[h]-\mathbb{E}_{\pi_\theta}[h]",
        "§2.2",
        ("choosing", "progress"),
    ),
    Entry("phi2", ("noise", "phi2"), r"=\mathrm{Var}_{\pi_\theta}[h]", "§2.2", ("choosing", "progress")),
    Entry(
        "kappa3",
        (),
        r"=\mathbb{E}_{\pi_\theta}[(h-\mathbb{E}_{\pi_\theta}h)^3]",
        "§2.2",
        ("derivation", "claims"),
        r"\kappa_3",
    ),
    Entry("first_order", ("first_order",), "", "§2.2", _STEPS),
    Entry("second_order", ("second_order",), "", "§2.2", _STEPS),
    Entry("eta_star", ("eta_star",), "", "§3.4", _STEPS),
    Entry("eta_exact", (), r"=\arg\max_\eta\mathrm{Progress}", "", _STEPS, r"\eta_{\mathrm{exact}}"),
    Entry("best_progress", ("exact_gain",), "", "", ("choosing", "progress")),
    Entry("ceiling", ("ceiling",), "", "", ("policies", "progress")),
    Entry("snr", ("snr",), r"=|\Phi_1|/\sqrt{\Phi_2}", "§3.5", ("choosing",)),
    Entry("snr_ceiling", ("snr_ceiling",), r"=\sqrt{\chi^2(\pi_t\|\pi_\theta)}", "", ("choosing",)),
    Entry("optimum", ("optimum",), "", "", ("lab",)),
    Entry("logarithmic_mean", ("logarithmic_mean",), "", "", ("lab",)),
    Entry("defensive", ("defensive",), "", "", ("lab",)),
    Entry("m", ("m_geodesic",), r"=s\,\pi_\theta+(1-s)\,\pi_t", "", _PATHS),
    Entry("arc", ("fisher_rao",), "", "§4.2", _PATHS),
    Entry("fisher_rao", (), r"=2\arccos\sum\sqrt{\pi_\theta\pi_t}", "", _PATHS, r"d_{\mathrm{FR}}"),
    Entry("e_length", (), r"=\int_0^1\sqrt{\mathrm{Var}_{q_\alpha}[\ell]}\,d\alpha", "", _PATHS, "L_e"),
    Entry("m_length", (), r"=\int_0^1\sqrt{\sum(\pi_t-\pi_\theta)^2/m_s}\,ds", "", _PATHS, "L_m"),
)
"""In the order in which the derivation needs them."""


BY_NAME = {entry.name: entry for entry in ENTRIES}
BY_SYMBOL = {symbol: entry for entry in ENTRIES for symbol in entry.symbols}


def matching(wanted: str) -> tuple[Entry, ...]:
    """The entries whose symbol, name or meaning, in any language, has these words; all for none."""
    words = wanted.casefold().split()

    def told(entry: Entry) -> str:
        texts = [catalogue(lang).plain(f"glossary.{entry.name}.{k}") for lang in LANGUAGES for k in ("name", "means")]
        return " ".join([entry.name, entry.latex, entry.sections, *texts]).casefold()

    return tuple(entry for entry in ENTRIES if all(word in told(entry) for word in words))
