// Opens one panel at a time beside the sections.

import { h } from "./dom.js";
import { panels } from "../panels/index.js";

export function makePanels(aside, app) {
  const mounted = new Map();
  const title = h("h2", { id: "panel-title", tabindex: -1 });
  const close = h("button", { type: "button", class: "close", onclick: () => shut() }, "×");
  const error = h("p", { class: "error", hidden: true });
  aside.append(h("div", { class: "panel-head" }, title, close), error);
  aside.setAttribute("aria-labelledby", title.id);
  aside.addEventListener("keydown", (event) => event.key === "Escape" && shut());
  let shown = null, before = null;

  function shut() {
    aside.hidden = true;
    shown = null;
    document.body.classList.remove("has-panel");
    before?.focus({ preventScroll: true });
    app.changed();
  }

  async function update() {
    if (!shown) return;
    title.textContent = app.t(`${shown}.title`);
    close.setAttribute("aria-label", app.t("close"));
    for (const [id, { root }] of mounted) root.hidden = id !== shown || !app.run;
    if (!app.run) return;
    try {
      await mounted.get(shown).drawn.update();
      error.hidden = true;
    } catch (problem) {
      if (!problem.status) console.error(problem);
      error.textContent = app.sentence(problem);
      error.hidden = false;
    }
  }

  function open(id) {
    if (!mounted.has(id)) {
      const root = h("div", { class: "panel-body", "data-panel": id });
      aside.append(root);
      mounted.set(id, { root, drawn: panels.find((panel) => panel.id === id).mount(root, app) });
    }
    if (!shown) before = document.activeElement;
    shown = id;
    aside.hidden = false;
    document.body.classList.add("has-panel");
    update();
    title.focus({ preventScroll: true });
    app.changed();
  }

  return { open, close: shut, update, get shown() { return shown; } };
}
