// One path for each token through the stack, and what the chosen one takes from others on its way.

import { controls } from "../core/controls.js";
import { fill, h, s } from "../core/dom.js";
import { note } from "../core/live.js";
import { max, norm, times } from "../core/math.js";
import { row } from "../core/npy.js";
import { number, percent, visible } from "../core/text.js";

const FEW = 3;

export function mount(root, app) {
  const top = controls(app, ["query"]);
  const picture = h("div.scroll-x", { tabindex: 0, role: "group", named: "journey.title" }),
    more = h("details"),
    legend = h("p.small.quiet");
  root.append(top.node, picture, legend, more);

  const place = (i) =>
    i === 0
      ? app.t("journey.in")
      : app.t(i % 2 ? "journey.attention" : "journey.mlp", { l: Math.floor((i - 1) / 2) });

  async function explain(i, t, value) {
    const { run } = app,
      address = `residual/${t}`,
      x = row(await app.get(address), i).data;
    if (run !== app.run) return; // another text
    app.explain({
      address: "norms",
      index: [i, t],
      value,
      formula: app.t("journey.formula"),
      operands: [["x", x, address, [i]]],
      compute: norm,
    });
  }

  async function update() {
    top.update();
    const { epoch } = app,
      t = app.query(),
      T = app.tokens().length,
      L = app.run.config.num_layers;
    const [norms, weights] = await Promise.all([app.get("norms"), app.get(`sources/${t}`)]);
    if (epoch !== app.epoch) return;
    const long = app.tokens().some((token) => visible(token).length > 3),
      [WIDE, letters] = long ? [56, 7] : [30, 3],
      room = root.clientWidth,
      count = Math.max(FEW, Math.min(T, Math.floor((room - 70) / WIDE)));
    const first = Math.max(0, Math.min(t - count + 1 + Math.floor(count / 4), T - count)),
      last = Math.min(T, first + count);
    const rows = 2 * L + 1,
      gap = Math.max(5, Math.min(44, 560 / rows)),
      height = (rows - 1) * gap + 76;
    const x = (i) => 66 + (i - first + 0.5) * WIDE,
      y = (i) => height - 40 - i * gap,
      most = max(norms.data);
    const at = (i, token) => norms.data[i * T + token];
    const nodes = [],
      short = (i) => visible(app.tokens()[i]).slice(0, letters);
    for (let token = first; token < last; token++) {
      const mine = token === t;
      nodes.push(
        s("path", { d: `M${x(token)} ${y(0)}V${y(rows - 1)}`, class: mine ? "path mine" : "path" }),
      );
      nodes.push(
        s(
          "text",
          { x: x(token), y: height - 18, class: mine ? "mine" : "", "text-anchor": "middle" },
          short(token),
        ),
      );
      nodes.push(
        s(
          "text",
          { x: x(token), y: 20, class: mine ? "mine" : "faint", "text-anchor": "middle" },
          visible(app.tokens()[token].top[0][1]).slice(0, letters),
        ),
      );
      for (let i = 0; i < rows; i++) {
        const length = `|x| = ${number(at(i, token))}`;
        const told = `${visible(app.tokens()[token])} (${token}), ${place(i)}: ${length}`;
        nodes.push(
          s("circle", {
            cx: x(token),
            cy: y(i),
            r: 1 + Math.min(6.5, 0.34 * gap) * Math.sqrt(at(i, token) / most),
            class: mine ? "node mine" : "node",
            onclick: () => explain(i, token, at(i, token)),
            onpointermove: (event) => note(told, event.clientX, event.clientY),
            onpointerleave: () => note(""),
          }),
        );
      }
    }
    for (let l = 0; l < L; l++) {
      row(weights, l).data.forEach((weight, from) => {
        if (from === t || from < first || from >= last || weight < 0.01) return;
        const [x0, y0, x1, y1] = [x(from), y(2 * l), x(t), y(2 * l + 1)];
        nodes.unshift(
          s("path", {
            d: `M${x0} ${y0}C${x0} ${(y0 + y1) / 2} ${x1} ${(y0 + y1) / 2} ${x1} ${y1}`,
            class: "arc",
            "stroke-width": 1 + 7 * weight,
            "stroke-opacity": 0.15 + 0.8 * weight,
            onpointermove: (event) =>
              note(
                app.t("journey.arc", {
                  l,
                  from: visible(app.tokens()[from]),
                  share: percent(weight),
                }),
                event.clientX,
                event.clientY,
              ),
            onpointerleave: () => note(""),
          }),
        );
      });
      if (gap >= 9 || l % 4 === 0)
        nodes.push(
          s("text", { x: 0, y: y(2 * l + 1.5) + 4, class: "faint" }, app.t("journey.block", { l })),
        );
    }
    fill(
      picture,
      s(
        "svg",
        {
          width: x(last - 1) + 24,
          height,
          role: "img",
          "aria-label": app.t("journey.label", { token: visible(app.tokens()[t]), L }),
        },
        s("text", { x: 0, y: 20, class: "faint" }, app.t("journey.out")),
        s("text", { x: 0, y: height - 18, class: "faint" }, app.t("token")),
        nodes,
      ),
    );
    legend.textContent =
      app.t("journey.legend") +
      (last - first < T ? ` ${app.t("qkv.window", { first, last: last - 1 })}` : "");
    fill(
      more,
      h("summary", app.t("journey.table", { token: visible(app.tokens()[t]) })),
      h(
        "table",
        h(
          "tbody",
          times(rows, (i) =>
            h(
              "tr",
              h("th", { scope: "row" }, place(i)),
              h(
                "td",
                h(
                  "button.value.num",
                  { "data-focus": `n${i}`, onclick: () => explain(i, t, at(i, t)) },
                  number(at(i, t)),
                ),
              ),
            ),
          ),
        ),
      ),
    );
  }
  return { update };
}
