// Shows a deck over the whole app, as its own document in a frame, and keeps the address of what is shown.
// `data`: html, the deck; links, the query of each slide's scenario; label, its name.

const open = new WeakMap();

class Stage {
  constructor(parent, data) {
    this.html = data.html;
    // A modal dialog is above everything, and leaves the rest of the page inert.
    this.dialog = document.createElement("dialog");
    this.dialog.setAttribute("aria-label", data.label);
    this.dialog.style.cssText = `position: fixed; inset: 0; width: 100vw; height: 100dvh; max-width: none;
      max-height: none; margin: 0; padding: 0; border: 0`;
    this.frame = document.createElement("iframe");
    this.frame.title = data.label;
    this.frame.allow = "fullscreen";
    this.frame.style.cssText = "display: block; width: 100%; height: 100%; border: 0";
    this.frame.srcdoc = data.html;
    this.frame.addEventListener("load", () => this.frame.contentWindow.focus());
    this.dialog.append(this.frame);
    document.body.append(this.dialog);
    this.dialog.showModal();
    this.dialog.addEventListener("cancel", (event) => {
      event.preventDefault();
      this.leave();
    });
    this.heard = (event) => this.hear(event);
    window.addEventListener("message", this.heard);
  }

  hear({ source, data }) {
    if (source !== this.frame.contentWindow) return;
    if (data?.geomix === "leave") this.leave();
    if (data?.geomix === "place") {
      this.place = data;
      this.publish();
    }
  }

  // A relative address: the app may lie below any path of any server. The point of a slide where α and η were moved
  // stands in for that of its scenario.
  publish() {
    if (!this.place || !this.links[this.place.slide]) return;
    const query = new URLSearchParams(this.links[this.place.slide]);
    for (const [name, value] of Object.entries(this.place.point ?? {})) query.set(name, String(value));
    query.set("slide", this.place.at);
    history.replaceState(history.state, "", `?${query}`);
  }

  dispose() {
    window.removeEventListener("message", this.heard);
    this.dialog.remove();
  }
}

export default function ({ data, parentElement, setTriggerValue }) {
  let stage = open.get(parentElement);
  if (stage && stage.html !== data.html) {
    stage.dispose();
    stage = undefined;
  }
  if (!stage) {
    stage = new Stage(parentElement, data);
    open.set(parentElement, stage);
  }
  stage.links = data.links;
  stage.leave = () => setTriggerValue("leave", true);
  stage.publish(); // the run that led here has written its own address
  return () => {
    stage.dispose();
    open.delete(parentElement);
  };
}
