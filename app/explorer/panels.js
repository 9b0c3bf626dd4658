class TokensPanel extends Panel {
  constructor(app, name) {
    super(app, name);
    this.titled("title_policies");
    // The pair alone, or with the mixture between them.
    this.mixed = name !== "pair" && Boolean(app.model.a.alpha);
    this.key("target", "dot");
    if (this.mixed) this.key("q", "dot");
    this.key("theta", "dot");
    this.choice("scale", [["linear", "linear"], ["log", "log"]], this.model.tokens.length > 8 ? "log" : "linear");
    if (!this.svg) {
      // Without a family the two policies are still worth seeing.
      this.box.replaceChildren();
      this.svg = svg("svg", { "aria-hidden": "true" }, this.box);
    }
  }

  layout(width, height) {
    const { a } = this.model;
    const u = this.app.unit;
    // As many tokens as there is room for, the most probable ones.
    const tokens = this.model.tokens.slice(0, Math.max(3, Math.floor((height - 2 * u) / (1.3 * u))));
    const theta = a["tokens.theta"];
    const target = a["tokens.target"];
    this.frame(width, height, { left: 1, top: 0.2, right: 1.2 });
    const names = tokens.map((token) => {
      const label = svg("text", { class: "token", "text-anchor": "end" }, this.still);
      label.textContent = token;
      return label;
    });
    this.left = Math.min(0.38 * width, Math.max(...names.map((n) => n.getComputedTextLength())) + 1.4 * u);
    const shown = [theta, target].flatMap((p) => [...p.slice(0, tokens.length)]).filter(Number.isFinite).map(Math.exp);
    if (this.app.settings.scale === "log") {
      const low = Math.max(Math.min(...shown) * 0.75, 1e-12);
      this.x = logarithmic(low, 1, this.left, this.right);
      this.floor = Math.log(low);
      const labels = decades(low, 1, width / (6 * u)).map((v) => [v, writeDecade(v)]);
      this.horizontal(this.x, labels, { grid: true });
    } else {
      const { step, values } = ticks(0, Math.max(...shown), 5);
      this.x = linear(0, Math.max(...shown) * 1.03, this.left, this.right);
      this.floor = -Infinity;
      this.horizontal(this.x, values.map((v) => [v, writeTick(v, step)]), { grid: true });
    }
    const pitch = (this.bottom - this.top) / tokens.length;
    this.rows = tokens.map((_, i) => {
      const y = this.top + (i + 0.5) * pitch;
      names[i].setAttribute("x", this.left - 0.7 * u);
      names[i].setAttribute("y", y);
      names[i].setAttribute("dy", "0.34em");
      svg("path", { class: "guide", d: `M${this.left} ${Math.round(y) + 0.5}H${this.right}` }, this.still);
      const ends = [target[i], theta[i]].map((x) => this.place(x));
      if (ends.every((x) => x !== null)) {
        svg("path", { class: "span", d: `M${ends[0]} ${Math.round(y) + 0.5}H${ends[1]}` }, this.still);
      }
      ["target", "theta"].forEach((symbol, k) => {
        if (ends[k] !== null) {
          const dot = this.dot(symbol, 0.36, this.still);
          dot.setAttribute("cx", ends[k]);
          dot.setAttribute("cy", y);
        }
      });
      const q = this.mixed ? this.dot("q", 0.47) : null;
      q?.setAttribute("cy", y);
      return q;
    });
    this.pitch = pitch;
  }

  // The token under the pointer.
  probe(x, y) {
    const i = Math.floor((y - this.top) / this.pitch);
    if (i < 0 || i >= this.rows.length) return null;
    const [theta, target] = ["tokens.theta", "tokens.target"].map((name) => this.model.a[name][i]);
    const lines = [[null, [[this.model.tokens[i], 0]], ""], this.told("target", "probability", Math.exp(target))];
    if (this.mixed) {
      const { alpha, log_partition: log } = this.app.point;
      lines.push(this.told("q", "probability", Math.exp(this.model.mixture(alpha, log)[i])));
    }
    lines.push(this.told("theta", "probability", Math.exp(theta)), this.told("ell", "ell", target - theta));
    return { x, y: this.top + (i + 0.5) * this.pitch, lines };
  }

  place(logP) {
    if (logP === -Infinity || logP < this.floor) return null;
    return pixel(this.x(Math.exp(logP)));
  }

  update(point) {
    this.said?.update(point);
    if (!this.mixed) return;
    const q = this.model.mixture(point.alpha, point.log_partition);
    this.rows.forEach((dot, i) => {
      const x = this.place(q[i]);
      dot.setAttribute("visibility", x === null ? "hidden" : "visible");
      if (x !== null) dot.setAttribute("cx", x);
    });
  }
}

