// One explorer: what it shows, how it is moved, and what it tells Python.

const PAUSE = 400; // ms after the last key until a point is committed
const SNAP = 6; // px within which a mark attracts

// The keys of a slider from 0 to high: by(coarse, fine) makes what a key does, with Shift the fine step.
function ladder(by, fine, to, high) {
  const [up, down] = [by(0.01, fine), by(-0.01, -fine)];
  return {
    ArrowRight: up,
    ArrowUp: up,
    ArrowLeft: down,
    ArrowDown: down,
    PageUp: by(0.1, 0.1),
    PageDown: by(-0.1, -0.1),
    Home: () => to(0),
    End: () => to(high),
  };
}

class Explorer {
  constructor(host) {
    this.host = host;
    this.root = html("div", { class: "explorer" });
    host.append(this.root);
    this.settings = {};
    this.pending = [];
    this.views = [];
    this.observer = new ResizeObserver(() => this.resized());
    this.observer.observe(this.root);
    this.onResize = () => this.resized();
    window.addEventListener("resize", this.onResize);
    this.still = window.matchMedia("(prefers-reduced-motion: reduce)");
  }

  dispose() {
    this.observer.disconnect();
    window.removeEventListener("resize", this.onResize);
    cancelAnimationFrame(this.request);
    clearTimeout(this.timer);
    this.root.remove();
  }

  // --- what Python sends -----------------------------------------------------------------------------------------

  receive(data, send) {
    this.send = send;
    const model = new Model(data);
    const known = this.model?.key === model.key;
    this.told = { alpha: model.alpha, eta: model.eta };
    const echo = this.pending.findIndex((p) => p.alpha === model.alpha && p.eta === model.eta);
    if (echo >= 0) this.pending.splice(0, echo + 1);
    const busy = this.dragging || this.timer || this.pending.length > 0;
    if (!known || (echo < 0 && !busy)) {
      // Another row in the middle of a drag keeps the point in the reader's hand.
      const held = busy && this.point;
      this.alpha = held ? this.alpha : model.alpha;
      this.eta = held ? this.eta : model.eta;
    }
    if (!known) {
      this.model = model;
      this.build();
    } else this.draw();
    this.paint();
  }

  // Colours follow the theme on screen, which the reader may switch without a run of the script.
  paint() {
    const background = getComputedStyle(this.root).getPropertyValue("--st-background-color").trim() || "#ffffff";
    const dark = luminance(background) < 0.5;
    for (const [name, symbol] of Object.entries(this.model.symbols)) {
      this.root.style.setProperty(`--c-${name.replaceAll("_", "-")}`, dark ? symbol.dark : symbol.light);
    }
    this.root.style.setProperty("--helper", this.model.look.helper);
    this.root.classList.toggle("dark", dark);
  }

  build() {
    const { panels, parts, tokens, choices } = this.model;
    const focused = this.host.activeElement?.dataset?.handle;
    this.root.replaceChildren();
    this.root.lang = this.model.language;
    this.root.dataset.key = this.model.key;
    this.views = [];
    this.grid = undefined;
    this.point = this.model.point(this.alpha, this.eta);
    this.measure();
    if (parts.track && this.model.a.alpha) this.views.push(new Track(this));
    this.grid = html("div", { class: "grid", "data-count": panels.length }, this.root);
    for (const name of panels) {
      const simplex = name === "policies" && tokens.length === 3 && this.model.a.alpha;
      this.views.push(new PANELS[simplex ? "simplex" : name](this, name));
    }
    if (choices) this.views.push(new Choices(this));
    if (parts.strip) this.views.push(new Strip(this));
    this.measure();
    this.relayout();
    if (focused) this.root.querySelector(`[data-handle="${focused}"]`)?.focus();
  }

  measure() {
    this.width = this.root.clientWidth;
    this.tall = window.innerHeight;
    // An explorer beside something else on the page keeps the page's size of type.
    this.unit = clamp(this.width / (this.model.parts.share ?? 1) / 74, 12.5, this.model.parts.largest ?? 22);
    this.root.style.fontSize = `${this.unit}px`;
    this.root.classList.toggle("narrow", this.width < 760 * (this.model.parts.share ?? 1));
    this.root.style.setProperty("--panel", `${Math.round(this.panelHeight())}px`);
  }

