// The explorer is one ES module, put together from the files that component.py lists. It draws what Python computed:
// its only mathematics is interpolation, and the exponential of the top tokens. data.py documents the message.

const VERSION = 2;

function decode(data) {
  const bytes = data.slice(); // an own buffer, so that arrays are aligned
  const length = new DataView(bytes.buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(4, 4 + length)));
  if (header.version !== VERSION) {
    throw new Error(`The explorer reads version ${VERSION} of its data and got version ${header.version}.`);
  }
  const arrays = {};
  for (const [name, [dtype, first, shape]] of Object.entries(header.arrays)) {
    const size = shape.reduce((a, b) => a * b, 1);
    arrays[name] = new (dtype === "f4" ? Float32Array : Float64Array)(bytes.buffer, 4 + length + first, size);
  }
  return { header, arrays };
}

// Lagrange's weights at x on the samples around it (sampling.interpolate): {start, weights}.
function stencil(nodes, x, most) {
  const order = Math.min(most, nodes.length);
  let low = 0;
  let high = nodes.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (nodes[middle] <= x) low = middle;
    else high = middle;
  }
  const start = Math.max(0, Math.min(low - (order >> 1) + 1, nodes.length - order));
  const weights = new Float64Array(order).fill(1);
  for (let j = 0; j < order; j++) {
    for (let k = 0; k < order; k++) {
      if (k !== j) weights[j] *= (x - nodes[start + k]) / (nodes[start + j] - nodes[start + k]);
    }
  }
  return { start, weights };
}

function weighted(values, { start, weights }, stride = 1, offset = 0) {
  let sum = 0;
  for (let j = 0; j < weights.length; j++) sum += weights[j] * values[(start + j) * stride + offset];
  return sum;
}

function decoded(y, [encoding, scale]) {
  if (encoding === "log") return Math.exp(y);
  return encoding === "sinh" ? scale * Math.sinh(y) : y;
}

// The numbers of a row at any α and η.
class Model {
  constructor(data) {
    const { header, arrays } = decode(data);
    Object.assign(this, header);
    this.a = arrays;
  }

  has(name) {
    return name in this.curves;
  }

  // Every quantity at (α, η); one that is undefined is absent.
  point(alpha, eta) {
    const { ceiling, snr_best: most } = this.scalars;
    const found = { alpha, eta, ceiling };
    if (!this.a.alpha) return found;
    const along = stencil(this.a.alpha, alpha, this.order);
    for (const name in this.curves) {
      found[name] = decoded(weighted(this.a[`curves.${name}`], along), this.curves[name]);
    }
    if ("ess" in found) found.hundred = 100 * found.ess;
    if ("snr" in found && most) found.snr_share = Math.abs(found.snr) / most;
    if (this.watched !== null) found.watched = Math.exp(this.mixture(alpha, found.log_partition)[this.watched]);
    if (this.table) {
      const row = this.progressRow(alpha);
      found.row = row;
      found.progress = this.progress(row, eta);
      found.quadratic = this.quadratic(found, eta);
      found.worst = this.worst(row);
      if (ceiling) found.share = found.progress / ceiling;
      const best = stencil(this.a["table.alpha"], alpha, this.order);
      for (const name in this.best) found[name] = decoded(weighted(this.a[`best.${name}`], best), this.best[name]);
      if (ceiling && "exact_gain" in found) found.gain_share = found.exact_gain / ceiling;
    }
    return found;
  }

  curve(name, alpha) {
    const along = stencil(this.a.alpha, alpha, this.order);
    return decoded(weighted(this.a[`curves.${name}`], along), this.curves[name]);
  }

  // Exact progress along η at one α, to be read by `progress`.
  progressRow(alpha) {
    const columns = this.a["table.t"].length;
    const along = stencil(this.a["table.alpha"], alpha, this.order);
    const values = new Float64Array(columns);
    for (let i = 0; i < columns; i++) values[i] = weighted(this.a["table.values"], along, columns, i);
    const ends = stencil(this.a["table.ends"], alpha, this.order);
    return { values, end: Math.exp(weighted(this.a["table.end"], ends)) };
  }

  progress({ values, end }, eta) {
    const { unit, bend } = this.table;
    const t = Math.asinh((eta / end) * Math.sinh(bend)) / bend;
    if (t > 1) return -Infinity;
    return unit * Math.sinh(weighted(values, stencil(this.a["table.t"], t, this.order)));
  }

  // The lower of the progress at both ends of the range of η: progress is concave between them.
  worst(row) {
    return Math.min(...this.range.map((eta) => this.progress(row, eta)));
  }

  // The exact optimum's gain at any α; none where it is infinite.
  gain(alpha) {
    if (!("exact_gain" in this.best)) return NaN;
    const along = stencil(this.a["table.alpha"], alpha, this.order);
    return decoded(weighted(this.a["best.exact_gain"], along), this.best.exact_gain);
  }

  quadratic({ phi1, phi2 }, eta) {
    return eta * phi1 - 0.5 * eta * eta * phi2;
  }

  // log q_α of the top tokens, exact: −∞ outside the common support, none where there is no family.
  mixture(alpha, logPartition) {
    const theta = this.a["tokens.theta"];
    const target = this.a["tokens.target"];
    return Array.from(theta, (x, i) => {
      const outside = x === -Infinity || target[i] === -Infinity;
      return outside || logPartition === undefined ? -Infinity : alpha * x + (1 - alpha) * target[i] - logPartition;
    });
  }
}
