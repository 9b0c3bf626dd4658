// The α track above the panels, and the strip of numbers below them.

class Track {
  constructor(app) {
    this.app = app;
    this.node = html("div", { class: "track" }, app.root);
    const side = html("div", { class: "now" }, this.node);
    this.value = html("div", { class: "alpha", "data-quantity": "alpha" }, side);
    this.formula = html("div", { class: "family" }, side);
    this.box = html("div", { class: "rail" }, this.node);
    this.svg = svg("svg", {}, this.box);
    this.powers = this.writeFormula();
    app.drag(this.box, { target: (event) => this.alphaAt(event) });
  }

  // q_α ∝ π_θ^α π_t^(1−α), with the current exponents.
  writeFormula() {
    const { symbols } = this.app.model;
    const part = (symbol) => typesetHtml(html(
      "span",
      { style: `color: ${colour(symbol)}` },
      this.formula,
    ), symbols[symbol].runs);
    part("q");
    html("span", { class: "operator" }, this.formula).textContent = "∝";
    return ["theta", "target"].map((symbol) => {
      const span = part(symbol);
      return html("sup", { class: "power" }, span);
    });
  }

  alphaAt(event) {
    const x = event.clientX - this.box.getBoundingClientRect().left;
    return this.app.snapped(clamp(this.x.invert(x), 0, 1), this.right - this.left, event);
  }

  relayout() {
    const { unit: u, model } = this.app;
    const width = this.box.clientWidth;
    const height = this.box.clientHeight;
    this.svg.replaceChildren();
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.left = 2.6 * u;
    this.right = width - 2.6 * u;
    this.x = linear(0, 1, this.left, this.right);
    const y = height * 0.52;
    const id = `rail${++serial}`;
    const gradient = svg(
      "linearGradient",
      { id, gradientUnits: "userSpaceOnUse", x1: this.left, x2: this.right },
      this.svg,
    );
    for (const [offset, symbol] of [[0, "target"], [1, "theta"]]) {
      svg("stop", { offset, style: `stop-color: ${colour(symbol)}` }, gradient);
    }
    const thick = 0.34 * u;
    svg(
      "rect",
      {
        x: this.left,
        y: y - thick / 2,
        width: this.right - this.left,
        height: thick,
        rx: thick / 2,
        fill: `url(#${id})`,
      },
      this.svg,
    );
    for (const [symbol, x, anchor] of [
      ["target", this.left - 0.9 * u, "end"],
      ["theta", this.right + 0.9 * u, "start"],
    ]) {
      const label = svg(
        "text",
        { x, y, dy: "0.3em", "text-anchor": anchor, class: "policy", style: `fill: ${colour(symbol)}` },
        this.svg,
      );
      typeset(label, model.symbols[symbol].runs);
    }
    this.marks(y, u);
    this.handle = svg("g", { class: "handle", tabindex: 0, role: "slider", "data-handle": "alpha" }, this.svg);
    svg("title", {}, this.handle).textContent = model.spoken.hint_alpha;
    svg("circle", { class: "halo", r: 1.25 * u, cy: y }, this.handle);
    svg("circle", { class: "dot", r: 0.74 * u, cy: y, style: `fill: ${colour("q")}` }, this.handle);
    this.app.asAlpha(this.handle, model.spoken.spoken_alpha);
    this.update(this.app.point);
  }

  // Numbers below the rail, criteria above it; those at one place share a label, and neighbours make room.
  marks(y, u) {
    const { marks, symbols } = this.app.model;
    const above = [];
    for (const { symbol, alpha } of marks) {
      const named = symbol in symbols;
      const x = pixel(this.x(alpha));
      const [from, to] = named ? [-1.02, -0.3] : [0.3, 0.72];
      const style = named ? `stroke: ${colour(symbol)}` : "";
      svg("path", { class: "notch", d: `M${x} ${y + from * u}V${y + to * u}`, style }, this.svg);
      if (!named) {
        const label = svg("text", { x, y: y + 1.95 * u, "text-anchor": "middle", class: "snap" }, this.svg);
        label.textContent = symbol;
        this.jump(label, alpha);
        continue;
      }
      const last = above.at(-1);
      const label = svg(
        "text",
        { "text-anchor": "middle", class: "snap", style: `fill: ${colour(symbol)}`, y: y - 1.4 * u },
        this.svg,
      );
      typeset(label, symbols[symbol].runs);
      this.jump(label, alpha);
      const half = label.getComputedTextLength() / 2;
      above.push({ label, x, at: last ? Math.max(x, last.at + last.half + half + 0.7 * u) : x, half });
    }
    // What was pushed out at the right comes back, and pushes its neighbours to the left.
    let limit = this.right + 2.4 * u;
    for (const entry of above.reverse()) {
      entry.at = Math.min(entry.at, limit - entry.half);
      limit = entry.at - entry.half - 0.7 * u;
      entry.label.setAttribute("x", pixel(entry.at));
    }
  }

