// One section of the page: its frame at once, its module and its drawing when it comes near.

import { fill, h, translate } from "./dom.js";

const FIRST = "prompt"; // is there without a run, which its text may have been refused for
const DOCS = { en: "how_gpt2_works.md", zh: "how_gpt2_works.zh.md" };

// Returns {root, link, near, dirty, draw, translate}; `load` gives the section's module.
export function makePart(id, number, load, app) {
  const title = h("h2", { id: `${id}-title`, tabindex: -1, t: `${id}.title` });
  const error = h("p.error", { hidden: true }),
    docs = h("p.docs"),
    body = h("div.body");
  const root = h(
    "section",
    { id, "aria-labelledby": title.id, "data-number": number },
    title,
    h("p.lead", { t: `${id}.text` }),
    body,
    error,
    docs,
  );
  const link = h("a", { href: `#${id}`, onclick: go });
  const part = { root, link, near: false, dirty: true, draw, translate: words };
  let made = null;

  function go(event) {
    event.preventDefault();
    app.go(id);
  }

  function words() {
    translate(root, app.t);
    [link.textContent] = title.textContent.split(/[:：]/);
    const page = DOCS[app.language];
    fill(
      docs,
      `${app.t("docs")} `,
      app.lesson
        ? h("code", `docs/${page}#${id}`)
        : h("a", { href: `docs/${page}#${id}`, target: "_blank" }, `docs/${page}#${id}`),
    );
  }

  async function mounted() {
    try {
      const { mount } = await load();
      return mount(body, app);
    } catch (problem) {
      made = null; // the next drawing tries again
      throw problem;
    }
  }

  async function draw() {
    if (!part.near || !part.dirty || !app.language || !(app.run || id === FIRST)) return;
    part.dirty = false;
    const { epoch } = app;
    root.ariaBusy = "true";
    try {
      made ??= mounted();
      const drawn = await made;
      if (epoch !== app.epoch) return;
      translate(body, app.t);
      await drawn.update();
      error.hidden = true;
    } catch (problem) {
      if (epoch !== app.epoch) return;
      if (!problem.status) console.error(problem);
      error.textContent = app.sentence(problem);
      error.hidden = false;
    } finally {
      if (epoch === app.epoch) root.ariaBusy = "false";
    }
  }
  return part;
}
