// Row of the token table + row of the position table = what enters block 0.

import { vector } from "../core/canvas.js";
import { controls } from "../core/controls.js";
import { h } from "../core/dom.js";
import { maxAbs } from "../core/math.js";
import { row } from "../core/npy.js";
import { visible } from "../core/text.js";

export function mount(root, app) {
  const top = controls(app, ["query"]);
  const parts = [0, 1, 2].map(() => ({ title: h("h3"), canvas: h("canvas") }));
  const legend = h("p.small.quiet", { t: "signs" });
  let over = null;
  root.append(top.node, ...parts.flatMap(({ title, canvas }) => [title, canvas]), legend);

  async function update() {
    top.update();
    const t = app.query(),
      address = `embedding/${t}`,
      { epoch } = app;
    const array = await app.get(address);
    if (epoch !== app.epoch) return;
    const rows = [0, 1, 2].map((i) => row(array, i).data),
      token = app.tokens()[t];
    const none = maxAbs(rows[1]) === 0;
    const names = [
      app.t("embedding.token", { token: visible(token), id: token.id }),
      app.t(none ? "embedding.none" : "embedding.position", { t }),
      app.t("embedding.sum"),
    ];
    const explain = (which, i) =>
      app.explain({
        address,
        index: [which, i],
        value: rows[which][i],
        formula: app.t(`embedding.formula${which}`, { id: token.id, t, i }),
        ...(which === 2 && {
          operands: [
            ["wte", rows[0][i], address, [0, i]],
            ["wpe", rows[1][i], address, [1, i]],
          ],
          compute: (a, b) => a + b,
        }),
      });
    const draw = () =>
      rows.forEach((data, which) =>
        vector(parts[which].canvas, data, {
          label: names[which],
          at: over,
          limit: maxAbs(rows[2]),
          onCell: (i) => explain(which, i),
          width: root.clientWidth,
          onHover: (i, j) => {
            over = i === null ? null : i * Math.min(64, data.length) + j;
            draw();
          },
        }),
      );
    draw();
    parts.forEach(({ title }, i) => (title.textContent = ["", "+ ", "= "][i] + names[i]));
  }
  return { update };
}
