// A panel: its heading in HTML, its drawing in SVG. `layout` draws what stands still, `update` moves the rest.

let serial = 0;

class Panel {
  constructor(app, name) {
    this.app = app;
    this.model = app.model;
    this.name = name;
    this.node = html("section", { class: "panel", "data-panel": name }, app.grid);
    this.head = html("header", {}, this.node);
    this.title = html("h3", {}, this.head);
    this.legend = html("div", { class: "legend" }, this.head);
    const remark = this.model.remarks[name];
    if (remark && !this.model.notes[name]) typesetHtml(html("p", { class: "remark" }, this.node), remark);
    this.box = html("div", { class: "box" }, this.node);
    this.note = this.model.notes[name];
    if (this.note) {
      typesetHtml(html("p", {}, html("div", { class: "note" }, this.box)), this.note);
    } else {
      this.svg = svg("svg", { "aria-hidden": "true" }, this.box);
    }
    const said = this.model.sentences[name];
    if (said && !this.note) this.said = new Said(app, html("p", { class: "said" }, this.node), said);
    this.box.addEventListener("pointermove", (event) => this.point(event));
    this.box.addEventListener("pointerleave", () => this.unpoint());
  }

  // Exact values at the pointer: `probe` says where (x, y in the drawing) and what ([symbol, quantity, value]).
  point(event) {
    if (!this.svg || !this.probe || event.pointerType === "touch" || this.app.dragging) return this.unpoint();
    const box = this.box.getBoundingClientRect();
    const found = this.probe(event.clientX - box.left, event.clientY - box.top);
    if (!found) return this.unpoint();
    this.tip ??= html("div", { class: "tip", "aria-hidden": "true" }, this.box);
    this.tip.hidden = false;
    this.tip.replaceChildren();
    for (const [symbol, runs, text] of found.lines) {
      const line = html("div", symbol ? { style: `color: ${colour(symbol)}` } : {}, this.tip);
      typesetHtml(html("span", {}, line), runs);
      html("b", {}, line).textContent = text;
    }
    const { offsetWidth: wide, offsetHeight: tall } = this.tip;
    const left = found.x + 14 + wide > box.width ? found.x - 14 - wide : found.x + 14;
    this.tip.style.left = `${pixel(Math.max(left, 0))}px`;
    this.tip.style.top = `${pixel(clamp(found.y - tall / 2, 0, Math.max(box.height - tall, 0)))}px`;
    this.hairline(found);
    return undefined;
  }

  unpoint() {
    if (this.tip) this.tip.hidden = true;
    this.hair?.setAttribute("visibility", "hidden");
  }

  hairline({ line }) {
    if (!line) return;
    if (!this.hair?.isConnected) this.hair = svg("path", { class: "hair" }, this.live);
    this.hair.setAttribute("visibility", "visible");
    this.hair.setAttribute("d", line);
  }

  // A line of the tip: the symbol's runs, and the value as the strip writes it.
  told(symbol, quantity, value, runs = this.model.symbols[symbol].runs) {
    return [symbol, runs, this.app.written(quantity, { [quantity]: value })];
  }

  titled(word) {
    typesetHtml(this.title, this.model.words[word]);
  }

  key(symbol, kind, runs = this.model.symbols[symbol].runs) {
    const entry = html("span", { class: "key", style: `color: ${colour(symbol)}` }, this.legend);
    const mark = svg(
      "svg",
      { class: `swatch ${kind}`, viewBox: kind === "dot" ? "6 0 10 10" : "0 0 22 10", "aria-hidden": "true" },
      entry,
    );
    if (kind === "dot") svg("circle", { cx: 11, cy: 5, r: 4.4, fill: colour(symbol) }, mark);
    else this.stroke(svg("path", { d: "M1 5H21" }, mark), symbol, 2.6);
    typesetHtml(html("span", {}, entry), runs);
  }

  // A choice between two ways to look, kept while the component lives.
  choice(setting, options, initial) {
    const chosen = (this.app.settings[setting] ??= initial);
    const group = html("div", { class: "choice", role: "group" }, this.head);
    for (const [value, word] of options) {
      const button = html("button", { type: "button", "aria-pressed": String(value === chosen) }, group);
      typesetHtml(button, this.model.words[word]);
      button.addEventListener("click", () => {
        this.app.settings[setting] = value;
        for (const other of group.children) other.setAttribute("aria-pressed", String(other === button));
        this.relayout();
      });
    }
    return chosen;
  }

  relayout() {
    if (!this.svg) return;
    this.svg.replaceChildren();
    const width = this.box.clientWidth;
    const height = this.box.clientHeight;
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.layout(width, height);
    this.update(this.app.point);
  }

