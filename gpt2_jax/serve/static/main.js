// Starts the page: builds its frame, and lets sections and panels draw when something has changed.

import { h, fill } from "./core/dom.js";
import { header } from "./core/header.js";
import { makePanels } from "./core/panels.js";
import { ask } from "./core/ask.js";
import * as source from "./core/source.js";
import { makeStore } from "./core/store.js";
import { makeTour } from "./core/tour.js";
import { sections } from "./sections/index.js";

const DOCS = { en: "docs/how_gpt2_works.md", zh: "docs/how_gpt2_works.zh.md" };
const app = makeStore(changed);
globalThis.explorer = app;
const byId = (id) => document.getElementById(id);
const parts = sections.map(part);
const panels = makePanels(byId("panel"), app);
const top = header(byId("top"), app);
let language = null;

// Makes the frame of a section; it is mounted and drawn once it comes near the window.
function part(section, i) {
  const title = h("h2", { id: `${section.id}-title`, tabindex: -1 }), text = h("p", { class: "lead" });
  const error = h("p", { class: "error", hidden: true }), docs = h("p", { class: "docs" });
  const body = h("div", { class: "body" });
  const link = h("a", { href: `#${section.id}` });
  const root = h("section", { id: section.id, "aria-labelledby": title.id, "data-number": i + 1 },
    h("p", { class: "ordinal", "aria-hidden": "true" }, String(i + 1)), title, text, body, error, docs);
  byId("sections").append(root);
  byId("contents").append(link);
  link.addEventListener("click", (event) => {
    event.preventDefault();
    app.go(section.id);
  });
  return { section, root, body, title, text, error, docs, link, near: i < 1, dirty: true, drawn: null };
}

app.go = (id) => {
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  byId(id).scrollIntoView({ behavior: calm ? "auto" : "smooth" });
  byId(`${id}-title`).focus({ preventScroll: true });
};
app.tour = makeTour(app);
app.open = panels.open;
app.close = panels.close;
app.explain = (cell) => {
  app.explained = cell;
  panels.open("number");
};
source.keys.ask = (wrong) => ask(app, wrong);

async function draw(part) {
  if (!part.near || !part.dirty || !app.run) return;
  part.dirty = false;
  const epoch = app.epoch;
  try {
    part.drawn ??= part.section.mount(part.body, app);
    await part.drawn.update();
    part.error.hidden = true;
  } catch (error) {
    if (epoch !== app.epoch) return;
    if (!error.status) console.error(error);
    part.error.textContent = app.sentence(error);
    part.error.hidden = false;
  }
}

function changed() {
  const { theme } = app.state;
  if (theme) document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
  if (app.language && language !== app.language) translate();
  top.update();
  for (const part of parts) {
    part.dirty = true;
    draw(part);
  }
  panels.update();
  app.tour.update();
}

function translate() {
  language = app.language;
  document.documentElement.lang = language === "zh" ? "zh-Hans" : language;
  document.title = app.t("title");
  byId("skip").textContent = app.t("skip");
  byId("contents").setAttribute("aria-label", app.t("contents"));
  for (const { section: { id }, title, text, docs, link } of parts) {
    title.textContent = app.t(`${id}.title`);
    [link.textContent] = title.textContent.split(/[:：]/);
    text.textContent = app.t(`${id}.text`);
    fill(docs, `${app.t("docs")} `, h("code", null, `${DOCS[language]}#${id}`));
  }
}

function watch() {
  const near = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      const part = parts.find(({ root }) => root === entry.target);
      part.near = entry.isIntersecting;
      draw(part);
    }
  }, { rootMargin: "300px 0px" });
  const here = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      const { link } = parts.find(({ root }) => root === entry.target);
      if (entry.isIntersecting) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
  }, { rootMargin: "-30% 0px -60%" });
  parts.forEach(({ root }) => [near, here].forEach((observer) => observer.observe(root)));
  let width = 0;
  new ResizeObserver(([{ contentRect }]) => {
    if (width && Math.abs(width - contentRect.width) > 1) app.changed();
    width = contentRect.width;
  }).observe(byId("sections"));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", app.changed);
  addEventListener("hashchange", async () => {
    if (await app.restore(location.hash)) begin();
  });
}

async function begin() {
  const { language: asked } = app.state;
  app.state.language = asked ?? (navigator.language.startsWith("zh") ? "zh" : "en");
  await app.translate();
  if (!app.state.text && !app.state.tokens) app.state.text = app.t("example");
  await app.start();
  if (app.expected && app.run && app.expected !== app.run.fingerprint) app.notice = app.t("notice.fingerprint");
  app.changed();
}

async function open() {
  if (source.lesson) Object.assign(app.state, source.lesson.state);
  await app.restore(location.hash);
  try {
    const listed = await app.fetch("models");
    app.models = listed?.models ?? listed?.data ?? listed ?? [];
    if (!app.models.some((model) => model.id === app.state.model)) app.state.model = app.models[0]?.id ?? null;
  } catch (error) {
    app.error = app.sentence(error);
  }
  watch();
  await begin();
}

open();
