// What a query may see: the causal triangle beside BERT's square.

import { explainScore, isWhole, sees } from "../core/attention.js";
import { matrix } from "../core/canvas.js";
import { unmask } from "../core/changes.js";
import { controls } from "../core/controls.js";
import { h } from "../core/dom.js";
import { number, visible } from "../core/text.js";

export function mount(root, app) {
  const off = h("button", { id: "unmask", onclick: toggle }),
    said = h("p.small.quiet");
  const top = controls(app, ["layer", "head"], off);
  const parts = ["causal", "bert"].map((name) => ({
    name,
    title: h("h3"),
    text: h("p.small.quiet"),
    canvas: h("canvas"),
  }));
  root.append(
    top.node,
    said,
    h(
      "div.split.even",
      parts.map(({ title, text, canvas }) => h("div", title, text, canvas)),
    ),
  );

  const isOff = () => app.state.interventions.unmasked?.includes(app.layer()) ?? false;
  function toggle() {
    unmask(app, app.layer(), !isOff());
  }

  async function update() {
    top.update();
    off.textContent = app.t(isOff() ? "mask.on" : "mask.off", { layer: app.layer() });
    off.setAttribute("aria-pressed", String(isOff()));
    off.disabled = Boolean(app.lesson);
    said.textContent = app.t(isOff() ? "mask.isoff" : "mask.ison");
    const { epoch } = app,
      T = app.tokens().length,
      whole = isWhole(app),
      place = { l: app.layer(), h: app.head() },
      { attention_window: window } = app.run.config;
    const scores = whole ? await app.get(`head/${place.l}/${place.h}`) : null;
    if (epoch !== app.epoch) return;
    // A longer text is drawn by its mask alone, in steps.
    const n = whole ? T : 64,
      at = (i) => Math.floor((i * T) / n),
      names = whole ? app.tokens().map(visible) : null;
    const data = scores?.data ?? new Float32Array(n * n);
    const causal = (i, j) => at(j) <= at(i) && (!window || at(j) > at(i) - window);
    parts.forEach(({ name, title, text, canvas }) => {
      const seen = name === "bert" ? () => true : causal;
      title.textContent = app.t(`mask.${name}`);
      text.textContent = app.t(`mask.${name}.text`);
      const blank = [],
        height = n;
      matrix(canvas, data, [height, n], {
        scale: "signed",
        rows: names,
        cols: names,
        label: title.textContent,
        cell: 30,
        row: whole ? app.query() : null,
        width: canvas.parentElement.clientWidth,
        ...(!whole && { scale: "unit", colors: () => [97, 101, 111] }),
        alpha: (i, j) => (seen(i, j) ? 1 : 0.06),
        tip: (i, j, value) =>
          app.t(seen(i, j) ? "mask.seen" : "mask.unseen", {
            query: names?.[i] ?? at(i),
            key: names?.[j] ?? at(j),
            value: whole ? number(value) : "",
          }),
        onCell: (i, j) =>
          whole && (name === "causal") === !isOff()
            ? explainScore(app, { ...place, t: i }, j)
            : app.set({ query: at(i) }),
      });
    });
  }
  return { update };
}