// Three tokens: the triangle of all policies, where q can be dragged along its path.
class SimplexPanel extends Panel {
  constructor(app, name) {
    super(app, name);
    this.titled("title_simplex");
    this.key("target", "dot");
    this.key("q", "dot");
    this.key("theta", "dot");
    if (this.svg) {
      this.svg.removeAttribute("aria-hidden");
      app.drag(this.box, { target: (event) => this.nearest(event), within: (event) => this.close(event) });
    }
  }

  layout(width, height) {
    const u = this.app.unit;
    const { tokens } = this.model;
    this.frame(width, height);
    // The numbers stand beside the triangle, or below it where the panel is tall.
    const below = height > 0.72 * width;
    const side = below
      ? Math.min(width - 8 * u, (height - 13 * u) / 0.866)
      : Math.min((height - 2.6 * u) / 0.866, width - 23 * u);
    const left = below ? (width - side) / 2 : 3.2 * u;
    const base = below ? 1.8 * u + side * 0.866 : (height + side * 0.866) / 2;
    this.corners = [[left + side / 2, base - side * 0.866], [left, base], [left + side, base]];
    const [top, west, east] = this.corners;
    svg("path", { class: "triangle", d: `M${top}L${west}L${east}Z` }, this.still);
    for (const k of [0.25, 0.5, 0.75]) {
      for (let i = 0; i < 3; i++) {
        const along = (j) => this.corners[i].map((c, d) => c * (1 - k) + this.corners[j][d] * k);
        svg("path", { class: "grid", d: `M${along((i + 1) % 3)}L${along((i + 2) % 3)}` }, this.still);
      }
    }
    const at = [
      [top[0], top[1] - 0.5 * u, "middle"],
      [west[0] - 0.4 * u, base + 0.2 * u, "end"],
      [east[0] + 0.4 * u, base + 0.2 * u, "start"],
    ];
    tokens.forEach((token, i) => {
      svg(
        "text",
        { x: at[i][0], y: at[i][1], "text-anchor": at[i][2], class: "token" },
        this.still,
      ).textContent = token;
    });
    const count = 600;
    this.path = Array.from({ length: count + 1 }, (_, i) => this.mixtureAt(i / count));
    this.stroke(svg("path", { d: lineThrough(this.path.filter((_, i) => i % 3 === 0)) }, this.still), "e_geodesic", 3);
    for (const [symbol, logs] of [["target", "tokens.target"], ["theta", "tokens.theta"]]) {
      const [x, y] = this.position(Array.from(this.model.a[logs], Math.exp));
      const dot = this.dot(symbol, 0.5, this.still);
      dot.setAttribute("cx", x);
      dot.setAttribute("cy", y);
    }
    if (below) this.table(width / 2 - 7.6 * u, base + 5.6 * u, u);
    else this.table(left + side + 4.5 * u, height / 2, u);
    this.q = svg("g", { class: "handle", tabindex: 0, role: "slider", "data-handle": "simplex" }, this.live);
    svg("circle", { class: "halo", r: 1.15 * u }, this.q);
    svg("circle", { class: "dot", r: 0.62 * u, style: `fill: ${colour("q")}` }, this.q);
    this.app.asAlpha(this.q, this.model.spoken.spoken_simplex);
  }