  // What is left of the window, so that a page shows its explorer without scrolling.
  panelHeight() {
    const { panels, parts } = this.model;
    const columns = this.root.classList.contains("narrow") ? 1 : [1, 2, 3, 2][panels.length - 1];
    const rows = Math.ceil(panels.length / columns);
    const page = document.querySelector('[data-testid="stMain"]');
    const above = this.root.getBoundingClientRect().top + (page?.scrollTop ?? 0);
    const around = this.grid ? this.root.offsetHeight - this.grid.offsetHeight : 0;
    const room = this.tall - above - around - parts.below - 0.6 * this.unit * (rows - 1);
    // A page may scroll to a panel that is tall enough to be read; a slide may not.
    const least = columns === 1 && rows > 1 ? 280 : page && rows === 1 ? 260 : 180;
    return clamp(room / rows, least, 38 * this.unit);
  }

  resized() {
    if (!this.model || (this.root.clientWidth === this.width && window.innerHeight === this.tall)) return;
    if (!this.root.clientWidth) return;
    this.measure();
    this.relayout();
  }

  relayout() {
    this.point = this.model.point(this.alpha, this.eta);
    for (const view of this.views) view.relayout();
  }

  // --- moving ----------------------------------------------------------------------------------------------------

  schedule() {
    this.request ??= requestAnimationFrame(() => {
      this.request = undefined;
      this.draw();
    });
  }

  draw() {
    this.point = this.model.point(this.alpha, this.eta);
    for (const view of this.views) if (view.svg || view.cells) view.update(this.point);
  }

  move({ alpha = this.alpha, eta = this.eta }) {
    if (alpha === this.alpha && eta === this.eta) return;
    this.alpha = alpha;
    this.eta = eta;
    this.schedule();
  }

  // Tell Python, and remember that its answer is no news.
  commit() {
    clearTimeout(this.timer);
    this.timer = undefined;
    const known = this.pending.at(-1) ?? this.told;
    if (known.alpha === this.alpha && known.eta === this.eta) return;
    const point = { alpha: this.alpha, eta: this.eta };
    this.pending.push(point);
    this.send("point", point);
  }

