// One row of scores becomes weights: exponents, their sum, their shares.

import { explainScore, explainWeight, rowOf } from "../core/attention.js";
import { controls } from "../core/controls.js";
import { fill, h } from "../core/dom.js";
import { difference, largest } from "../core/math.js";
import { number, percent, visible } from "../core/text.js";

export const id = "softmax";
const MOST = 64;

export function mount(root, app) {
  const top = controls(app, ["query", "layer", "head"]);
  const table = h("div", { class: "scroll", tabindex: 0, role: "region", id: "softmax-rows" }), said = h("p", { class: "formula" });
  root.append(top.node, said, table);

  async function update() {
    top.update();
    const { epoch } = app, line = await rowOf(app);
    if (epoch !== app.epoch) return;
    const { scores, seen, weights, exp, total, top: most, probs } = line, t = line.t;
    const all = Array.from(scores, (_, s) => s).filter((s) => s <= t || seen[s]);
    const rest = all.length > MOST, list = largest(weights, rest ? MOST : weights.length).map(([s]) => s).filter((s) => all.includes(s));
    const best = Math.max(...weights), cell = (s, key, text, onclick) => h("td", { class: "num" },
      h("button", { type: "button", class: "value num", "data-focus": `${key}${s}`, onclick }, text));
    const tell = (s) => h("tr", { class: seen[s] ? "" : "unseen" }, h("th", { scope: "row", class: "mono" }, `${visible(app.tokens()[s])} `, h("span", { class: "quiet" }, s)),
      cell(s, "s", number(scores[s], 4), () => explainScore(app, s)), h("td", { class: "num" }, seen[s] ? number(exp[s], 4) : app.t("softmax.masked")),
      cell(s, "p", percent(weights[s]), () => explainWeight(app, line, s)),
      h("td", { class: "wide" }, h("span", { class: "bar-room" }, h("span", { class: "fill", style: { width: `${100 * weights[s] / best}%` } }))));
    const heads = ["token", "score", "softmax.exp", "softmax.share"].map((key) => h("th", { scope: "col" }, app.t(key)));
    const away = Math.max(...weights.map((weight, s) => difference(weight, probs[s])));
    said.textContent = app.t("softmax.said", { most: number(most, 4), total: number(total, 5), away: number(away, 2) });
    table.setAttribute("aria-label", app.t("softmax.title"));
    fill(table, rest && h("p", { class: "small quiet" }, app.t("softmax.rest", { count: MOST, all: all.length })),
      h("table", { class: "full" }, h("thead", null, h("tr", null, heads, h("td"))), h("tbody", null, list.map(tell))));
  }
  return { update };
}