  table(left, middle, u) {
    const { tokens, symbols, a } = this.model;
    const columns = ["target", "q", "theta"].map((symbol, k) => [symbol, left + (4.2 + 4.6 * k) * u]);
    const y = (i) => middle + (i - 1.5) * 1.9 * u;
    for (const [symbol, x] of columns) this.label(x, y(0), symbols[symbol].runs, symbol, "end");
    const cell = (x, i, symbol) =>
      svg(
        "text",
        { x, y: y(i + 1), "text-anchor": "end", class: "figure", style: `fill: ${colour(symbol)}` },
        this.live,
      );
    tokens.forEach((token, i) => {
      svg("text", { x: left, y: y(i + 1), class: "token" }, this.still).textContent = token;
      cell(columns[0][1], i, "target").textContent = writeFixed(Math.exp(a["tokens.target"][i]), 3);
      cell(columns[2][1], i, "theta").textContent = writeFixed(Math.exp(a["tokens.theta"][i]), 3);
    });
    this.cells = tokens.map((_, i) => cell(columns[1][1], i, "q"));
  }

  position(p) {
    return [0, 1].map((d) => pixel(p.reduce((sum, x, i) => sum + x * this.corners[i][d], 0)));
  }

  mixtureAt(alpha) {
    return this.position(this.model.mixture(alpha, this.model.curve("log_partition", alpha)).map(Math.exp));
  }

  close(event) {
    const box = this.box.getBoundingClientRect();
    const near = this.distanceTo(event.clientX - box.left, event.clientY - box.top);
    return near.distance < 2 * this.app.unit;
  }

  distanceTo(x, y) {
    let best = { distance: Infinity, index: 0 };
    this.path.forEach(([px, py], index) => {
      const distance = Math.hypot(px - x, py - y);
      if (distance < best.distance) best = { distance, index };
    });
    return best;
  }

  nearest(event) {
    const box = this.box.getBoundingClientRect();
    const { index } = this.distanceTo(event.clientX - box.left, event.clientY - box.top);
    return this.app.snapped(index / (this.path.length - 1), this.corners[2][0] - this.corners[1][0], event);
  }

  // q where the path is nearest to the pointer.
  probe(x, y) {
    const { distance, index } = this.distanceTo(x, y);
    if (distance > 2 * this.app.unit) return null;
    const alpha = index / (this.path.length - 1);
    const q = this.model.mixture(alpha, this.model.curve("log_partition", alpha)).map(Math.exp);
    const lines = q.map((p, i) => ["q", [[this.model.tokens[i], 0]], this.app.written("probability", { probability: p })]);
    return { x, y, lines: [this.told("alpha", "alpha", alpha), ...lines] };
  }

  update(point) {
    this.said?.update(point);
    const q = this.model.mixture(point.alpha, point.log_partition).map(Math.exp);
    const [x, y] = this.position(q);
    this.q.setAttribute("transform", `translate(${x} ${y})`);
    q.forEach((p, i) => (this.cells[i].textContent = writeFixed(p, 3)));
    this.app.announceAlpha(this.q, point);
  }
}

// Δ with its root, both distances crossing there, or log Z with its minimum there: three views of one α.
class DeltaPanel extends AlphaPanel {
  constructor(app, name) {
    super(app, name);
    this.titled("title_delta");
    this.fixed = name === "kls" ? "kls" : null;
    const views = [["delta", "of_delta"], ["kls", "of_kls"], ["log_partition", "of_log_partition"]];
    if (this.svg && !this.fixed) this.choice("delta", views, "delta");
    if (this.fixed) this.titled("title_kls");
  }

  get view() {
    return this.fixed ?? this.app.settings.delta;
  }

  layout(width, height) {
    this.titled(`title_${this.view}`);
    if (this.view === "kls") this.layoutKls(width, height);
    else if (this.view === "log_partition") this.layoutLog(width, height);
    else this.layoutDelta(width, height);
  }

  values(point) {
    const both = ["kl_to_theta", "kl_to_target"];
    const names = this.view === "kls" ? both : this.view === "delta" ? ["delta", ...both] : ["log_partition"];
    const told = names.map((name) => [name, name, point[name]]);
    return "ess" in point && this.view === "kls" ? [...told, ["ess", "ess", point.ess]] : told;
  }

  get root() {
    return this.model.marks.find((mark) => mark.symbol === "alpha_kl")?.alpha;
  }

