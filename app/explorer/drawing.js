// Elements and scales.

const SVG = "http://www.w3.org/2000/svg";

function svg(name, attributes = {}, parent = null) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  parent?.append(node);
  return node;
}

function html(name, attributes = {}, parent = null) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  parent?.append(node);
  return node;
}

const colour = (symbol) => `var(--c-${symbol.replaceAll("_", "-")})`;

const DASHES = { solid: "none", dot: "0.1 5", dash: "7 5", dashdot: "7 4 1 4" };

const clamp = (x, low, high) => Math.min(Math.max(x, low), high);

const pixel = (x) => Math.round(x * 10) / 10;

function lineThrough(points) {
  let path = "";
  let pen = "M";
  for (const [x, y] of points) {
    if (!Number.isFinite(y)) {
      pen = "M";
      continue;
    }
    path += `${pen}${pixel(x)} ${pixel(y)}`;
    pen = "L";
  }
  return path;
}

// Round numbers that cut [low, high] into about `count` parts.
function ticks(low, high, count) {
  const raw = (high - low) / count;
  const unit = 10 ** Math.floor(Math.log10(raw));
  const steps = [0.5, 1, 2, 5, 10].map((m) => m * unit);
  const marks = (step) => {
    const found = [];
    for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k++) found.push(k * step);
    return found;
  };
  // An axis with fewer than three numbers says little: then the next finer step.
  let i = steps.findIndex((s) => s >= raw * 0.999);
  while (i > 0 && marks(steps[i]).length < 3) i--;
  return { step: steps[i], values: marks(steps[i]) };
}

function writeTick(x, step) {
  if (x === 0) return "0";
  const places = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  return places > 4 || Math.abs(x) >= 1e5 ? writeNumber(x, 2) : writeFixed(x, places);
}

const linear = (low, high, from, to) => {
  const scale = (x) => from + ((x - low) / (high - low)) * (to - from);
  scale.invert = (p) => low + ((p - from) / (to - from)) * (high - low);
  return scale;
};

const logarithmic = (low, high, from, to) => {
  const inner = linear(Math.log10(low), Math.log10(high), from, to);
  const scale = (x) => inner(Math.log10(x));
  scale.invert = (p) => 10 ** inner.invert(p);
  return scale;
};

function decades(low, high, most) {
  const first = Math.ceil(Math.log10(low) - 1e-9);
  const last = Math.floor(Math.log10(high) + 1e-9);
  const every = Math.max(1, Math.ceil((last - first + 1) / most));
  const found = [];
  for (let d = last; d >= first; d -= every) found.push(10 ** d);
  return found;
}

function writeDecade(x) {
  const d = Math.round(Math.log10(x));
  return d >= -2 && d <= 3 ? String(Number(x.toPrecision(1))) : `10${[...String(d)].map((c) => RAISED[c]).join("")}`;
}
