// The model's card: its parameters as a sum by part, and the sizes of GPT-2 by the same sum.

import { fill, h } from "../core/dom.js";
import { amounts } from "../core/parts.js";
import { line, region, table } from "../core/tables.js";
import { number } from "../core/text.js";

const NAMES = {
  gpt2: "GPT-2",
  medium: "GPT-2 medium",
  large: "GPT-2 large",
  xl: "GPT-2 XL",
  gpt3: "GPT-3",
};
// 1234567 as "1.235 M", with names of thousands, millions and billions.
function scaled(value, digits, names) {
  const power = Math.min(3, Math.max(1, Math.floor(Math.log10(value) / 3)));
  return `${(value / 1000 ** power).toPrecision(digits)} ${names[power - 1]}`;
}
const short = (count) => scaled(count, 4, ["K", "M", "B"]);
const gigabytes = (bytes) => scaled(bytes, 3, ["kB", "MB", "GB"]);

export function mount(root, app) {
  let of = null,
    card = null;

  function sum() {
    const total = card.parts.reduce((all, { count }) => all + count, 0);
    const row = ({ name, formula, count }) =>
      h(
        "tr",
        h("th", { scope: "row" }, part(name)),
        h("td.mono.small", formula),
        h("td.num", number(count)),
      );
    return h(
      "table",
      h("tbody", card.parts.map(row)),
      h(
        "tfoot",
        h(
          "tr",
          h("th", { scope: "row" }, app.t("sum")),
          h("td"),
          h("td.num", { id: "parameters" }, number(total)),
        ),
      ),
    );
  }

  const part = (name) => {
    const key = `card.${name}`;
    return app.t(key) === key ? name : app.t(key);
  };

  function sizes() {
    const head = ["size", "layers", "heads", "width", "parameters", "bytes"].map((name) =>
      app.t(`card.${name}`),
    );
    const row = (size) =>
      line(
        NAMES[size.name] ?? size.name,
        size.num_layers,
        size.num_heads,
        size.d_model,
        short(size.parameters),
        gigabytes(size.bytes.float32),
      );
    return region(
      "scroll",
      { "aria-label": app.t("card.sizes") },
      table(head, card.sizes.map(row), "table.small"),
    );
  }

  async function update() {
    const { epoch } = app,
      { config, model, step, fingerprint } = app.run;
    if (of !== model) {
      const found = await app.fetch(`card?${new URLSearchParams({ model })}`);
      if (epoch !== app.epoch) return;
      [of, card] = [model, found];
    }
    const {
      num_layers: L,
      num_heads: H,
      head_dim: K,
      d_model: D,
      mlp_width: F,
      vocab_size: V,
      context_length: S,
    } = config;
    fill(
      root,
      h(
        "p",
        h("code", model),
        step !== null && step !== undefined && ` · ${app.t("step.value", { step: number(step) })}`,
      ),
      h("p.big.num", short(card.parameters)),
      h(
        "p.small.mono.quiet",
        `L ${L} · H ${H} · K ${K} · D ${D} · F ${F} · V ${number(V)} · S ${number(S)}`,
      ),
      sum(),
      h("h3", app.t("card.share")),
      amounts(
        card.parts.map(({ name, count }) => ({
          name: part(name),
          value: count,
          text: `${((100 * count) / card.parameters).toFixed(1)} %`,
        })),
      ),
      h(
        "p.small",
        app.t("card.memory", {
          float32: gigabytes(card.bytes.float32),
          bfloat16: gigabytes(card.bytes.bfloat16),
          cache: number(card.cache_bytes_per_token),
        }),
      ),
      h("h3", app.t("card.sizes")),
      sizes(),
      h("p.small.quiet", app.t("card.note")),
      h(
        "p.small.quiet",
        app.t("card.variant", config),
        h("br"),
        app.t("card.fingerprint"),
        " ",
        h("code", fingerprint),
      ),
    );
  }
  return { update };
}