  layoutDelta(width, height) {
    const u = this.app.unit;
    const [low, high] = extent(this.model, ["delta"]);
    const pad = 0.07 * (high - low);
    this.frameAlpha(width, height, low - pad, high + pad);
    const zero = Math.round(this.y(0)) + 0.5;
    svg("path", { class: "axis", d: `M${this.left} ${zero}H${this.right}` }, this.still);
    this.graph((alpha) => this.model.curve("delta", alpha), "delta", 3);
    if (this.root !== undefined) {
      const x = this.x(this.root);
      this.shape("alpha_kl", { x, y: this.y(0) });
      const text = [...this.model.symbols.alpha_kl.runs, [` = ${write(this.model.formats.alpha, this.root)}`, 0]];
      const right = x < (this.left + this.right) / 2 + 6 * u;
      const [dx, dy, anchor] = right ? [0.7, -0.75, "start"] : [-0.7, 1.5, "end"];
      this.label(x + dx * u, this.y(0) + dy * u, text, "alpha_kl", anchor, this.live);
    }
    this.dots = [["delta", this.dot("delta", 0.5)]];
  }

  layoutLog(width, height) {
    const u = this.app.unit;
    const [low, high] = extent(this.model, ["log_partition"]);
    this.frameAlpha(width, height, low - 0.2 * (high - low), high + 0.05 * (high - low), { left: 3.8 });
    this.graph((alpha) => this.model.curve("log_partition", alpha), "log_partition", 3);
    const { scalars, formats } = this.model;
    if (this.root !== undefined && scalars.chernoff !== null) {
      const [x, y] = [this.x(this.root), this.y(-scalars.chernoff)];
      this.shape("alpha_kl", { x, y });
      this.label(x, y + 1.6 * u, [[`−C = ${write(formats.chernoff, -scalars.chernoff)}`, 0]], "alpha_kl", "middle", this.live);
    }
    this.dots = [["log_partition", this.dot("log_partition", 0.5)]];
  }

  layoutKls(width, height) {
    const u = this.app.unit;
    const [, high] = extent(this.model, ["kl_to_theta", "kl_to_target"]);
    this.frameAlpha(width, height, 0, high * 1.13);
    for (const name of ["kl_to_theta", "kl_to_target"]) this.graph((alpha) => this.model.curve(name, alpha), name, 3);
    const { symbols, scalars } = this.model;
    for (const [name, alpha, dx, dy, anchor] of [
      ["kl_to_theta", 0.04, 0.8, 0.3, "start"],
      ["kl_to_target", 0.96, -0.8, 0.7, "end"],
    ]) {
      const y = Math.max(this.y(this.model.curve(name, alpha)) - dy * u, this.top + u);
      this.label(this.x(alpha) + dx * u, y, symbols[name].runs, name, anchor);
    }
    if (this.root !== undefined && scalars.chernoff !== null) {
      const [x, y] = [this.x(this.root), this.y(scalars.chernoff)];
      this.shape("alpha_kl", { x, y });
      const text = [[`C = ${write(this.model.formats.chernoff, scalars.chernoff)}`, 0]];
      this.label(x, y - 2.3 * u, text, "alpha_kl", "middle", this.live);
    }
    this.dots = ["kl_to_theta", "kl_to_target"].map((name) => [name, this.dot(name, 0.5)]);
  }

  update(point) {
    this.said?.update(point);
    this.moveLine(point);
    for (const [name, dot] of this.dots) this.moveDot(dot, point.alpha, point[name]);
  }
}

class SnrPanel extends AlphaPanel {
  constructor(app, name) {
    super(app, name);
    this.titled("title_snr");
  }

