// Saves what the page shows: a picture, a table, all numbers of the state, a lesson.

import { chartOf } from "../core/canvas.js";
import { fill, h } from "../core/dom.js";
import { csvOf, pngOf, save, svgOf, views } from "../core/picture.js";

export function mount(root, app) {
  const select = h("select", { id: "export-view", onfocus: list, onchange: allow }),
    label = h("label", { for: select.id, t: "export.view" }),
    text = h("p.small.quiet", { t: "export.text" });
  const error = h("p.error", { role: "status" });
  let found = [];
  const node = () => (found[select.selectedIndex] ?? found[0])?.node;
  const name = (ending) =>
    `${found[select.selectedIndex]?.name.split(":")[0] ?? "explorer"}.${ending}`;
  const kinds = {
    png: async () => save(name("png"), await pngOf(node())),
    svg: () => save(name("svg"), svgOf(node()), "image/svg+xml"),
    csv: () => save(name("csv"), csvOf(node()), "text/csv"),
    json: async () => save("explorer.json", await numbers(), "application/json"),
    lesson: async () => save("lesson.html", await app.again(app.run.run, () => app.blob(lesson()))),
  };
  const buttons = Object.entries(kinds).map(([kind, act]) =>
    h("button", { "data-export": kind, onclick: () => run(act) }),
  );
  root.append(text, h("p.wide", label, select), h("div.stack", buttons), error);

  function lesson() {
    const shown = { layer: app.layer(), head: app.head(), query: app.query(), key: app.key() };
    const query = new URLSearchParams({ language: app.state.language, ...shown });
    return `run/${app.run.run}/lesson.html?${query}`;
  }

  async function run(act) {
    error.textContent = "";
    try {
      await act();
    } catch (problem) {
      error.textContent = app.sentence(problem);
    }
  }

  async function numbers() {
    const arrays = await app.arrays(),
      as = ({ shape, data }) => ({
        shape,
        data: Array.from(data, (value) => (Number.isFinite(value) ? value : null)),
      });
    return JSON.stringify({
      format: "gpt2_jax explorer",
      version: 1,
      state: app.shown(),
      summary: app.run,
      arrays: Object.fromEntries(arrays.map((array) => [array.address, as(array)])),
    });
  }

  function list() {
    const chosen = node();
    found = views();
    fill(
      select,
      found.map(({ node, name }) => h("option", { selected: node === chosen }, name)),
    );
    allow();
  }

  function allow() {
    buttons.slice(0, 2).forEach((button) => (button.disabled = !found.length));
    buttons[2].disabled = !found.length || !chartOf(node());
  }

  function update() {
    for (const button of buttons) button.textContent = app.t(`export.${button.dataset.export}`);
    buttons.at(-1).hidden = Boolean(app.lesson);
    if (document.activeElement !== select) list();
  }
  return { update };
}
