// Opens one panel at a time beside the sections; its module is loaded when it is first opened.

import { h, translate } from "./dom.js";
import { panels } from "../panels/index.js";

export function makePanels(aside, app) {
  const mounted = new Map();
  const title = h("h2", { id: "panel-title", tabindex: -1 });
  const close = h("button.close", { onclick: shut, named: "close" }, "×");
  const error = h("p.error", { hidden: true });
  aside.append(h("div.panel-head", title, close), error);
  aside.setAttribute("aria-labelledby", title.id);
  aside.addEventListener("keydown", (event) => event.key === "Escape" && shut());
  let shown = null,
    before = null;

  function shut() {
    aside.hidden = true;
    shown = null;
    document.body.classList.remove("has-panel");
    before?.focus({ preventScroll: true });
    app.changed();
  }

  async function drawn(id) {
    if (!mounted.has(id)) {
      const root = h("div.panel-body", { "data-panel": id });
      const made = panels[id]().then(({ mount }) => mount(root, app));
      made.catch(() => mounted.delete(id)); // the next drawing tries again
      mounted.set(id, { root, made });
      await made;
      aside.append(root);
    }
    const { root, made } = mounted.get(id);
    return { root, ...(await made) };
  }

  async function update() {
    const id = shown;
    if (!id) return;
    title.textContent = app.t(`${id}.title`);
    for (const [other, { root }] of mounted) root.hidden = other !== id || !app.run;
    if (!app.run) return;
    if (!mounted.has(id)) aside.ariaBusy = "true";
    try {
      const { root, update: draw } = await drawn(id);
      if (id !== shown) return;
      translate(root, app.t);
      await draw();
      aside.ariaBusy = "false";
      error.hidden = true;
    } catch (problem) {
      aside.ariaBusy = "false";
      if (!problem.status) console.error(problem);
      error.textContent = app.sentence(problem);
      error.hidden = false;
    }
  }

  function open(id) {
    if (!shown) before = document.activeElement;
    shown = id;
    aside.hidden = false;
    document.body.classList.add("has-panel");
    title.textContent = app.t(`${id}.title`);
    title.focus({ preventScroll: true });
    app.changed();
  }

  return { open, close: shut, update };
}
