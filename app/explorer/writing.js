// Numbers and symbols as notation.py writes them.

const RAISED = { "-": "⁻", 0: "⁰", 1: "¹", 2: "²", 3: "³", 4: "⁴", 5: "⁵", 6: "⁶", 7: "⁷", 8: "⁸", 9: "⁹" };

function writeNumber(x, digits = 3) {
  if (x === 0) return "0";
  const [mantissa, power] = x.toExponential(digits - 1).split("e");
  const exponent = Number(power);
  if (exponent <= -4 || exponent >= 5) {
    return `${mantissa}×10${[...String(exponent)].map((c) => RAISED[c]).join("")}`.replace("-", "−");
  }
  return x.toFixed(Math.max(digits - 1 - exponent, 0)).replace("-", "−");
}

function writeFixed(x, digits) {
  const text = x.toFixed(digits);
  return (Number(text) === 0 ? text.replace("-", "") : text).replace("-", "−");
}

function write([kind, digits], x) {
  if (x === undefined || x === null || Number.isNaN(x)) return "—";
  if (!Number.isFinite(x)) return x > 0 ? "∞" : "−∞";
  if (kind === "fixed") return writeFixed(x, digits);
  return kind === "percent" ? `${writeFixed(100 * x, digits)} %` : writeNumber(x, digits);
}

const fill = (template, values) => template.replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "—");

const LOWERED = 0.27;
const SMALL = 0.72;

// Runs of text as tspans; nothing in them is taken for markup.
function typeset(node, runs) {
  node.replaceChildren();
  let level = 0;
  for (const [text, at] of runs) {
    const span = svg("tspan", {}, node);
    const shift = { "-1": LOWERED, 0: 0, 1: -0.42 };
    const dy = shift[at] - shift[level];
    if (at !== 0) span.setAttribute("font-size", `${SMALL}em`);
    // An em is the span's own.
    if (dy) span.setAttribute("dy", `${dy / (at === 0 ? 1 : SMALL)}em`);
    span.textContent = text;
    level = at;
  }
  return node;
}

function typesetHtml(node, runs) {
  node.replaceChildren();
  for (const [text, level] of runs) {
    html(level === 0 ? "span" : level > 0 ? "sup" : "sub", {}, node).textContent = text;
  }
  return node;
}
