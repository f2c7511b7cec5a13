// One logit: the last vector times the token's output vector, and as a sum over the model's parts.

import { matrix } from "../core/canvas.js";
import { controls } from "../core/controls.js";
import { fill, h } from "../core/dom.js";
import { difference, dot, largest, sum, times } from "../core/math.js";
import { row } from "../core/npy.js";
import { amounts, words } from "../core/parts.js";
import { number, visible } from "../core/text.js";

const SHOWN = 10;

export function mount(root, app) {
  const tools = controls(app, ["query"]),
    list = h("div"),
    title = h("h3"),
    product = h("p"),
    parts = h("h3"),
    error = h("p.error");
  const sizes = h("div"),
    heads = h("canvas"),
    headsTitle = h("h4", { t: "logits.heads" }),
    mlps = h("div"),
    mlpsTitle = h("h4", { t: "logits.mlps" }),
    check = h("p.small.quiet.check");
  const own = h("div.split", h("div", headsTitle, heads), h("div", mlpsTitle, mlps));
  root.append(tools.node, title, list, product, parts, error, sizes, own, check);
  let token = null;

  async function explain(t, token, value) {
    const { logit_softcap: cap, norm_position, num_layers: L } = app.run.config,
      post = norm_position === "post",
      { run } = app;
    const [last, output] = await Promise.all([
        app.get(post ? `residual/${t}` : `ln/f/${t}`),
        app.get(`output/${token}`),
      ]),
      at = post ? 2 * L : 1;
    if (run !== app.run) return; // another text
    app.explain({
      address: `logits/${t}`,
      index: [token],
      value,
      formula: app.t(cap ? "logits.capped" : "logits.formula", { cap }),
      operands: [
        [post ? "x" : "ln_f(x)", row(last, at).data, last.address, [at]],
        ["w", output.data, output.address, []],
      ],
      compute: (x, w) => (cap ? cap * Math.tanh(dot(x, w) / cap) : dot(x, w)),
    });
  }

  function showParts(found, logit) {
    const { num_layers: L, num_heads: H, logit_softcap: cap } = app.run.config,
      data = found.data,
      first = L * H;
    const of = (from, count) => sum(data.subarray(from, from + count)),
      last = first + 2 * L;
    const rows = [
      ["heads", of(0, first)],
      ["biases", of(first, L)],
      ["mlps", of(first + L, L)],
      ["token", data[last]],
      ["position", data[last + 1]],
      ["norms", data[last + 2]],
    ];
    fill(
      sizes,
      amounts(
        rows.map(([name, value]) => ({ name: app.t(`part.${name}`), value })),
        { label: parts.textContent, signed: true },
      ),
    );
    matrix(heads, data.subarray(0, first), [L, H], {
      scale: "signed",
      cell: 26,
      rows: times(L, (l) => String(l)),
      cols: times(H, (n) => String(n)),
      label: headsTitle.textContent,
      cursor: [app.state.layer, app.state.head],
      tip: (l, n, value) => `${app.t("head.of", { layer: l, head: n })}: ${number(value)}`,
      onCell: (l, n, value) => {
        app.set({ layer: l, head: n });
        app.explain({
          address: found.address,
          index: [l * H + n],
          value,
          formula: app.t("logits.part"),
        });
      },
    });
    fill(
      mlps,
      amounts(
        times(L, (l) => ({ name: app.t("row.mlp", { layer: l }), value: data[first + L + l] })),
        { signed: true },
      ),
    );
    const total = sum(data.subarray(0, last + 3)),
      uncapped = cap ? cap * Math.atanh(logit / cap) : logit;
    check.textContent = app.t("logits.check", {
      count: last + 3,
      sum: number(total, 7),
      logit: number(uncapped, 7),
      difference: number(difference(total, uncapped), 2),
    });
  }

  async function update() {
    const epoch = app.epoch,
      t = app.query();
    const logits = await app.get(`logits/${t}`),
      best = largest(logits.data, SHOWN);
    if (epoch !== app.epoch) return;
    if (token === null || !best.some(([other]) => other === token)) token = best[0][0];
    tools.update();
    const texts = await words(
      app,
      best.map(([other]) => other),
    );
    if (epoch !== app.epoch) return;
    const chosen = token,
      text = texts[best.findIndex(([other]) => other === chosen)],
      value = logits.data[chosen];
    title.textContent = app.t("logits.best", { token: visible(app.tokens()[t]) });
    fill(
      list,
      amounts(
        best.map(([other, value], i) => ({
          name: texts[i],
          value,
          on: other === token,
          onclick: () => {
            token = other;
            app.changed();
          },
        })),
        { label: title.textContent },
      ),
    );
    fill(
      product,
      h(
        "button",
        { onclick: () => explain(t, chosen, value) },
        app.t("logits.product", { text, D: app.run.config.d_model, value: number(value, 6) }),
      ),
    );
    parts.textContent = app.t("logits.parts", { text });
    try {
      const found = await app.get(`attribution/${t}/${chosen}`);
      if (epoch !== app.epoch) return;
      error.textContent = "";
      own.hidden = sizes.hidden = check.hidden = false;
      showParts(found, value);
    } catch (problem) {
      error.textContent = app.sentence(problem);
      own.hidden = sizes.hidden = check.hidden = true;
    }
  }
  return { update };
}