  layout(width, height) {
    const u = this.app.unit;
    const { maxima, scalars, symbols, formats } = this.model;
    const [, highest] = extent(this.model, ["snr"], Math.abs);
    const ceiling = scalars.snr_ceiling;
    const near = ceiling !== null && ceiling < 4 * highest;
    const top = Math.max(highest, near ? ceiling : 0);
    this.frameAlpha(width, height, 0, top * 1.2);
    const first = maxima[0]?.[0] ?? 1;
    if (near) {
      const y = this.y(ceiling);
      this.stroke(svg("path", { d: `M${this.left} ${y}H${this.right}` }, this.curves), "snr_ceiling", 2);
      const left = first > 0.5;
      const text = [...symbols.snr_ceiling.runs, [` = ${write(formats.snr_ceiling, ceiling)}`, 0]];
      const [x, anchor] = left ? [this.left + 0.5 * u, "start"] : [this.right - 0.5 * u, "end"];
      this.label(x, y - 0.5 * u, text, "snr_ceiling", anchor);
    } else if (ceiling !== null) {
      const text = [...symbols.snr_ceiling.runs, [` = ${write(formats.snr_ceiling, ceiling)} ↑`, 0]];
      this.label(this.left + 0.5 * u, this.top + 0.9 * u, text, "snr_ceiling");
    }
    const along = (sign) => (alpha) => {
      const value = this.model.curve("snr", alpha);
      return value * sign >= 0 ? Math.abs(value) : NaN;
    };
    this.graph(along(1), "snr", 3);
    const negative = this.graph(along(-1), "snr", 2.2);
    negative.style.strokeDasharray = DASHES.dash;
    maxima.forEach(([alpha, value], rank) => {
      const [x, y] = [this.x(alpha), this.y(value)];
      this.shape("alpha_snr", { x, y, hollow: rank > 0 });
      if (rank > 0) return;
      const anchor = alpha > 0.75 ? "end" : alpha < 0.25 ? "start" : "middle";
      const text = [...symbols.alpha_snr.runs, [` = ${write(formats.alpha, alpha)}`, 0]];
      const below = near && y - this.y(ceiling) < 2.1 * u;
      const dx = anchor === "end" ? -0.2 : anchor === "start" ? 0.2 : 0;
      this.label(x + dx * u, y + (below ? 1.9 : -0.9) * u, text, "alpha_snr", anchor, this.live);
    });
    this.mark = this.dot("snr", 0.5);
  }

  values({ snr, phi1, phi2 }) {
    return [["snr", "snr", snr], ["signal", "phi1", phi1], ["noise", "phi2", phi2]];
  }

  update(point) {
    this.said?.update(point);
    this.moveLine(point);
    this.moveDot(this.mark, point.alpha, Math.abs(point.snr));
  }
}

// The range of every axis of progress: some harm, the ceiling, and what the quadratic promises beyond it.
function progressRange(model, lowest = 0) {
  const { unit, harm } = model.progress;
  let tallest = unit;
  for (let i = 0; i <= 40; i++) {
    const snr = model.curve("snr", i / 40);
    tallest = Math.max(tallest, Math.min((snr * snr) / 2, 1.45 * unit));
  }
  return [Math.max(Math.min(-0.42 * unit, 1.3 * lowest), -harm * unit), 1.2 * tallest];
}

const EFFORT = 1.5e5; // exponentials that one curve of progress may take in a frame

// How many points a curve of progress has.
const fineness = (model, most) => clamp(Math.round(EFFORT / model.a["atoms.theta"].length), 60, most);

// Progress along α: what the two panels below share.
class GainPanel extends AlphaPanel {
  frameGain(width, height, { lowest, ...options } = {}) {
    const { scalars, symbols } = this.model;
    const u = this.app.unit;
    this.frameAlpha(width, height, ...progressRange(this.model, lowest), options);
    const zero = Math.round(this.y(0)) + 0.5;
    svg("path", { class: "axis", d: `M${this.left} ${zero}H${this.right}` }, this.still);
    if (scalars.ceiling === null) return;
    const y = pixel(this.y(scalars.ceiling));
    this.stroke(svg("path", { d: `M${this.left} ${y}H${this.right}` }, this.curves), "ceiling", 2.2);
    this.label(this.left + 0.4 * u, y - 0.5 * u, symbols.ceiling.runs, "ceiling");
  }

  // Progress at one η all along α.
  at(eta) {
    return (alpha) => this.model.gain(this.model.tilts(alpha), eta);
  }

  height(value) {
    const [above, below] = [this.top - 60, this.bottom + 60];
    return value === -Infinity ? below : clamp(this.y(value), above, below);
  }
}

// What is certain whatever η: the lower of the progress at both ends of its range, with its largest value.
class WorstPanel extends GainPanel {
  constructor(app, name) {
    super(app, name);
    this.titled("title_worst");
  }