  commitSoon() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.commit(), PAUSE);
  }

  drag(node, { target, eta = false, within = () => true }) {
    const apply = (event) => this.move(eta ? { eta: target(event) } : { alpha: target(event) });
    node.addEventListener("pointerdown", (event) => {
      if (event.button !== 0 || !within(event)) return;
      cancelAnimationFrame(this.gliding);
      node.setPointerCapture(event.pointerId);
      node.querySelector("[data-handle]")?.focus({ preventScroll: true });
      event.preventDefault();
      this.dragging = true;
      this.root.classList.add("dragging");
      apply(event);
    });
    node.addEventListener("pointermove", (event) => {
      if (this.dragging && node.hasPointerCapture(event.pointerId)) apply(event);
    });
    const release = () => {
      if (!this.dragging) return;
      this.dragging = false;
      this.root.classList.remove("dragging");
      this.commit();
    };
    node.addEventListener("pointerup", release);
    node.addEventListener("pointercancel", release);
    node.addEventListener("lostpointercapture", release);
  }

  // α as the pointer means it: near a mark the mark, else as fine as pixels are; Shift and Alt pass the marks.
  snapped(alpha, width, event) {
    if (!event.shiftKey && !event.altKey) {
      const near = this.model.marks
        .map((mark) => [Math.abs(mark.alpha - alpha) * width, mark.alpha])
        .sort((a, b) => a[0] - b[0])[0];
      if (near && near[0] <= SNAP) return near[1];
    }
    return Number(alpha.toFixed(3));
  }

  rounded(eta, linearly) {
    if (!linearly) return Number(eta.toPrecision(3));
    const step = 10 ** (Math.floor(Math.log10(this.model.axis.reach)) - 2);
    return Number((Math.round(eta / step) * step).toPrecision(6));
  }

  // The steps that are best at this α, by the quadratic and exactly, where they are on the axis.
  steps() {
    const { eta_star: star, exact_step: best } = this.point;
    const shown = [star, best].filter((eta) => eta > 0 && eta <= this.model.axis.reach);
    return shown.map((eta) => Number(eta.toPrecision(6))).sort((a, b) => a - b);
  }

  glide(alpha) {
    cancelAnimationFrame(this.gliding);
    if (this.still.matches) {
      this.move({ alpha });
      this.commitSoon();
      return;
    }
    const [from, start] = [this.alpha, performance.now()];
    const step = (now) => {
      const t = clamp((now - start) / 280, 0, 1);
      const eased = 1 - (1 - t) ** 3;
      this.alpha = t < 1 ? from + (alpha - from) * eased : alpha;
      this.draw();
      if (t < 1) this.gliding = requestAnimationFrame(step);
      else this.commit();
    };
    this.gliding = requestAnimationFrame(step);
  }

  // --- keyboard and screen readers -----------------------------------------------------------------------------------

  keys(handle, moves) {
    handle.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const move = moves[event.key] ?? moves[event.key.toLowerCase()];
      if (!move) return;
      event.preventDefault();
      event.stopPropagation();
      move(event.shiftKey);
      this.commitSoon();
    });
    handle.addEventListener("blur", () => this.timer && this.commit());
  }

  asAlpha(handle, label) {
    handle.setAttribute("aria-label", label);
    handle.setAttribute("aria-valuemin", "0");
    handle.setAttribute("aria-valuemax", "1");
    const by = (coarse, fine) => (shift) =>
      this.move({ alpha: Number(clamp(this.alpha + (shift ? fine : coarse), 0, 1).toFixed(4)) });
    const next = (shift) => {
      const marks = [...new Set(this.model.marks.map((mark) => mark.alpha))];
      const below = marks.filter((a) => a < this.alpha - 1e-9).at(-1);
      const ahead = shift ? below : marks.find((a) => a > this.alpha + 1e-9);
      this.glide(ahead ?? (shift ? marks.at(-1) : marks[0]));
    };
    const to = (alpha) => this.move({ alpha });
    this.keys(handle, { ...ladder(by, 0.001, to, 1), s: next });
  }

  asEta(handle) {
    const { axis, spoken } = this.model;
    handle.setAttribute("aria-label", spoken.spoken_eta);
    handle.setAttribute("aria-valuemin", "0");
    handle.setAttribute("aria-valuemax", String(axis.reach));
    svg("title", {}, handle).textContent = spoken.hint_eta;
    const by = (coarse, fine) => (shift) => {
      const k = shift ? fine : coarse;
      const log = this.settings.eta === "log";
      const moved = log ? this.eta * 10 ** (k * 4) : this.eta + k * axis.reach;
      this.move({ eta: this.rounded(clamp(moved, 0, axis.reach), !log) });
    };
    const to = (eta) => this.move({ eta });
    this.keys(handle, {
      ...ladder(by, 0.002, to, axis.reach),
      s: () => {
        const steps = this.steps();
        if (steps.length) this.move({ eta: steps.find((eta) => eta > this.eta * (1 + 1e-9)) ?? steps[0] });
      },
    });
  }

  announceAlpha(handle, point) {
    const values = {
      alpha: this.written("alpha", point),
      to_theta: this.written("kl_to_theta", point),
      to_target: this.written("kl_to_target", point),
    };
    handle.setAttribute("aria-valuenow", String(point.alpha));
    handle.setAttribute("aria-valuetext", fill(this.model.spoken.spoken_alpha_at, values));
  }

  announceEta(handle, point) {
    const values = { eta: this.written("eta", point), progress: this.written("progress", point) };
    handle.setAttribute("aria-valuenow", String(point.eta));
    handle.setAttribute("aria-valuetext", fill(this.model.spoken.spoken_eta_at, values));
  }

  // A quantity as a person reads it; harm of many ceilings is below a bound.
  written(quantity, point) {
    const { formats, progress, scalars } = this.model;
    const value = point[quantity];
    if (progress && ["progress", "share", "worst"].includes(quantity)) {
      const bound = (-progress.harm * progress.unit) / (quantity === "share" ? scalars.ceiling : 1);
      if (value < bound) return `< ${write(formats[quantity], bound)}`;
    }
    return write(formats[quantity], value);
  }
}

function luminance(text) {
  const hex = text.match(/^#([0-9a-f]{3,8})$/i)?.[1];
  const [r, g, b] = hex
    ? (hex.length < 6 ? [...hex].map((c) => c + c) : hex.match(/../g)).map((c) => parseInt(c, 16))
    : (text.match(/[\d.]+/g) ?? [255, 255, 255]).map(Number);
  return (0.2126 * r + 0.7152 * g + 0.0722 * b) / 255;
}

const explorers = new WeakMap();

export default function ({ data, parentElement, setTriggerValue }) {
  let explorer = explorers.get(parentElement);
  if (!explorer) {
    explorer = new Explorer(parentElement);
    explorers.set(parentElement, explorer);
  }
  explorer.receive(data, setTriggerValue);
  return () => {
    explorer.dispose();
    explorers.delete(parentElement);
  };
}
