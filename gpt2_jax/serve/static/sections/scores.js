// Scores of a head as a heat map; a cell opens its dot product. Heads are picked and pinned here.

import { explainScore, isWhole, rowOf, sees } from "../core/attention.js";
import { matrix } from "../core/canvas.js";
import { controls, shaded } from "../core/controls.js";
import { fill, h } from "../core/dom.js";
import { argmax, max } from "../core/math.js";
import { row } from "../core/npy.js";
import { overview } from "../core/overview.js";
import { number, percent, visible } from "../core/text.js";

export function mount(root, app) {
  const pin = h("button", { id: "pin", onclick: toggle });
  const top = controls(app, ["query", "layer", "head"], pin);
  const heads = overview(app),
    headsTitle = h("h3", { t: "overview.title" }),
    mapTitle = h("h3", { t: "scores.map" }),
    map = h("canvas", { id: "score-map" });
  const pins = h("div", { id: "pins" }),
    legend = h("p.small.quiet"),
    product = h("div", { id: "product" });
  root.append(
    top.node,
    h("div.split", h("div", mapTitle, map, legend), h("div", headsTitle, heads.node, product)),
    pins,
  );

  const same = ([l, head]) => l === app.layer() && head === app.head();
  function toggle() {
    const { pins: old } = app.state;
    app.set({
      pins: old.some(same)
        ? old.filter((pair) => !same(pair))
        : [...old, [app.layer(), app.head()]],
    });
  }

  async function whole(line, key) {
    const address = `head/${line.l}/${line.h}`,
      { epoch } = app;
    const array = await app.get(address);
    if (epoch !== app.epoch) return;
    const names = app.tokens().map(visible);
    matrix(map, array.data, array.shape, {
      scale: "signed",
      label: app.t("scores.map"),
      rows: names,
      cols: names,
      cell: 36,
      row: app.query(),
      cursor: [app.query(), key],
      limit: max(array.data.map(Math.abs)),
      alpha: (t, i) => (sees(app, t, i) ? 1 : 0.3),
      width: map.parentElement.clientWidth,
      tip: (t, i, value) =>
        app.t("scores.tip", { query: names[t], key: names[i], value: number(value) }),
      onCell: (t, i) => {
        app.set({ query: t, key: i });
        explainScore(app, { ...line, t }, i);
      },
    });
    legend.textContent = app.t("scores.legend");
  }

  async function pooled() {
    const address = `pooled/${app.layer()}/${app.head()}`,
      { epoch } = app,
      T = app.tokens().length;
    const array = await app.get(address);
    if (epoch !== app.epoch) return;
    const [n] = array.shape,
      start = (i) => Math.floor((i * T) / n),
      bin = (t) => Math.min(n - 1, Math.floor(((t + 1) * n - 1) / T));
    matrix(map, array.data, array.shape, {
      scale: "bytes",
      label: app.t("scores.pooled"),
      row: bin(app.query()),
      cell: 3,
      width: map.parentElement.clientWidth,
      hidden: (i, j) => j > i && !app.unmasked(),
      tip: (i, j, value) =>
        app.t("scores.pooledtip", { query: start(i), key: start(j), value: percent(value / 255) }),
      onCell: (i, j) => app.set({ query: start(i), key: start(j) }),
    });
    legend.textContent = app.t("scores.pooledlegend", { T });
  }

  // The dot product of the chosen query and key, term by term.
  async function terms(line, key) {
    const { epoch } = app,
      { l, h: head, t } = line,
      qkv = await app.get(`qkv/${l}/${head}`);
    if (epoch !== app.epoch) return;
    const scale = app.run.config.score_scale;
    const q = row(qkv, 0, t).data,
      k = row(qkv, 1, key).data,
      each = Float64Array.from(q, (value, i) => value * k[i]);
    const strip = (data, name) => {
      const canvas = h("canvas");
      requestAnimationFrame(() =>
        matrix(canvas, data, [1, data.length], {
          scale: "signed",
          label: name,
          cell: 8,
          cellHeight: 16,
          width: product.clientWidth,
          tip: (_, i, value) => `${name}[${i}] ${number(value)}`,
          onCell: () => explainScore(app, line, key),
        }),
      );
      return h("div", h("span.small.mono", name), canvas);
    };
    const names = [t, key].map((i) => visible(app.tokens()[i]));
    fill(
      product,
      h("h3", app.t("scores.product", { K: q.length })),
      strip(q, `q ${names[0]}`),
      strip(k, `k ${names[1]}`),
      strip(each, "q · k"),
      h(
        "p.mono.sum",
        `Σ × ${number(scale)} = `,
        h(
          "button.value.num",
          { id: "score", "data-focus": "score", onclick: () => explainScore(app, line, key) },
          number(line.scores[key], 5),
        ),
      ),
      h("p.small.quiet", app.t("scores.meaning", { query: names[0], key: names[1] })),
    );
  }

  // The chosen query in each pinned head.
  async function pinned() {
    const { epoch } = app,
      { config } = app.run;
    const list = app.state.pins.filter(
      ([l, head]) => l < config.num_layers && head < config.num_heads,
    );
    const lines = await Promise.all(list.map(([l, head]) => rowOf(app, app.query(), l, head)));
    if (epoch !== app.epoch) return;
    fill(
      pins,
      list.length > 0 &&
        h("h3", app.t("scores.pinned", { token: visible(app.tokens()[app.query()]) })),
      list.map(([layer, head], i) => {
        const data = lines[i].weights,
          strip = h("div"),
          best = max(data) || 1;
        shaded(strip, app.tokens(), {
          weights: (i) => data[i] / best,
          chosen: app.query(),
          onpick: (query) => app.set({ query }),
          title: (i) => percent(data[i]),
        });
        strip.setAttribute("aria-label", app.t("headname", { layer, head }));
        return h(
          "div.pinned",
          h(
            "button",
            { "data-focus": `p${layer}.${head}`, onclick: () => app.set({ layer, head }) },
            app.t("headname", { layer, head }),
          ),
          strip,
        );
      }),
    );
  }

  async function update() {
    top.update();
    const on = app.state.pins.some(same);
    pin.textContent = app.t(on ? "scores.unpin" : "scores.pin");
    pin.setAttribute("aria-pressed", String(on));
    const { epoch } = app,
      line = await rowOf(app);
    if (epoch !== app.epoch) return;
    const key = app.state.key === null ? argmax(line.weights) : app.key();
    await Promise.all([
      heads.update(),
      isWhole(app) ? whole(line, key) : pooled(),
      terms(line, key),
      pinned(),
    ]);
  }
  return { update };
}