  stroke(node, symbol, width = 2.6) {
    const dash = this.model.symbols[symbol].dash;
    node.setAttribute("class", "curve");
    node.setAttribute("style", `stroke: ${colour(symbol)}; stroke-width: ${width}; stroke-dasharray: ${DASHES[dash]}`);
    if (dash === "dot") node.setAttribute("stroke-linecap", "round");
    return node;
  }

  // A frame with axes; x and y are scales made of [low, high]. Returns the frame in pixels.
  frame(width, height, { left = 3.3, right = 1, top = 0.7, bottom = 1.75 } = {}) {
    const u = this.app.unit;
    this.left = left * u;
    this.right = width - right * u;
    this.top = top * u;
    this.bottom = height - bottom * u;
    const id = `clip${++serial}`;
    const clip = svg("clipPath", { id }, this.svg);
    svg(
      "rect",
      { x: this.left - 1, y: this.top - 2, width: this.right - this.left + 2, height: this.bottom - this.top + 4 },
      clip,
    );
    this.still = svg("g", {}, this.svg);
    this.curves = svg("g", { "clip-path": `url(#${id})` }, this.svg);
    this.live = svg("g", {}, this.svg);
  }

  // `drop` is how far below the axis its numbers stand: a handle on the axis needs room.
  horizontal(at, labels, { drop = 1.25, grid = false } = {}) {
    for (const [x, text, symbol] of labels) {
      const label = svg(
        "text",
        { x: at(x), y: this.bottom + drop * this.app.unit, "text-anchor": "middle" },
        this.still,
      );
      const up = `M${Math.round(at(x)) + 0.5} ${this.top}V${this.bottom}`;
      if (grid) svg("path", { class: "grid", d: up }, this.still);
      svg("path", { class: "tick", d: `M${pixel(at(x))} ${this.bottom}v${pixel(0.3 * this.app.unit)}` }, this.still);
      if (symbol) {
        label.setAttribute("style", `fill: ${colour(symbol)}`);
        label.setAttribute("class", "end");
        typeset(label, this.model.symbols[symbol].runs);
      } else label.textContent = text;
    }
    svg("path", { class: "axis", d: `M${this.left} ${Math.round(this.bottom) + 0.5}H${this.right}` }, this.still);
  }

  vertical(at, labels) {
    for (const [y, text] of labels) {
      const p = Math.round(at(y)) + 0.5;
      svg("path", { class: "grid", d: `M${this.left} ${p}H${this.right}` }, this.still);
      svg("text", { x: this.left - 0.45 * this.app.unit, y: p, dy: "0.34em", "text-anchor": "end" }, this.still)
        .textContent = text;
    }
  }

  label(x, y, runs, symbol, anchor = "start", parent = this.still) {
    const node = svg("text", { x, y, "text-anchor": anchor, class: "label", style: `fill: ${colour(symbol)}` }, parent);
    return typeset(node, runs);
  }

  dot(symbol, radius = 0.42, parent = this.live) {
    return svg(
      "circle",
      { class: "dot", r: radius * this.app.unit, style: `fill: ${colour(symbol)}` },
      parent,
    );
  }

  // A mark in the symbol's own shape and colour; `update` moves it.
  shape(symbol, { x = 0, y = 0, hollow = false, parent = this.live } = {}) {
    const r = 0.46 * this.app.unit;
    const s = 0.86 * r;
    const d = {
      diamond: `M0 ${-r}L${r} 0L0 ${r}L${-r} 0Z`,
      square: `M${-s} ${-s}H${s}V${s}H${-s}Z`,
      circle: `M${-r} 0A${r} ${r} 0 1 1 ${r} 0A${r} ${r} 0 1 1 ${-r} 0Z`,
    }[this.model.symbols[symbol].shape];
    const node = svg("path", { class: hollow ? "mark hollow" : "mark", d, style: `--c: ${colour(symbol)}` }, parent);
    node.setAttribute("transform", `translate(${pixel(x)} ${pixel(y)})`);
    return node;
  }

}

// The sentence below a panel: of its variants the one that holds, with numbers that move.
class Said {
  constructor(app, node, variants) {
    Object.assign(this, { app, node, variants });
  }

  update(point) {
    const chosen = this.variants.findIndex(({ when }) => {
      if (!when) return true;
      const value = point[when.quantity];
      return value !== undefined && value >= (when.from ?? -Infinity) && value < (when.to ?? Infinity);
    });
    if (chosen !== this.chosen) this.write(this.variants[chosen]);
    this.chosen = chosen;
    for (const [span, quantity] of this.numbers) span.textContent = this.app.written(quantity, point);
  }

