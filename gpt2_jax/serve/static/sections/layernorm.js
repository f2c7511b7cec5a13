// A vector before a norm, normalized here, and behind it.

import { vector } from "../core/canvas.js";
import { controls } from "../core/controls.js";
import { choice, fill, h } from "../core/dom.js";
import { dot, mean, variance } from "../core/math.js";
import { row } from "../core/npy.js";
import { number } from "../core/text.js";

export function mount(root, app) {
  let which = "1";
  const pick = h("span");
  const top = controls(app, ["query", "layer"], pick);
  const parts = [0, 1, 2].map(() => ({
    title: h("h3"),
    facts: h("p.small.num.quiet"),
    canvas: h("canvas"),
  }));
  root.append(
    top.node,
    ...parts.map(({ title, facts, canvas }) => h("div", h("div.tools.head", title, facts), canvas)),
  );

  async function update() {
    top.update();
    fill(
      pick,
      choice(
        { 1: app.t("layernorm.1"), 2: app.t("layernorm.2"), f: app.t("layernorm.f") },
        which,
        (key) => {
          which = key;
          app.changed();
        },
        app.t("layernorm.which"),
      ),
    );
    const { epoch } = app,
      t = app.query();
    const address = which === "f" ? `ln/f/${t}` : `ln/${app.layer()}/${which}/${t}`;
    const array = await app.get(address);
    if (epoch !== app.epoch) return;
    const [x, y] = [row(array, 0).data, row(array, 1).data],
      { norm, layer_norm_epsilon: epsilon } = app.run.config;
    const rms = norm === "rms",
      center = rms ? 0 : mean(x),
      spread = rms ? dot(x, x) / x.length : variance(x);
    const plain = (value, middle, square) => (value - middle) / Math.sqrt(square + epsilon);
    const normal = Float64Array.from(x, (value) => plain(value, center, spread));
    const facts = (values) => {
      const center = Math.abs(mean(values)) < 1e-12 ? 0 : mean(values);
      const spread = number(Math.sqrt(variance(values)), 3);
      return `${app.t("mean")} ${number(center, 3)}   ${app.t("deviation")} ${spread}`;
    };
    const formula = app.t(rms ? "layernorm.rms" : "layernorm.formula");
    const from = [
      ["x", "x", 0],
      [app.t("mean"), center],
      [app.t(rms ? "meansquare" : "variance"), spread],
    ];
    const gains = address.replace(/^ln/, "gain").replace(/\/\d+$/, "");
    async function explain(i, n) {
      const { run } = app,
        held = n === 2 && (await app.held(gains));
      if (run !== app.run) return; // another text
      app.explain({
        address,
        index: [n === 2 ? 1 : 0, i],
        value: [x, normal, y][n][i],
        formula: n === 0 ? "x" : n === 1 ? formula : app.t("layernorm.scaled"),
        operands:
          n === 0
            ? []
            : n === 1
              ? [["x", x[i], address, [0, i]], ...from.slice(1)]
              : [
                  [app.t("layernorm.normal"), normal[i]],
                  ...(held ? ["gain", "bias"] : []).map((name, g) => [
                    app.t(name),
                    row(held, g).data[i],
                    gains,
                    [g, i],
                  ]),
                ],
        compute: n === 1 ? plain : held && ((x, gain, bias) => x * gain + bias),
        derived: n === 1,
      });
    }
    [x, normal, y].forEach((data, n) => {
      const { title, canvas, facts: line } = parts[n];
      title.textContent = app.t(["layernorm.before", "layernorm.normal", "layernorm.after"][n]);
      line.textContent = facts(data);
      vector(canvas, data, {
        label: title.textContent,
        onCell: (i) => explain(i, n),
        width: root.clientWidth,
      });
    });
  }
  return { update };
}
