// Lists and words that several sections share.

import { h } from "./dom.js";
import { visible, number } from "./text.js";

// Layer, head and position of the state.
export const at = (app) => ({ l: app.layer(), h: app.head(), t: app.query() });

// A list of bars: rows of {name, value, text, onclick, on}; values below zero go to the left.
export function amounts(rows, { most, label, signed = rows.some(({ value }) => value < 0) } = {}) {
  const top = most ?? Math.max(1e-30, ...rows.map(({ value }) => Math.abs(value)));
  const bar = ({ name, value, text, onclick, on }) =>
    h(
      "li",
      onclick
        ? h(
            "button",
            {
              onclick,
              "aria-pressed": on === undefined ? null : String(on),
              "data-focus": `bar ${name}`,
            },
            name,
          )
        : h("span", name),
      h(
        "span.track",
        h("i", {
          class: value < 0 ? "less" : null,
          style: { width: `${(100 * Math.min(1, Math.abs(value) / top)) / (signed ? 2 : 1)}%` },
        }),
      ),
      h("span.num", text ?? number(value)),
    );
  return h(
    "ol",
    { class: `amounts${signed ? " signed" : ""}`, "aria-label": label },
    rows.map(bar),
  );
}

// Rows of the residual stream by name: the embedding, then attention and MLP of each layer.
export function rowName(app, i) {
  return i
    ? app.t(i % 2 ? "row.attention" : "row.mlp", { layer: (i - 1) >> 1 })
    : app.t("row.embedding");
}

const known = new Map(); // of a model -> id -> text

function remember(app) {
  const name = app.run.model ?? "";
  if (!known.has(name)) known.set(name, new Map(app.lesson?.words ?? []));
  const texts = known.get(name);
  for (const { id, text, top } of app.tokens()) {
    texts.set(id, text);
    for (const [other, named] of top ?? []) texts.set(other, named);
  }
  for (const [id, text] of app.run.next) texts.set(id, text);
  return texts;
}

// The texts of token ids, which the page asks for where it has not met them; "#5" where it may not.
export async function words(app, ids) {
  const texts = remember(app);
  const missing = [...new Set(ids)].filter((id) => !texts.has(id));
  for (let i = 0; i < missing.length && !app.lesson; i += 256) {
    const query = new URLSearchParams({
      model: app.run.model,
      ids: missing.slice(i, i + 256).join(","),
    });
    for (const [id, text] of await app.fetch(`words?${query}`).catch(() => [])) texts.set(id, text);
  }
  return ids.map((id) => (texts.has(id) ? visible(texts.get(id)) : `#${id}`));
}

// A button that is pressed while something is on.
export const toggle = (on, onclick, ...text) =>
  h("button", { "aria-pressed": String(on), onclick, "data-focus": text.join("") }, text);
