// What attention adds to the stream: each head's part through its rows of W_O, and the bias.

import { matrix } from "../core/canvas.js";
import { controls } from "../core/controls.js";
import { fill, h, s } from "../core/dom.js";
import { row } from "../core/npy.js";
import { dot, norm, sum, times } from "../core/math.js";
import { amounts, at } from "../core/parts.js";
import { number } from "../core/text.js";

// D × K times K × D is D × D, but of rank K at most.
function lowRank(D, K) {
  const big = 92,
    small = Math.max(10, (big * K) / D);
  const box = (x, y, width, height, text) => [
    s("rect", { x, y, width, height, rx: 2 }),
    s("text", { x: x + width / 2, y: y + height + 15, "text-anchor": "middle" }, text),
  ];
  const sign = (x, text) => s("text", { x, y: 52, "text-anchor": "middle" }, text);
  const second = small + 34,
    third = second + big + 34;
  return s(
    "svg",
    {
      viewBox: `-14 0 ${third + big + 30} 112`,
      width: third + big + 30,
      height: 112,
      class: "diagram",
      "aria-hidden": "true",
    },
    box(0, 2, small, big, "W_V"),
    sign(small + 17, "·"),
    box(second, 2 + (big - small) / 2, big, small, "W_O"),
    sign(second + big + 17, "="),
    box(third, 2, big, big, `${D} × ${D}`),
  );
}

export function mount(root, app) {
  const tools = controls(app, ["layer", "query"]),
    parts = h("div"),
    check = h("p.small.quiet.check");
  const canvas = h("canvas"),
    title = h("h3"),
    each = h("h3", { t: "projection.each" }),
    map = h("h3"),
    about = h("p.small.quiet"),
    picture = h("div");
  root.append(tools.node, each, parts, check, title, canvas, map, picture, about);

  // One entry of a head's part, of the bias behind the heads, or of the sum, at the place drawn.
  async function explain({ l, t }, heads, names, i, d, value) {
    const { run } = app,
      H = names.length - 2,
      cell = { address: heads.address, index: [i, d], value };
    if (i > H) {
      cell.formula = "Σ_h (z_h W_O)[d] + b[d]";
      cell.compute = (...values) => sum(values);
      cell.operands = names
        .slice(0, -1)
        .map((name, n) => [name, row(heads, n).data[d], heads.address, [n, d]]);
    } else if (i === H) cell.formula = `b[${d}]`;
    else {
      const from = `z/${l}/${i}`,
        column = `w_o/${l}/${i}/${d}`;
      const [z, w] = await Promise.all([app.held(from), app.held(column)]);
      cell.formula = `Σ_k z_${i}[k] W_O[${i}, k, ${d}]`;
      cell.compute = z && w && dot;
      cell.operands = z &&
        w && [
          ["z", row(z, t).data, from, [t]],
          [`W_O[:, ${d}]`, w.data, column, []],
        ];
    }
    if (run === app.run) app.explain(cell);
  }

  async function update() {
    const epoch = app.epoch,
      { l, h: chosen, t } = at(app),
      { num_heads: H, head_dim: K, d_model: D } = app.run.config;
    tools.update();
    const heads = await app.get(`heads/${l}/${t}`);
    if (epoch !== app.epoch) return;
    const part = (i) => row(heads, i).data,
      total = part(H + 1),
      length = norm(total) || 1;
    const names = times(H + 2, (i) =>
      i < H ? app.t("head.name", { head: i }) : app.t(i === H ? "bias" : "sum"),
    );
    const along = names.slice(0, -1).map((_, i) => dot(part(i), total) / length);
    fill(
      parts,
      amounts(
        along.map((value, i) => ({
          name: names[i],
          value,
          on: i < H ? i === chosen : undefined,
          text: `${number(value)}  (|·| ${number(norm(part(i)), 3)})`,
          onclick: i < H && (() => app.set({ head: i })),
        })),
        { label: each.textContent, signed: true },
      ),
    );
    check.textContent = app.t("projection.check", {
      sum: number(sum(along), 6),
      norm: number(length, 6),
    });
    title.textContent = app.t("projection.vectors", { D });
    matrix(canvas, heads.data, heads.shape, {
      scale: "signed",
      rows: names,
      cellHeight: 14,
      label: title.textContent,
      row: chosen,
      onCell: (i, d, value) => explain({ l, t }, heads, names, i, d, value),
    });
    map.textContent = app.t("projection.map", { K, D });
    fill(picture, lowRank(D, K));
    about.textContent = app.t("projection.rank", { K, D });
  }
  return { update };
}
