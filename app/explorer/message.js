// The explorer is one ES module, put together from the files that component.py lists. It draws what Python computed: its
// only mathematics is interpolation along α, q of the top tokens, and exact progress, a sum over atoms. data.py documents
// the message.

const VERSION = 4;
const HUGE = 1e300; // tilts are clamped there, as in tilts.py

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
    if (this.progress) {
      // While η is dragged α stays.
      if (this.last?.alpha !== alpha) this.last = { alpha, ...this.learning(alpha, found.exact_step) };
      found.tilts = this.last.tilts;
      if ("exact_step" in found) {
        Object.assign(found, this.last.best);
        if (ceiling) found.gain_share = found.exact_gain / ceiling;
      }
      found.progress = this.gain(found.tilts, eta);
      found.quadratic = this.quadratic(found, eta);
      found.worst = this.worst(found.tilts);
      if (ceiling) found.share = found.progress / ceiling;
    }
    return found;
  }

  curve(name, alpha) {
    const along = stencil(this.a.alpha, alpha, this.order);
    return decoded(weighted(this.a[`curves.${name}`], along), this.curves[name]);
  }

  // Tilts h of the atoms at one α, and their means: what `gain` is made of.
  tilts(alpha) {
    const atoms = (name) => this.a[`atoms.${name}`];
    const [theta, target, gap, ell] = ["theta", "target", "gap", "ell"].map(atoms);
    const reward = atoms("reward") ?? ell;
    const logZ = this.curve("log_partition", alpha);
    const { slope } = this.progress;
    const h = new Float64Array(theta.length);
    let [mean, aim, signal, low, high] = [0, 0, 0, Infinity, -Infinity];
    for (let k = 0; k < h.length; k++) {
      h[k] = reward[k] * Math.min(Math.exp(slope * ((1 - alpha) * ell[k] - logZ)), HUGE);
      mean += theta[k] * h[k];
      aim += target[k] * h[k];
      signal += gap[k] * h[k];
      low = Math.min(low, h[k]);
      high = Math.max(high, h[k]);
    }
    return { h, mean, aim, signal, high, reach: Math.max(high - mean, mean - low) };
  }

  // Exact progress, ηE_t[h] − log E_θ[exp(ηh)]; where ηh is small, ηΦ₁ − log E_θ[exp(η(h − E_θ h))] keeps its digits.
  gain({ h, mean, aim, signal, high, reach }, eta) {
    const theta = this.a["atoms.theta"];
    let sum = 0;
    if (eta * reach <= 1) {
      for (let k = 0; k < h.length; k++) sum += theta[k] * Math.expm1(eta * (h[k] - mean));
      return eta * signal - Math.log1p(sum);
    }
    const top = eta * high;
    for (let k = 0; k < h.length; k++) sum += theta[k] * Math.exp(eta * h[k] - top);
    const found = eta * aim - top - Math.log(sum);
    return Number.isNaN(found) ? -Infinity : found; // of two infinities
  }

  // What does not depend on η: the tilts, and where progress is largest, near the interpolated step.
  learning(alpha, near) {
    const tilts = this.tilts(alpha);
    if (near === undefined) return { tilts };
    const step = this.best(tilts, near);
    return { tilts, best: { exact_step: step, exact_gain: this.gain(tilts, step) } };
  }

  // The step of largest progress, near the interpolated one: d/dη = E_t[h] − E_θ'[h] falls, by −Var_θ'[h] per η.
  best({ h, aim, high }, near) {
    const theta = this.a["atoms.theta"];
    let [low, up, eta, last] = [0, Infinity, near, Infinity];
    for (let i = 0; i < 60; i++) {
      let [mass, first, second] = [0, 0, 0];
      for (let k = 0; k < h.length; k++) {
        const w = theta[k] * Math.exp(eta * (h[k] - high));
        const away = h[k] - aim;
        mass += w;
        first += w * away;
        second += w * away * away;
      }
      const slope = -first / mass;
      if (slope > 0) low = eta;
      else up = eta;
      const step = slope / (second / mass - slope * slope);
      let next = eta + step;
      if (Math.abs(step) <= 1e-9 * eta) return next;
      // Where one token takes over all at once, Newton's steps creep or leap.
      const well = next > low && next < Math.min(up, 2 * eta) && Math.abs(step) <= last / 2;
      if (!well) next = up === Infinity ? 2 * eta : (low + up) / 2;
      last = Math.abs(next - eta);
      eta = next;
    }
    return eta;
  }

  // The lower of the progress at both ends of the range of η: progress is concave between them.
  worst(tilts) {
    return Math.min(...this.range.map((eta) => this.gain(tilts, eta)));
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
