// The MLP at one position: up to F neurons, the activation, and down again; and what neurons say.

import { ACTIVATIONS } from "../core/activations.js";
import { vector } from "../core/canvas.js";
import { controls } from "../core/controls.js";
import { fill, h, s } from "../core/dom.js";
import { times } from "../core/math.js";
import { row } from "../core/npy.js";
import { amounts, at, toggle, words } from "../core/parts.js";
import { number, visible } from "../core/text.js";
import { changed, factorOf } from "../core/changes.js";

const SHOWN = 12;

// The curve, and a dot of each neuron at (u, a).
function curve(app, pre, post) {
  const W = 420,
    H = 190,
    low = -5,
    high = 5,
    f = ACTIVATIONS[app.run.config.activation]?.[0];
  const x = (u) => ((Math.min(high, Math.max(low, u)) - low) / (high - low)) * W;
  const y = (a) => H - 24 - (Math.min(high, Math.max(-1, a)) / high) * (H - 48);
  const steps = times(101, (i) => low + (i / 100) * (high - low));
  const shown = Array.from(pre.keys()).filter((_, i) => i % Math.ceil(pre.length / 1000) === 0);
  return s(
    "svg",
    {
      viewBox: `0 0 ${W} ${H}`,
      class: "plot",
      role: "img",
      "aria-label": app.t("mlp.curve", { activation: app.run.config.activation }),
    },
    s("line", { x1: 0, x2: W, y1: y(0), y2: y(0), class: "axis" }),
    s("line", { x1: x(0), x2: x(0), y1: 0, y2: H, class: "axis" }),
    f &&
      s("path", {
        d: steps.map((u, i) => `${i ? "L" : "M"}${x(u).toFixed(1)} ${y(f(u)).toFixed(1)}`).join(""),
        class: "curve",
      }),
    shown.map((i) =>
      s("circle", { cx: x(pre[i]).toFixed(1), cy: y(post[i]).toFixed(1), r: 1.6, class: "dot" }),
    ),
    s("text", { x: W - 12, y: y(0) - 6, "text-anchor": "end" }, "u"),
    s("text", { x: x(0) + 6, y: 12 }, "a"),
    [-4, -2, 2, 4].map((u) =>
      s("text", { x: x(u), y: y(0) + 15, "text-anchor": "middle", class: "tick" }, number(u)),
    ),
  );
}

export function mount(root, app) {
  const tools = controls(app, ["layer", "query"]),
    sizes = h("div.updown", { "aria-hidden": "true" });
  const plot = h("div.grow"),
    strongest = h("div"),
    said = h("div"),
    title = h("h3"),
    list = h("h3", { t: "mlp.strongest" });
  const hidden = h("canvas"),
    all = h("h3"),
    out = h("canvas"),
    added = h("h3"),
    fact = h("p.small.quiet");
  root.append(
    tools.node,
    sizes,
    h("div.split", h("div", title, plot, fact), h("div", list, strongest)),
    said,
    all,
    hidden,
    added,
    out,
  );
  let chosen = null;

  function explain(l, t, pre, post, n) {
    const [f, formula] = ACTIVATIONS[app.run.config.activation] ?? [null, app.t("mlp.gated")],
      factor = factorOf(app.asked.interventions, "neurons", [l, n]);
    app.explain({
      address: `mlp/${l}/${t}`,
      index: [1, n],
      value: post[n],
      formula,
      operands: [["u", pre[n], `mlp/${l}/${t}`, [0, n]]],
      compute: f && ((u) => f(u) * factor),
    });
  }

  async function speak(l) {
    const neuron = await app.get(`neuron/${l}/${chosen}`),
      most = (i) => [...row(neuron, i).data].filter(Number.isFinite);
    const [ask, answer] = [await words(app, most(0)), await words(app, most(2))];
    const list = (texts, values) => amounts(texts.map((name, i) => ({ name, value: values[i] })));
    const factor = factorOf(app.state.interventions, "neurons", [l, chosen]);
    return [
      h("h3", app.t("mlp.neuron", { neuron: chosen, layer: l })),
      h(
        "p",
        toggle(
          factor === 0,
          () => changed(app, "neurons", [l, chosen], factor === 0 ? null : 0),
          app.t("off"),
        ),
      ),
      h(
        "div.split.even",
        h("div", h("h4", app.t("mlp.question")), list(ask, most(1))),
        h("div", h("h4", app.t("mlp.answer")), list(answer, most(3))),
      ),
      h("p.small.quiet", app.t("mlp.picture")),
    ];
  }

  async function update() {
    const epoch = app.epoch,
      { l, t } = at(app),
      { d_model: D, mlp_width: F, activation } = app.run.config;
    tools.update();
    const [both, strong, adds] = await Promise.all([
      app.get(`mlp/${l}/${t}`),
      app.get(`neurons/${l}`),
      app.get(`mlp_out/${l}/${t}`),
    ]);
    if (epoch !== app.epoch) return;
    const pre = row(both, 0).data,
      post = row(both, 1).data,
      best = row(strong, t),
      count = Math.min(SHOWN, best.shape[0]);
    fill(
      sizes,
      [
        ["x", D],
        ["u, a", F],
        ["+", D],
      ].map(([name, size]) =>
        h(
          "span",
          h("i", { style: { width: `${(100 * size) / Math.max(D, F)}%` } }),
          ` ${name}: ${size}`,
        ),
      ),
    );
    title.textContent = app.t("mlp.curve", { activation });
    fill(plot, curve(app, pre, post));
    fact.textContent = app.t("mlp.fact", {
      on: post.reduce((n, a) => n + (a > 0), 0),
      F,
      token: visible(app.tokens()[t]),
    });
    const rows = times(count, (i) => row(best, i).data);
    if (!rows.some(([n]) => n === chosen)) chosen ??= rows[0][0];
    if (chosen >= F) chosen = rows[0][0];
    fill(
      strongest,
      amounts(
        rows.map(([n, a, size]) => ({
          name: `${n}`,
          value: size,
          on: n === chosen,
          text: `a ${number(a, 3)} · ${number(size, 3)}`,
          onclick: () => {
            chosen = n;
            app.changed();
          },
        })),
      ),
    );
    all.textContent = app.t("mlp.all", { F });
    vector(hidden, post, {
      columns: 128,
      cell: 6,
      label: all.textContent,
      at: chosen,
      onCell: (n) => {
        chosen = n;
        explain(l, t, pre, post, n);
        app.changed();
      },
    });
    added.textContent = app.t("mlp.out", { D });
    vector(out, adds.data, {
      label: added.textContent,
      onCell: (d, value) =>
        app.explain({
          address: adds.address,
          index: [d],
          value,
          formula: `Σ_n a[n] W_out[n, ${d}] + b[${d}]`,
        }),
    });
    const spoken = await speak(l);
    if (epoch === app.epoch) fill(said, spoken);
  }
  return { update };
}
