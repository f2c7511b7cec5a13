// One row of scores becomes weights: exponents, their sum, their shares.

import { explainScore, explainWeight, rowOf } from "../core/attention.js";
import { controls } from "../core/controls.js";
import { fill, h } from "../core/dom.js";
import { difference, largest } from "../core/math.js";
import { region, table } from "../core/tables.js";
import { number, percent, visible } from "../core/text.js";

const MOST = 64;

export function mount(root, app) {
  const top = controls(app, ["query", "layer", "head"]);
  const rows = region("scroll", { id: "softmax-rows", named: "softmax.title" }),
    said = h("p.formula");
  root.append(top.node, said, rows);

  async function update() {
    top.update();
    const { epoch } = app,
      line = await rowOf(app);
    if (epoch !== app.epoch) return;
    const { scores, seen, weights, exp, total, top: most, probs } = line,
      t = line.t;
    const all = Array.from(scores, (_, s) => s).filter((s) => s <= t || seen[s]);
    const rest = all.length > MOST,
      list = largest(weights, rest ? MOST : weights.length)
        .map(([s]) => s)
        .filter((s) => all.includes(s));
    const best = Math.max(...weights),
      cell = (s, key, text, onclick) =>
        h("td.num", h("button.value.num", { "data-focus": `${key}${s}`, onclick }, text));
    const tell = (s) =>
      h(
        "tr",
        { class: seen[s] ? "" : "unseen" },
        h(
          "th",
          { scope: "row", class: "mono" },
          `${visible(app.tokens()[s])} `,
          h("span.quiet", s),
        ),
        cell(s, "s", number(scores[s], 4), () => explainScore(app, line, s)),
        h("td.num", seen[s] ? number(exp[s], 4) : app.t("softmax.masked")),
        cell(s, "p", percent(weights[s]), () => explainWeight(app, line, s)),
        h(
          "td.room",
          h("span.bar-room", h("span.fill", { style: { width: `${(100 * weights[s]) / best}%` } })),
        ),
      );
    const heads = ["token", "score", "softmax.exp", "softmax.share"].map((key) => app.t(key));
    const away = Math.max(...weights.map((weight, s) => difference(weight, probs[s])));
    said.textContent = app.t("softmax.said", {
      most: number(most, 4),
      total: number(total, 5),
      away: number(away, 2),
    });
    fill(
      rows,
      rest && h("p.small.quiet", app.t("softmax.rest", { count: MOST, all: all.length })),
      table([...heads, ""], list.map(tell), "table.full"),
    );
  }
  return { update };
}
