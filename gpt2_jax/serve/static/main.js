// Starts the page: builds its frame, and lets sections and panels draw when something has changed.

import { translate } from "./core/dom.js";
import { header } from "./core/header.js";
import { makePanels } from "./core/panels.js";
import { makePart } from "./core/part.js";
import * as source from "./core/source.js";
import { makeStore } from "./core/store.js";
import { sections } from "./sections/index.js";

const app = makeStore(changed);
globalThis.explorer = app;
const byId = (id) => document.getElementById(id);
const parts = Object.entries(sections).map(([id, load], i) => makePart(id, i + 1, load, app));
const panels = makePanels(byId("panel"), app);
const top = header(byId("top"), app);
let language = null,
  tour = null,
  asking = null;
byId("sections").append(...parts.map(({ root }) => root));
byId("contents").append(...parts.map(({ link }) => link));

app.go = (id) => {
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  byId(id).scrollIntoView({ behavior: calm ? "auto" : "smooth" });
  byId(`${id}-title`).focus({ preventScroll: true });
};
app.open = panels.open;
app.close = panels.close;
app.explain = (cell) => {
  const { run } = app; // whatever is typed next
  app.explained = { ...cell, run, asked: app.request(app.asked), from: app.model(run.model) };
  panels.open("number");
};
app.tour = async () => (await guide()).start();
source.keys.ask = (wrong) => {
  asking ??= import("./core/ask.js")
    .then(({ ask }) => ask(app, wrong))
    .finally(() => (asking = null)); // one question for all that wait
  return asking;
};

// The tour, which is loaded when it is started or when a link leads to a stop of it.
function guide() {
  tour ??= import("./core/tour.js").then(({ makeTour }) => makeTour(app));
  return tour;
}

function changed() {
  const { theme } = app.state;
  if (theme) document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
  if (app.language && language !== app.language) speak();
  top.update();
  for (const part of parts) {
    part.dirty = true;
    part.draw();
  }
  panels.update();
  if (tour || app.state.tour !== null) guide().then(({ update }) => update());
}

function speak() {
  language = app.language;
  document.documentElement.lang = language === "zh" ? "zh-Hans" : language;
  document.title = app.t("title");
  byId("contents").setAttribute("aria-label", app.t("contents"));
  translate(document, app.t);
  parts.forEach((part) => part.translate());
}

function watch() {
  const whose = ({ target }) => parts.find(({ root }) => root === target);
  const near = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        const part = whose(entry);
        part.near = entry.isIntersecting;
        part.draw();
      }
    },
    { rootMargin: "300px 0px" },
  );
  const here = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        const { link } = whose(entry);
        if (entry.isIntersecting) link.setAttribute("aria-current", "true");
        else link.removeAttribute("aria-current");
      }
    },
    { rootMargin: "-30% 0px -60%" },
  );
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

async function learn() {
  app.state.language ??= navigator.language.startsWith("zh") ? "zh" : "en";
  if (app.language !== app.state.language) await app.translate();
}

async function begin() {
  await learn();
  await (app.state.text === null && !app.state.tokens ? app.offer() : app.start());
  const others = app.expected && app.run && app.expected !== app.run.fingerprint;
  app.notice = app.damaged ? app.t("notice.link") : others ? app.t("notice.fingerprint") : "";
  app.changed();
}

async function open() {
  await app.restore(location.hash);
  await learn(); // the question for a key has words
  try {
    const listed = await app.fetch("models");
    app.models = listed?.models ?? listed?.data ?? listed ?? [];
    if (!app.models.some((model) => model.id === app.state.model)) {
      app.state.model = app.models[0]?.id ?? null;
    }
  } catch (error) {
    app.error = app.sentence(error);
  }
  watch();
  await begin();
}

open();