  jump(label, alpha) {
    label.addEventListener("pointerdown", (event) => {
      event.stopPropagation();
      this.app.glide(alpha);
    });
  }

  update(point) {
    const { formats } = this.app.model;
    this.handle.setAttribute("transform", `translate(${pixel(this.x(point.alpha))} 0)`);
    this.value.textContent = `α = ${write(formats.alpha, point.alpha)}`;
    this.powers[0].textContent = write(formats.exponent, point.alpha);
    this.powers[1].textContent = write(formats.exponent, 1 - point.alpha);
    this.app.announceAlpha(this.handle, point);
  }
}

class Strip {
  constructor(app) {
    this.app = app;
    const { numbers, symbols, words, meanings } = app.model;
    this.node = html("div", { class: "strip" }, app.root);
    this.cells = [];
    for (const group of numbers) {
      const box = html("div", { class: "group" }, this.node);
      for (const { operator, symbol, quantity } of group) {
        if (operator) {
          html("span", { class: "operator" }, box).textContent = operator;
          continue;
        }
        const own = symbol in symbols ? `color: ${colour(symbol)}` : "";
        const term = html("span", { class: "term", style: own, title: meanings[symbol] ?? "" }, box);
        typesetHtml(html("span", { class: "symbol" }, term), words[symbol] ?? symbols[symbol].runs);
        const value = html("span", { class: "value", "data-quantity": quantity }, term);
        this.cells.push([value, quantity]);
      }
    }
    this.update(app.point);
  }

  relayout() {
    this.update(this.app.point);
  }

  update(point) {
    for (const [node, quantity] of this.cells) node.textContent = this.app.written(quantity, point);
  }
}

// Ways to choose α, a line each, and what they cost; a press goes there. The last line is the current α.
class Choices {
  constructor(app) {
    this.app = app;
    const { columns, rows } = app.model.choices;
    const { symbols, words, meanings } = app.model;
    this.node = html("table", { class: "choices" }, app.root);
    const head = html("tr", {}, html("thead", {}, this.node));
    typesetHtml(html("th", { scope: "col" }, head), words.criterion);
    for (const { symbol } of columns) {
      const style = symbol in symbols ? `color: ${colour(symbol)}` : "";
      typesetHtml(html("th", { scope: "col", style, title: meanings[symbol] ?? "" }, head), words[symbol] ?? symbols[symbol].runs);
    }
    const body = html("tbody", {}, this.node);
    for (const { symbol, name, values } of rows) {
      const line = html("tr", { "data-choice": symbol }, body);
      const style = symbol in symbols ? `color: ${colour(symbol)}` : "";
      const button = html("button", { type: "button", style }, html("th", { scope: "row" }, line));
      typesetHtml(button, name);
      button.addEventListener("click", () => app.glide(Number(values.alpha.toFixed(4))));
      for (const { quantity } of columns) html("td", {}, line).textContent = app.written(quantity, values);
    }
    this.now = html("tr", { class: "now" }, body);
    typesetHtml(html("th", { scope: "row", style: `color: ${colour("q")}` }, this.now), words.current);
    this.cells = columns.map(({ quantity }) => [html("td", { "data-quantity": quantity }, this.now), quantity]);
    this.update(app.point);
  }

  relayout() {
    this.update(this.app.point);
  }

  update(point) {
    for (const [node, quantity] of this.cells) node.textContent = this.app.written(quantity, point);
  }
}
