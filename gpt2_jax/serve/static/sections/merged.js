// The outputs of all heads at one position, side by side: the vector that the projection reads.

import { explainOutput } from "../core/attention.js";
import { matrix } from "../core/canvas.js";
import { controls } from "../core/controls.js";
import { fill, h } from "../core/dom.js";
import { row } from "../core/npy.js";
import { times } from "../core/math.js";
import { at } from "../core/parts.js";
import { visible } from "../core/text.js";

const MOST_BYTES = 2 ** 22;

export function mount(root, app) {
  const tools = controls(app, ["layer", "query"]),
    note = h("p.small.quiet", { t: "merged.note" });
  const heads = h("canvas"),
    band = h("canvas"),
    names = h("div.segments.small", { "aria-hidden": "true" });
  const title = h("h3"),
    joined = h("h3"),
    more = h("button");
  const drawn = h("div", title, heads, joined, band, names, note);
  root.append(tools.node, more, drawn);
  const agreed = new Set();

  async function update() {
    const epoch = app.epoch,
      { l, t } = at(app);
    const { num_heads: H, head_dim: K } = app.run.config,
      T = app.tokens().length;
    tools.update();
    const asked = `${app.run.run}/${l}`,
      bytes = H * T * K * 4;
    more.hidden = bytes <= MOST_BYTES || agreed.has(asked);
    drawn.hidden = !more.hidden;
    if (!more.hidden) {
      more.textContent = app.t("load", { size: (bytes / 2 ** 20).toFixed(1) });
      more.onclick = () => {
        agreed.add(asked);
        app.changed();
      };
      return;
    }
    const z = await Promise.all(times(H, (head) => app.get(`z/${l}/${head}`)));
    if (epoch !== app.epoch) return;
    const flat = Float32Array.from(z.flatMap((array) => [...row(array, t).data]));
    const rows = z.map((_, i) => app.t("head.name", { head: i }));
    const onCell = (i, k, value) => explainOutput(app, { l, h: i, t }, k, value);
    const tip = (i, k) => `${rows[i]}, z[${k}] = ${flat[i * K + k]}`;
    title.textContent = app.t("merged.heads", { H, K, token: visible(app.tokens()[t]) });
    matrix(heads, flat, [H, K], {
      scale: "signed",
      rows,
      cellHeight: 14,
      label: title.textContent,
      onCell,
      tip,
      row: at(app).h,
    });
    joined.textContent = app.t("merged.joined", { H, K, D: H * K });
    matrix(band, flat, [1, H * K], {
      scale: "signed",
      cellHeight: 26,
      label: joined.textContent,
      onCell: (_, n, value) => onCell(Math.floor(n / K), n % K, value),
      tip: (_, n) => tip(Math.floor(n / K), n % K),
    });
    names.style.width = band.style.width;
    fill(
      names,
      rows.map((_, i) => h("span", { class: i === at(app).h ? "on" : null }, i)),
    );
  }
  return { update };
}