  layout(width, height) {
    const u = this.app.unit;
    const { range, symbols, formats, marks, progress } = this.model;
    const best = marks.find((mark) => mark.symbol === "alpha_wald")?.alpha;
    const there = best === undefined ? null : this.model.tilts(best);
    const lowest = there ? this.model.worst(there) : 0;
    this.frameGain(width, height, { lowest });
    range.forEach((eta) => {
      const f = this.at(eta);
      const path = this.stroke(svg("path", { d: this.through(f) }, this.curves), "here", 1.6);
      path.style.strokeDasharray = DASHES.dash;
      path.style.opacity = 0.55;
      this.nameEnd(f, eta, u, best);
    });
    const worst = this.through((alpha) => this.model.worst(this.model.tilts(alpha)));
    this.stroke(svg("path", { d: worst }, this.curves), "alpha_wald", 3);
    if (there && lowest > -Infinity) {
      const [x, y] = [this.x(best), this.height(lowest)];
      this.shape("alpha_wald", { x, y });
      const anchor = best > 0.75 ? "end" : best < 0.25 ? "start" : "middle";
      const text = [...symbols.alpha_wald.runs, [` = ${write(formats.alpha, best)}`, 0]];
      // Above the peak, unless the ceiling or the curve of the other end is there.
      const others = [progress.unit, ...range.map((eta) => this.model.gain(there, eta))].map((v) => y - this.height(v));
      const crowded = others.some((gap) => gap > 1 && gap < 2.3 * u);
      this.label(x, y + (crowded ? 1.9 : -0.9) * u, text, "alpha_wald", anchor, this.live);
    }
    this.mark = this.dot("alpha_wald", 0.5);
  }

  // The curves of both ends are named where they are apart.
  nameEnd(f, eta, u, best = 0.5) {
    const text = [[`η = ${write(["number", 1], eta)}`, 0]];
    const low = eta === this.model.range[0];
    // α_Wald has its own label there.
    if (low ? best < 0.1 : best > 0.9) return;
    const x = low ? this.x(0) + 0.4 * u : this.x(1) - 0.4 * u;
    const y = this.height(f(low ? 0 : 1));
    if (y > this.top + u && y < this.bottom - 0.3 * u) this.label(x, y + 1.5 * u, text, "here", low ? "start" : "end");
  }

  through(f) {
    const count = fineness(this.model, 161);
    return lineThrough(Array.from({ length: count }, (_, i) => [this.x(i / (count - 1)), this.height(f(i / (count - 1)))]));
  }

  values({ alpha, worst }) {
    const tilts = this.model.tilts(alpha);
    const ends = this.model.range.map((eta) =>
      ["here", "progress", this.model.gain(tilts, eta), [[`η = ${write(["number", 1], eta)}`, 0]]]);
    return [["alpha_wald", "worst", worst, this.model.words.worst], ...ends];
  }

  update(point) {
    this.said?.update(point);
    this.moveLine(point);
    this.mark.setAttribute("cx", pixel(this.x(point.alpha)));
    const y = this.height(point.worst);
    this.mark.setAttribute("cy", pixel(y));
    this.mark.setAttribute("visibility", y <= this.bottom && y >= this.top - 1 ? "visible" : "hidden");
  }
}

// Progress along α at the current η, below what the best η of each α gains.
class SlicePanel extends GainPanel {
  constructor(app, name) {
    super(app, name);
    this.titled("title_slice");
    if (!this.svg) return;
    this.key("progress", "line", this.model.words.at_eta);
    if (this.model.has("exact_gain")) this.key("exact_gain", "line", this.model.words.best_eta);
  }

  layout(width, height) {
    // As low as its neighbour, whose axis has a handle: then both have one vertical axis.
    this.frameGain(width, height, { bottom: 2.5 });
    if (this.model.has("exact_gain")) this.graph((alpha) => this.model.curve("exact_gain", alpha), "exact_gain", 2.4);
    this.slice = this.stroke(svg("path", {}, this.curves), "progress", 3.4);
    const count = fineness(this.model, 120);
    this.along = Array.from({ length: count + 1 }, (_, i) => [this.x(i / count), this.model.tilts(i / count)]);
    this.mark = this.dot("progress", 0.5);
    this.drawn = undefined;
  }

  values(point) {
    const found = [["progress", "progress", point.progress, this.model.words.at_eta]];
    if ("exact_gain" in point) found.push(["exact_gain", "exact_gain", point.exact_gain, this.model.words.best_eta]);
    if ("exact_step" in point) found.push([null, "exact_step", point.exact_step, this.model.words.best_step]);
    return found;
  }

