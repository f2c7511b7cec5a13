// Queries, keys and values of one head, a row for each token.

import { explainEntry } from "../core/attention.js";
import { matrix } from "../core/canvas.js";
import { controls } from "../core/controls.js";
import { h } from "../core/dom.js";
import { row } from "../core/npy.js";
import { at } from "../core/parts.js";
import { number, visible } from "../core/text.js";

const MOST = 32;

export function mount(root, app) {
  const top = controls(app, ["query", "layer", "head"]);
  const parts = ["q", "k", "v"].map((name) => ({
    name,
    title: h("h3"),
    text: h("p.small.quiet"),
    canvas: h("canvas"),
  }));
  const legend = h("p.small.quiet");
  root.append(
    top.node,
    h(
      "div.thirds",
      parts.map(({ title, text, canvas }) => h("div", title, text, canvas)),
    ),
    legend,
  );

  async function update() {
    top.update();
    const { epoch } = app,
      { l, h: head, t } = at(app);
    const array = await app.get(`qkv/${l}/${head}`);
    if (epoch !== app.epoch) return;
    const K = array.shape[2],
      T = app.tokens().length;
    const first = Math.max(0, Math.min(t - MOST + 4, T - MOST)),
      count = Math.min(MOST, T);
    const rows = app
      .tokens()
      .slice(first, first + count)
      .map(visible);
    parts.forEach(({ name, title, text, canvas }, n) => {
      title.textContent = app.t(`qkv.${name}`);
      text.textContent = app.t(`qkv.${name}.text`);
      matrix(canvas, row(array, n).data.subarray(first * K, (first + count) * K), [count, K], {
        scale: "signed",
        label: title.textContent,
        rows,
        row: t - first,
        cell: 8,
        cellHeight: 14,
        width: canvas.parentElement.clientWidth,
        tip: (i, k, value) => `${name}[${k}] ${app.t("of", { token: rows[i] })} ${number(value)}`,
        onCell: (i, k, value) => explainEntry(app, { l, h: head }, n, first + i, k, value),
      });
    });
    legend.textContent =
      T > count ? app.t("qkv.window", { first, last: first + count - 1 }) : app.t("signs");
  }
  return { update };
}
