// The residual stream: how long its vectors are, and what each row of it would predict (the lens).

import { matrix } from "../core/canvas.js";
import { controls } from "../core/controls.js";
import { css, tint } from "../core/colors.js";
import { fill, h } from "../core/dom.js";
import { norm } from "../core/math.js";
import { row } from "../core/npy.js";
import { rowName, words } from "../core/parts.js";
import { number, percent, visible } from "../core/text.js";

export const id = "residual";
const TOP = 10, SHOWN = 4;

export function mount(root, app) {
  const tools = controls(app, ["query"]), title = h("h3"), norms = h("canvas"), lens = h("h3"), table = h("div", { class: "scroll tall", tabindex: 0, role: "region" });
  const about = h("p", { class: "small quiet check" }), grid = h("div", { class: "scroll tall", tabindex: 0, role: "region", hidden: true }), all = h("h3");
  const read = h("button", { type: "button", onclick: readAll });
  root.append(title, norms, tools.node, lens, table, about, all, h("p", null, read), grid);
  let shown = null, reading = 0;

  const shade = (prob) => ({ background: css(tint(prob)) });

  async function lensTable(t) {
    const found = await app.get(`lens/${t}`), count = found.shape[0], part = (i) => row(found, i).data;
    const V = app.run.config.vocab_size, best = Math.min(SHOWN, V);
    const texts = await words(app, Array.from({ length: count }, (_, i) => [...part(i).subarray(0, best)]).flat());
    const next = app.tokens()[t + 1];
    const head = ["row", ...Array(best).fill(""), "logprob", "rank", "entropy", "kl"].map((key, i) =>
      h(key ? "th" : "td", key ? { scope: "col" } : null, i === 1 ? app.t("lens.top") : key && app.t(`lens.${key}`, { token: next ? visible(next) : "–" })));
    const rows = Array.from({ length: count }, (_, i) => h("tr", null, h("th", { scope: "row" }, rowName(app, i)),
      Array.from({ length: best }, (_, n) => h("td", { style: shade(part(i)[TOP + n]), class: "read" },
        h("button", { type: "button", onclick: () => cell(found, i, TOP + n), "data-focus": `lens ${i} ${n}` }, h("code", null, texts[i * best + n]), ` ${percent(part(i)[TOP + n])}`))),
      [20, 21, 22, 23].map((n) => h("td", { class: "num" }, number(part(i)[n], 3)))));
    return h("table", { class: "lens" }, h("thead", null, h("tr", null, head)), h("tbody", null, rows.toReversed()));
  }

  function cell(found, i, n) {
    app.explain({ address: found.address, index: [i, n], value: row(found, i).data[n], formula: app.t("lens.formula") });
  }

  // Rows of the grid arrive one by one, so that a long text shows something soon.
  async function readAll() {
    const mine = ++reading, run = app.run.run, T = app.tokens().length, L = app.run.config.num_layers;
    const body = h("tbody"), spans = app.tokens().map((token) => h("th", { scope: "col" }, visible(token)));
    fill(grid, h("table", { class: "lens" }, h("thead", null, h("tr", null, h("th"), spans)), body));
    grid.hidden = false;
    shown = run;
    for (let l = L; l >= 0; l--) {
      read.textContent = app.t("lens.reading", { row: L - l + 1, rows: L + 1 });
      const found = await app.get(`lens_grid/${2 * l}`);
      const texts = await words(app, Array.from({ length: T }, (_, t) => row(found, t).data[0]));
      if (mine !== reading || run !== app.run.run) return;
      body.append(h("tr", null, h("th", { scope: "row" }, rowName(app, 2 * l)), texts.map((text, t) => {
        const [, prob, logprob, entropy] = row(found, t).data;
        return h("td", { style: shade(prob), title: app.t("lens.cell", { prob: percent(prob), logprob: number(logprob), entropy: number(entropy) }) }, h("code", null, text));
      })));
    }
    read.textContent = app.t("lens.read");
    app.say(app.t("lens.done"));
  }

  async function update() {
    const epoch = app.epoch, t = app.query();
    tools.update();
    title.textContent = app.t("residual.norms");
    lens.textContent = app.t("residual.lens", { token: visible(app.tokens()[t]) });
    all.textContent = app.t("residual.grid");
    for (const [node, label] of [[table, lens], [grid, all]]) node.setAttribute("aria-label", label.textContent);
    about.textContent = app.t("residual.about");
    if (shown !== app.run.run) {
      reading++;
      grid.hidden = true;
      read.textContent = app.t("lens.read");
    }
    const lengths = await app.get("norms");
    if (epoch !== app.epoch) return;
    const rows = Array.from({ length: lengths.shape[0] }, (_, i) => rowName(app, i));
    matrix(norms, lengths.data, lengths.shape, {
      scale: "max", rows, cols: app.tokens().map(visible), cellHeight: 14, label: title.textContent, cursor: [lengths.shape[0] - 1, t],
      tip: (i, s, value) => `${rows[i]} · ${visible(app.tokens()[s])}: |x| = ${number(value)}`,
      onCell: async (i, s, value) => {
        const stream = await app.get(`residual/${s}`);
        app.set({ query: s });
        app.explain({ address: "norms", index: [i, s], value, formula: "|x| = √Σ x[d]²", compute: norm, operands: [["x", row(stream, i).data, stream.address, [i]]] });
      },
    });
    const drawn = await lensTable(t);
    if (epoch === app.epoch) fill(table, drawn);
  }
  return { update };
}