  update(point) {
    this.said?.update(point);
    this.moveLine(point);
    if (this.drawn !== point.eta) {
      const points = this.along.map(([x, tilts]) => [x, this.height(this.model.gain(tilts, point.eta))]);
      this.slice.setAttribute("d", lineThrough(points));
      this.drawn = point.eta;
    }
    const y = this.height(point.progress);
    this.mark.setAttribute("cx", pixel(this.x(point.alpha)));
    this.mark.setAttribute("cy", pixel(y));
    this.mark.setAttribute("visibility", y <= this.bottom + 1 && y >= this.top - 1 ? "visible" : "hidden");
  }
}

// Progress along η at the current α: the curves themselves move with α.
class ProgressPanel extends Panel {
  constructor(app, name) {
    super(app, name);
    this.titled("title_progress");
    if (!this.svg) return;
    this.key("progress", "line", this.model.words.exact);
    this.key("second_order", "line");
    this.choice("eta", [["linear", "linear"], ["log", "log"]], this.model.axis.log ? "log" : "linear");
    this.svg.removeAttribute("aria-hidden");
    app.drag(this.box, { eta: true, target: (event) => this.etaAt(event) });
  }

  layout(width, height) {
    const u = this.app.unit;
    const { axis, scalars, symbols } = this.model;
    const [low, high] = progressRange(this.model);
    this.frame(width, height, { bottom: 2.5 });
    this.y = linear(low, high, this.bottom, this.top);
    const marks = ticks(low, high, clamp((this.bottom - this.top) / (2.6 * u), 3, 6));
    this.vertical(this.y, marks.values.map((v) => [v, writeTick(v, marks.step)]));
    if (this.app.settings.eta === "log") {
      const least = axis.reach * 10 ** -Math.max(3, Math.ceil(Math.log10(axis.reach / this.least()) + 0.5));
      this.low = least;
      this.x = logarithmic(least, axis.reach, this.left, this.right);
      const labels = decades(least, axis.reach, width / (6 * u)).map((v) => [v, writeDecade(v)]);
      this.horizontal(this.x, this.named(labels), { drop: 1.95 });
    } else {
      this.low = 0;
      this.x = linear(0, axis.reach, this.left, this.right);
      const { step, values } = ticks(0, axis.reach, 5);
      this.horizontal(this.x, this.named(values.map((v) => [v, writeTick(v, step)])), { drop: 1.95 });
    }
    const zero = Math.round(this.y(0)) + 0.5;
    svg("path", { class: "axis", d: `M${this.left} ${zero}H${this.right}` }, this.still);
    if (scalars.ceiling !== null) {
      const y = pixel(this.y(scalars.ceiling));
      this.stroke(svg("path", { d: `M${this.left} ${y}H${this.right}` }, this.curves), "ceiling", 2.2);
      this.label(this.right, y - 0.5 * u, symbols.ceiling.runs, "ceiling", "end");
    }
    this.quadratic = this.stroke(svg("path", {}, this.curves), "second_order", 2.6);
    this.exact = this.stroke(svg("path", {}, this.curves), "progress", 3.4);
    const count = fineness(this.model, clamp(Math.round((this.right - this.left) / 3), 80, 240));
    this.etas = Array.from({ length: count + 1 }, (_, i) => {
      const x = this.left + ((this.right - this.left) * i) / count;
      return [x, Math.max(this.x.invert(x), 0)];
    });
    this.star = this.shape("second_order");
    this.best = this.shape("progress");
    this.knob = svg("g", { class: "handle", tabindex: 0, role: "slider", "data-handle": "eta" }, this.live);
    this.line = svg("path", { class: "here" }, this.knob);
    this.mark = this.dot("here", 0.42, this.knob);
    svg("circle", { class: "halo", r: 1.05 * u, cy: this.bottom }, this.knob);
    svg("circle", { class: "dot", r: 0.55 * u, cy: this.bottom, style: `fill: ${colour("eta")}` }, this.knob);
    this.readout = svg(
      "text",
      { class: "label readout", y: this.bottom - 0.55 * u, style: `fill: ${colour("eta")}` },
      this.knob,
    );
    this.app.asEta(this.knob);
  }

