// Presents the slides in this document: steps through them in stages, draws their figures, keeps the address and time.
"use strict";

(() => {
  const find = (selector, root = document) => root.querySelector(selector);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const deck = JSON.parse(find("#deck").textContent);
  const { words } = deck;
  const slides = all(".slide").map((node) => {
    const screens = all(":scope > .screen", node).map((screen) => (
      { node: screen, stages: Number(screen.dataset.stages) }
    ));
    const stages = screens.reduce((sum, screen) => sum + screen.stages, 0);
    return { node, screens, title: find("h2", node).textContent, stages };
  });
  const names = slides.map(({ node }) => node.id);
  let at = { slide: 0, stage: 0 };
  const points = slides.map(() => null); // α and η where they were moved

  // --- where one is ----------------------------------------------------------------------------------------------

  // "theorem_2.3?alpha=0.4&eta=1"
  function parse(address) {
    const form = /^#?([a-z0-9_~]+)(?:\.(\d{1,3}))?(?:\?(.*))?$/;
    const [, name, stage, query] = form.exec(address.replace("%7E", "~")) ?? [];
    const slide = names.indexOf(name);
    if (slide < 0) return null;
    const given = new URLSearchParams(query ?? "");
    const [alpha, eta] = ["alpha", "eta"].map((key) => (given.has(key) ? Number(given.get(key)) : NaN));
    if (alpha >= 0 && alpha <= 1 && eta >= 0 && eta <= 1000) points[slide] = { alpha, eta };
    return { slide, stage: Number(stage ?? 0) };
  }

  function address() {
    const point = points[at.slide];
    return `${names[at.slide]}.${at.stage}${point ? `?alpha=${point.alpha}&eta=${point.eta}` : ""}`;
  }

  function publish() {
    if (deck.embedded) {
      const place = { slide: at.slide, at: `${names[at.slide]}.${at.stage}`, point: points[at.slide] };
      window.parent.postMessage({ geomix: "place", ...place }, "*");
    } else history.replaceState(null, "", `#${address()}`);
  }

  function screenAt({ slide, stage }) {
    let left = stage;
    for (const screen of slides[slide].screens) {
      if (left < screen.stages) return { screen, inner: left };
      left -= screen.stages;
    }
    throw new RangeError(`slide ${slide} has no stage ${stage}`);
  }

  function show(slide, stage) {
    const to = Math.min(Math.max(slide, 0), slides.length - 1);
    at = { slide: to, stage: Math.min(Math.max(stage, 0), slides[to].stages - 1) };
    const now = screenAt(at);
    slides.forEach(({ node, screens }, i) => {
      node.hidden = i !== to;
      for (const screen of screens) screen.node.hidden = screen !== now.screen;
    });
    slides[to].node.dataset.kind = now.screen.node.classList[1];
    for (const part of all("[data-stage]", now.screen.node)) {
      part.classList.toggle("shown", Number(part.dataset.stage) <= now.inner);
    }
    now.screen.node.classList.toggle("revealed", now.inner > 0);
    fit(now.screen.node);
    draw(now.screen.node, to);
    mark();
    publish();
    tellNotes();
  }

  const forward = () => (at.stage + 1 < slides[at.slide].stages ? show(at.slide, at.stage + 1)
    : at.slide + 1 < slides.length && show(at.slide + 1, 0));
  const back = () => (at.stage > 0 ? show(at.slide, at.stage - 1)
    : at.slide > 0 && show(at.slide - 1, slides[at.slide - 1].stages - 1));
  const step = (by) => show(at.slide + by, 0);

  function mark() {
    find(".place").textContent = `${at.slide + 1} / ${slides.length}`;
    find(".dots").replaceChildren(...Array.from({ length: slides[at.slide].stages }, (_, i) => {
      const dot = document.createElement("i");
      dot.classList.toggle("done", i <= at.stage);
      return dot;
    }));
    const { screen } = screenAt(at);
    const shown = screen.node.classList.contains("figure") ? "" : spoken(screen.node);
    find(".announced").textContent = `${at.slide + 1} / ${slides.length}. ${slides[at.slide].title}. ${shown}`;
  }

  // What a screen reader is told: what this stage shows for the first time.
  function spoken(screen) {
    const { inner } = screenAt(at);
    const parts = inner ? all(`[data-stage="${inner}"]`, screen) : [...screen.children].filter((c) => !c.dataset.stage);
    return parts.map((part) => part.innerText).join(" ").trim().slice(0, 600);
  }

  const LARGEST = { verdicts: 1.45, formula: 1.3 }; // times the usual size, where there is room

  // The largest type at which a screen with everything revealed has room for its content.
  function fit(screen) {
    const kind = screen.classList[1];
    if (kind === "figure") return;
    const fits = (size) => {
      screen.style.setProperty("--fit", size);
      return screen.scrollHeight <= screen.clientHeight + 1 && screen.scrollWidth <= screen.clientWidth + 1;
    };
    let [low, high] = [0.4, LARGEST[kind] ?? 1];
    if (fits(high)) return;
    for (let i = 0; i < 7; i++) {
      const middle = (low + high) / 2;
      if (fits(middle)) low = middle;
      else high = middle;
    }
    fits(low);
  }

  // --- figures ---------------------------------------------------------------------------------------------------

  const WIDTH = 900; // of a Plotly figure, in its own pixels: the size for which its type is set
  let loading;
  const drawn = new WeakSet();

  function draw(screen, slide) {
    const live = find(".live", screen);
    const plot = find(".plot", screen);
    if (live && !drawn.has(live)) {
      drawn.add(live);
      mount(live, slide).catch((error) => {
        live.textContent = words.undrawn;
        throw error;
      });
    }
    if (plot) scale(plot);
  }

  function explorer() {
    loading ??= import(URL.createObjectURL(new Blob([deck.explorer.script], { type: "text/javascript" })));
    return loading;
  }

  async function mount(host, slide) {
    const module = await explorer();
    const root = host.attachShadow({ mode: "open" });
    const style = document.createElement("style");
    style.textContent = deck.explorer.css;
    root.append(style);
    const message = Uint8Array.from(atob(find(`#${host.dataset.asset}`).textContent), (c) => c.charCodeAt(0));
    module.default({
      data: placed(message, points[slide]),
      parentElement: root,
      key: names[slide],
      setStateValue() {},
      setTriggerValue(name, point) {
        if (name === "point") moved(slide, point);
      },
    });
  }

  function moved(slide, point) {
    points[slide] = point;
    for (const note of all(".at", slides[slide].node)) note.classList.add("moved");
    if (slide === at.slide) publish();
  }

  // The explorer's message with another α and η: they stand in its header, which app/explorer/data.py documents.
  function placed(message, point) {
    if (!point) return message;
    const length = new DataView(message.buffer).getUint32(0, true);
    const header = JSON.parse(new TextDecoder().decode(message.subarray(4, 4 + length)));
    let text = new TextEncoder().encode(JSON.stringify({ ...header, ...point }));
    const padding = (8 - ((text.length + 4) % 8)) % 8;
    text = new Uint8Array([...text, ...Array(padding).fill(32)]);
    const body = message.subarray(4 + length);
    const whole = new Uint8Array(4 + text.length + body.length);
    new DataView(whole.buffer).setUint32(0, text.length, true);
    whole.set(text, 4);
    whole.set(body, 4 + text.length);
    return whole;
  }

  // Plotly's type has a size in pixels: the figure is drawn at one width, and enlarged.
  function scale(host) {
    const node = host.firstElementChild;
    const size = host.clientWidth / WIDTH;
    const height = Math.floor(host.clientHeight / size);
    if (node.dataset.size === `${size} ${height}`) return;
    node.dataset.size = `${size} ${height}`;
    node.style.transform = `scale(${size})`;
    node.style.width = `${WIDTH}px`;
    node.style.height = `${height}px`;
    if (drawn.has(host)) {
      window.Plotly.relayout(node, { width: WIDTH, height });
      return;
    }
    drawn.add(host);
    const { data, layout } = JSON.parse(find(`#${host.dataset.asset}`).textContent);
    window.Plotly.newPlot(node, data, { ...layout, width: WIDTH, height, autosize: false }, { displayModeBar: false });
  }

  // --- questions -------------------------------------------------------------------------------------------------

  for (const group of all(".options")) {
    group.addEventListener("click", (event) => {
      const chosen = event.target.closest(".option");
      if (!chosen) return;
      for (const option of all(".option", group)) option.setAttribute("aria-pressed", String(option === chosen));
      about(group, "right" in chosen.dataset ? null : chosen.dataset.option);
    });
  }

  for (const box of all(".mark")) {
    const input = find("input", box);
    const { truth, near, of } = box.dataset;
    const say = () => {
      const x = input.valueAsNumber;
      find("output", box).textContent = of === "alpha" ? `α = ${x.toFixed(2)}` : `${Math.round(100 * x)} %`;
    };
    input.addEventListener("input", () => {
      say();
      const off = input.valueAsNumber - Number(truth);
      about(box, Math.abs(off) <= Number(near) ? null : off < 0 ? "low" : "high");
    });
    say();
  }

  function about(group, name) {
    for (const reply of all(".reply .about", group.parentElement)) reply.hidden = reply.dataset.if !== name;
    fit(group.closest(".screen"));
  }

  // --- timer -----------------------------------------------------------------------------------------------------

  const clock = { before: 0, since: null };
  const elapsed = () => clock.before + (clock.since === null ? 0 : Date.now() - clock.since);

  function time() {
    const seconds = Math.floor(elapsed() / 1000);
    const two = (n) => String(n).padStart(2, "0");
    const hours = Math.floor(seconds / 3600);
    return `${hours ? `${hours}:` : ""}${two(Math.floor(seconds / 60) % 60)}:${two(seconds % 60)}`;
  }

  function toggleTimer() {
    if (clock.since === null) clock.since = Date.now();
    else Object.assign(clock, { before: elapsed(), since: null });
    tick();
  }

  function resetTimer() {
    Object.assign(clock, { before: 0, since: clock.since === null ? null : Date.now() });
    tick();
  }

  function tick() {
    const started = clock.since !== null || clock.before > 0;
    find(".clock").textContent = started ? `${time()}${clock.since === null ? " ⏸" : ""}` : "";
    if (notes && !notes.closed) {
      find(".time", notes.document).textContent = time();
      find(".toggle", notes.document).textContent = clock.since === null ? words.start : words.pause;
    }
  }
  setInterval(tick, 500);

  // --- speaker's notes: a second window of the same origin, written from here --------------------------------------

  let notes = null;

  function openNotes() {
    notes = window.open("", "geomix-notes", "popup,width=820,height=640");
    if (!notes) {
      toast(words.blocked);
      return;
    }
    const page = notes.document;
    page.documentElement.lang = document.documentElement.lang;
    page.title = `${words.untitled} · ${deck.title}`;
    const style = page.createElement("style");
    style.textContent = `
      :root { color-scheme: light dark; }
      body { font: 22px/1.45 system-ui, sans-serif; margin: 1.2rem 1.6rem; }
      .head { display: flex; justify-content: space-between; align-items: baseline; gap: 1rem; }
      .time { font-size: 2.2rem; font-variant-numeric: tabular-nums; }
      .quiet { opacity: 0.7; font-size: 0.85rem; margin: 1.2rem 0 0; }
      h1 { font-size: 1.5rem; margin: 0; } .note { font-size: 1.35rem; white-space: pre-line; }
      button { font: inherit; font-size: 0.85rem; padding: 0.1rem 0.7rem; margin-right: 0.4rem; }`;
    page.head.replaceChildren(style);
    const put = (tag, name, text = "", parent = page.body) => {
      const node = page.createElement(tag);
      node.className = name;
      node.textContent = text;
      parent.append(node);
      return node;
    };
    page.body.replaceChildren();
    const head = put("div", "head");
    put("span", "stage", "", head);
    put("span", "time", "", head);
    const buttons = put("div", "");
    put("button", "toggle", "", buttons).onclick = toggleTimer;
    put("button", "zero", words.reset, buttons).onclick = resetTimer;
    put("p", "quiet", words.now);
    put("h1", "title");
    put("p", "note");
    put("p", "quiet", words.coming);
    put("p", "next");
    notes.onkeydown = (event) => {
      if (event.target.closest?.("button") && [" ", "Enter"].includes(event.key)) return;
      pressed(event);
    };
    tellNotes();
    tick();
    notes.focus();
  }

  function tellNotes() {
    if (!notes || notes.closed) return;
    const put = (name, text) => {
      find(name, notes.document).textContent = text;
    };
    const { title, stages } = slides[at.slide];
    put(".stage", `${at.slide + 1} / ${slides.length} · ${words.stage} ${at.stage + 1} / ${stages}`);
    put(".title", title);
    put(".note", deck.notes[at.slide] || words.note_none);
    put(".next", slides[at.slide + 1]?.title ?? words.end);
  }
  window.addEventListener("pagehide", () => notes?.close());

  // --- what can be done --------------------------------------------------------------------------------------------

  const black = find(".black");
  const list = find("dialog.list");
  const help = find("dialog.keys");

  function openList() {
    for (const button of all("[data-go]", list)) {
      const here = Number(button.dataset.go) === at.slide;
      button.setAttribute("aria-current", String(here));
      button.autofocus = here;
    }
    list.showModal();
  }
  list.addEventListener("click", (event) => {
    const button = event.target.closest("[data-go]");
    if (button || event.target === list) list.close();
    if (button) show(Number(button.dataset.go), 0);
  });
  help.addEventListener("click", () => help.close());
  black.addEventListener("click", () => lift());

  function lift() {
    black.hidden = true;
  }

  function toast(text) {
    const node = find(".toast");
    node.textContent = text;
    node.hidden = false;
    setTimeout(() => (node.hidden = true), 6000);
  }

  function toggleFull() {
    const done = document.fullscreenElement ? document.exitFullscreen() : document.documentElement.requestFullscreen();
    done.catch((error) => toast(error.message));
  }

  const actions = {
    back,
    next: forward,
    list: openList,
    black: () => (black.hidden = false),
    timer: toggleTimer,
    notes: openNotes,
    full: toggleFull,
    keys: () => help.showModal(),
    leave: () => window.parent.postMessage({ geomix: "leave" }, "*"),
  };
  find(".bar").addEventListener("click", (event) => actions[event.target.closest("[data-do]")?.dataset.do]?.());

  // --- keys ----------------------------------------------------------------------------------------------------------

  const keys = {
    PageDown: forward,
    ArrowRight: forward,
    " ": forward,
    PageUp: back,
    ArrowLeft: back,
    ArrowDown: () => step(1),
    ArrowUp: () => step(-1),
    Home: () => show(0, 0),
    End: () => show(slides.length - 1, 0),
    b: actions.black,
    ".": actions.black,
    t: (event) => (event.shiftKey ? resetTimer() : toggleTimer()),
    g: openList,
    Escape: openList,
    n: openNotes,
    f: toggleFull,
    F5: toggleFull, // with which a clicker begins; a reload would leave the lesson
    "?": actions.keys,
    ...(deck.embedded ? { q: actions.leave } : {}),
  };
  const OF_SLIDERS = ["ArrowRight", "ArrowLeft", "ArrowUp", "ArrowDown", "Home", "End"];

  // A handle in focus keeps the keys that move it, and a button the one that presses it; PageDown and PageUp, which are
  // all that a clicker has, always turn the slides.
  function keeps(node, key) {
    if (node.closest?.('[role="slider"], input')) return OF_SLIDERS.includes(key);
    return key === " " && Boolean(node.closest?.("button"));
  }

  function pressed(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const open = find("dialog[open]");
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (!black.hidden) {
      lift();
    } else if (open) {
      if (!inDialog(open, key)) return;
    } else {
      if (!(key in keys) || keeps(event.composedPath()[0], key)) return;
      keys[key](event);
    }
    event.preventDefault();
    event.stopPropagation();
  }

  // The arrows walk through a list; its own key closes it, as Escape does by itself.
  function inDialog(open, key) {
    if ((open === list && key === "g") || (open === help && key === "?")) open.close();
    else if (open === list && ["ArrowDown", "ArrowUp", "PageDown", "PageUp"].includes(key)) {
      const buttons = all("button", list);
      const by = key.endsWith("Down") ? 1 : -1;
      buttons[(buttons.indexOf(document.activeElement) + by + buttons.length) % buttons.length].focus();
    } else return false;
    return true;
  }
  // Before the explorer's own handlers: it would take PageDown for a step of its slider.
  window.addEventListener("keydown", pressed, true);

  // --- the pointer at rest, the window's size, and the start ---------------------------------------------------------

  let resting;
  function stir() {
    document.body.classList.remove("idle");
    clearTimeout(resting);
    resting = setTimeout(() => document.body.classList.add("idle"), 2500);
  }
  for (const event of ["pointermove", "pointerdown", "focusin"]) window.addEventListener(event, stir);

  const again = () => {
    const { screen } = screenAt(at);
    fit(screen.node);
    draw(screen.node, at.slide);
  };
  window.addEventListener("resize", again);
  // Fonts are loaded when they are first needed, which would be after the first formula was fitted to its screen.
  document.fonts.addEventListener("loadingdone", again);
  document.fonts.load('1em "geomix Math"');
  window.addEventListener("hashchange", () => {
    const to = parse(location.hash);
    if (to) show(to.slide, to.stage);
  });

  stir();
  const start = parse(deck.embedded ? deck.at : location.hash || deck.at) ?? { slide: 0, stage: 0 };
  show(start.slide, start.stage);
})();