  write(variant) {
    this.node.replaceChildren();
    this.numbers = [];
    for (const piece of variant?.pieces ?? []) {
      if (Array.isArray(piece)) typesetHtml(html("span", {}, this.node), [piece]);
      else {
        const style = piece.symbol ? `color: ${colour(piece.symbol)}` : "";
        this.numbers.push([html("b", { style, "data-said": piece.quantity }, this.node), piece.quantity]);
      }
    }
  }
}

// A panel over α: the current α is a line that can be dragged anywhere.
class AlphaPanel extends Panel {
  constructor(app, name) {
    super(app, name);
    if (this.svg) {
      app.drag(this.box, {
        target: (event) => this.alphaAt(event),
        within: (event) => this.inside(event),
      });
    }
  }

  inside(event) {
    const { left, right } = this.box.getBoundingClientRect();
    return event.clientX >= left && event.clientX <= right;
  }

  alphaAt(event) {
    const x = event.clientX - this.box.getBoundingClientRect().left;
    return this.app.snapped(clamp(this.x.invert(x), 0, 1), this.right - this.left, event);
  }

  frameAlpha(width, height, low, high, options) {
    // Without a track the first panel over α has the handle for the keyboard.
    const first = this.app.views.find((view) => view instanceof AlphaPanel && view.svg);
    const alone = !this.model.parts.track && first === this;
    this.frame(width, height, { ...(alone ? { bottom: 2.3 } : {}), ...options });
    this.x = linear(0, 1, this.left, this.right);
    this.y = linear(low, high, this.bottom, this.top);
    const { step, values } = ticks(low, high, clamp((this.bottom - this.top) / (2.6 * this.app.unit), 3, 6));
    this.vertical(this.y, values.map((v) => [v, writeTick(v, step)]));
    this.horizontal(this.x, [
      [0, "", "target"],
      [0.25, "0.25"],
      [0.5, "α = 0.5"],
      [0.75, "0.75"],
      [1, "", "theta"],
    ], { drop: alone ? 1.8 : 1.25 });
    this.line = svg("path", { class: "here" }, this.live);
    this.handle = alone ? svg(
      "g",
      { class: "handle", tabindex: 0, role: "slider", "data-handle": "alpha" },
      this.live,
    ) : null;
    if (this.handle) {
      this.svg.removeAttribute("aria-hidden");
      svg("circle", { class: "halo", r: 1.05 * this.app.unit, cy: this.bottom }, this.handle);
      svg(
        "circle",
        { class: "dot", r: 0.55 * this.app.unit, cy: this.bottom, style: `fill: ${colour("q")}` },
        this.handle,
      );
      this.app.asAlpha(this.handle, this.model.spoken.spoken_alpha);
    }
  }

  // What stands at α under the pointer; a panel says which quantities it has there.
  probe(x, y) {
    if (x < this.left - 4 || x > this.right + 4) return null;
    const alpha = clamp(this.x.invert(x), 0, 1);
    const told = this.values(this.model.point(alpha, this.app.eta));
    if (!told.length) return null;
    const at = pixel(this.x(alpha));
    const lines = [this.told("alpha", "alpha", alpha), ...told.map(([symbol, quantity, value, runs]) =>
      this.told(symbol, quantity, value, runs))];
    return { x: at, y, lines, line: `M${at} ${this.top}V${this.bottom}` };
  }

  values() {
    return [];
  }

  // A path of f over α.
  graph(f, symbol, width) {
    const count = 241;
    const points = Array.from({ length: count }, (_, i) => [this.x(i / (count - 1)), this.y(f(i / (count - 1)))]);
    return this.stroke(svg("path", { d: lineThrough(points) }, this.curves), symbol, width);
  }

  moveLine(point) {
    const x = pixel(this.x(point.alpha));
    if (this.handle) {
      this.handle.setAttribute("transform", `translate(${x} 0)`);
      this.app.announceAlpha(this.handle, point);
    }
    this.line.setAttribute("d", `M${x} ${this.top}V${this.bottom}`);
  }

  moveDot(dot, alpha, value) {
    dot.setAttribute("cx", pixel(this.x(alpha)));
    dot.setAttribute("cy", pixel(this.y(value)));
  }
}

// The least and the largest value of a curve on a fine grid.
function extent(model, names, f = (x) => x) {
  let low = 0;
  let high = 0;
  for (const name of names) {
    for (let i = 0; i <= 200; i++) {
      const value = f(model.curve(name, i / 200));
      if (value < low) low = value;
      if (value > high) high = value;
    }
  }
  return high > low ? [low, high] : [0, 1];
}
