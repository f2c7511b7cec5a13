// The head's output is the sum of values, each times its weight: what is heavy is opaque.

import { explainOutput, explainWeight, isWhole, rowOf } from "../core/attention.js";
import { matrix } from "../core/canvas.js";
import { controls, shade, shaded } from "../core/controls.js";
import { choice, fill, h } from "../core/dom.js";
import { dot, largest, max } from "../core/math.js";
import { row } from "../core/npy.js";
import { number, percent, visible } from "../core/text.js";

const MOST = 12;

export function mount(root, app) {
  let by = "weights";
  const pick = h("span", { id: "measure" }),
    top = controls(app, ["query", "layer", "head"], pick);
  const strip = h("div", { id: "attended", named: "weighted.strip" }),
    said = h("p.small.quiet"),
    hint = h("p.small.quiet", { t: "weighted.hint" });
  const titles = [h("h3"), h("h3")],
    values = h("canvas"),
    output = h("canvas");
  root.append(top.node, hint, strip, said, titles[0], values, titles[1], output);

  async function update() {
    top.update();
    fill(
      pick,
      choice(
        { weights: app.t("weighted.alpha"), written: app.t("weighted.written") },
        by,
        (key) => {
          by = key;
          app.changed();
        },
        app.t("weighted.by"),
      ),
    );
    const { epoch } = app,
      line = await rowOf(app),
      tokens = app.tokens(),
      t = line.t,
      l = line.l,
      head = line.h;
    const from = `qkv/${l}/${head}`,
      target = `z/${l}/${head}`;
    const [qkv, z] = await Promise.all([app.get(from), app.get(target)]);
    const matrixOf = isWhole(app)
      ? await app.get(`${by === "weights" ? "pattern" : "weighted"}/${l}/${head}`)
      : null;
    if (epoch !== app.epoch) return;
    const of = (query) => (query === t ? line[by] : row(matrixOf, query).data);
    const weighed = (data) => {
      const best = max(data) || 1;
      return (i) => data[i] / best;
    };
    const tell = (data, query) => {
      const best = largest(data, 3).map(
        ([i, value]) =>
          `${visible(tokens[i])} (${i}) ${by === "weights" ? percent(value) : number(value, 3)}`,
      );
      said.textContent = app.t("weighted.attends", {
        token: visible(tokens[query]),
        t: query,
        best: best.join(", "),
      });
    };
    shaded(strip, tokens, {
      weights: weighed(line[by]),
      chosen: t,
      onpick: (query) => app.set({ query }),
      onover:
        matrixOf &&
        ((i) => {
          shade(strip, weighed(of(i ?? t)));
          tell(of(i ?? t), i ?? t);
        }),
    });
    tell(line[by], t);
    draw(line, row(qkv, 2), row(z, t).data, from, target);
  }

  // The heaviest values, a row for each, and their sum.
  function draw(line, v, z, from, target) {
    const { weights, written, t } = line,
      K = v.shape[1],
      alpha = line[by],
      best = max(alpha) || 1;
    const list = largest(alpha, Math.min(MOST, alpha.length))
      .map(([s]) => s)
      .filter((s) => line.seen[s])
      .toSorted((a, b) => a - b);
    const data = new Float32Array(list.length * K);
    list.forEach((s, i) => data.set(row(v, s).data, i * K));
    const names = list.map((s) => `${visible(app.tokens()[s])} ${percent(weights[s])}`),
      seen = Array.from(weights, (_, s) => s).filter((s) => line.seen[s]);
    const width = values.parentElement.clientWidth,
      left = Math.min(130, 0.24 * width),
      limit = Math.max(...data.map(Math.abs));
    titles[0].textContent = app.t(
      list.length < seen.length ? "weighted.heaviest" : "weighted.values",
      { count: list.length },
    );
    titles[1].textContent = app.t("weighted.output");
    matrix(values, data, [list.length, K], {
      scale: "signed",
      limit,
      label: titles[0].textContent,
      rows: names,
      left,
      cell: 11,
      cellHeight: 16,
      width,
      alpha: (i) => 0.08 + (0.92 * alpha[list[i]]) / best,
      tip: (i, k, value) =>
        app.t("weighted.tip", {
          token: names[i],
          k,
          value: number(value),
          part: number(value * weights[list[i]]),
          written: number(written[list[i]], 3),
        }),
      onCell: (i) => explainWeight(app, line, list[i]),
    });
    matrix(output, z, [1, K], {
      scale: "signed",
      limit,
      label: titles[1].textContent,
      rows: [`z ${visible(app.tokens()[t])}`],
      left,
      cell: 11,
      cellHeight: 20,
      width,
      onCell: (_, k, value) => explainOutput(app, line, k, value),
    });
  }
  return { update };
}