  // The smallest step that matters at any α.
  least() {
    let least = this.model.axis.reach;
    for (let i = 0; i <= 20; i++) {
      const { exact_step: step, eta_star: star } = this.model.point(i / 20, 1);
      for (const s of [step, star]) if (s > 0 && s < least) least = s;
    }
    return Math.max(least, this.model.axis.reach * 1e-7);
  }

  // The tick in the middle says which axis this is.
  named(labels) {
    const middle = (this.left + this.right) / 2;
    const away = labels.map(([v]) => Math.abs(this.x(v) - middle));
    const nearest = away.indexOf(Math.min(...away));
    return labels.map(([v, text], i) => [v, i === nearest ? `η = ${text}` : text]);
  }

  // η under the pointer: near the quadratic's best step or the exact one, that; Shift and Alt pass them.
  etaAt(event) {
    const x = event.clientX - this.box.getBoundingClientRect().left;
    if (!event.shiftKey && !event.altKey) {
      const near = this.app.steps().find((eta) => Math.abs(this.x(eta) - x) <= SNAP);
      if (near !== undefined) return near;
    }
    return this.app.rounded(clamp(this.x.invert(x), this.low, this.model.axis.reach), this.low === 0);
  }

  probe(x, y) {
    if (x < this.left - 4 || x > this.right + 4) return null;
    const eta = Math.max(this.x.invert(clamp(x, this.left, this.right)), 0);
    const { words } = this.model;
    const here = this.app.point;
    const lines = [
      this.told("eta", "eta", eta),
      this.told("progress", "progress", this.model.gain(here.tilts, eta), words.exact),
      this.told("second_order", "quadratic", this.model.quadratic(here, eta)),
    ];
    return { x, y, lines, line: `M${pixel(x)} ${this.top}V${this.bottom}` };
  }

  update(point) {
    this.said?.update(point);
    const [above, below] = [this.top - 60, this.bottom + 60];
    const height = (value) => (value === -Infinity ? below : clamp(this.y(value), above, below));
    const exact = [];
    const quadratic = [];
    let gone = false;
    for (const [x, eta] of this.etas) {
      // Once below the frame it stays there: progress is concave.
      if (!gone) {
        const y = height(this.model.gain(point.tilts, eta));
        exact.push([x, y]);
        gone = y >= below && exact.length > 1;
      }
      quadratic.push([x, height(this.model.quadratic(point, eta))]);
    }
    this.exact.setAttribute("d", lineThrough(exact));
    this.quadratic.setAttribute("d", lineThrough(quadratic));
    this.placeMark(this.star, point.eta_star, this.model.quadratic(point, point.eta_star));
    this.placeMark(this.best, point.exact_step, point.exact_gain);
    const x = this.x(Math.max(point.eta, this.low || 0));
    this.knob.setAttribute("transform", `translate(${pixel(clamp(x, this.left, this.right))} 0)`);
    this.line.setAttribute("d", `M0 ${this.top}V${this.bottom}`);
    const y = this.y(point.progress);
    const seen = y >= this.top - 1 && y <= this.bottom + 1;
    this.mark.setAttribute("visibility", seen ? "visible" : "hidden");
    if (seen) this.mark.setAttribute("cy", pixel(y));
    const right = x < (this.left + this.right) / 2;
    this.readout.setAttribute("x", (right ? 0.9 : -0.9) * this.app.unit);
    this.readout.setAttribute("text-anchor", right ? "start" : "end");
    this.readout.textContent = `η = ${write(this.model.formats.eta, point.eta)}`;
    this.app.announceEta(this.knob, point);
  }

  placeMark(node, eta, gain) {
    const [x, y] = [this.x(eta), this.y(gain)];
    const seen = eta > 0 && x >= this.left && x <= this.right && y >= this.top - 1 && y <= this.bottom;
    node.setAttribute("visibility", seen ? "visible" : "hidden");
    if (seen) node.setAttribute("transform", `translate(${pixel(x)} ${pixel(y)})`);
  }
}

const PANELS = {
  policies: TokensPanel,
  pair: TokensPanel,
  simplex: SimplexPanel,
  delta: DeltaPanel,
  kls: DeltaPanel,
  snr: SnrPanel,
  worst: WorstPanel,
  progress: ProgressPanel,
  slice: SlicePanel,
};
