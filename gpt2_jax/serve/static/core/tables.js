// Tables, and parts that scroll by themselves and that the keyboard reaches for it.

import { h } from "./dom.js";

export const numbers = (values) => values.map((value) => h("td.num", value));

// A row of a table: its name, then numbers.
export const line = (name, ...values) => h("tr", h("th", { scope: "row" }, name), numbers(values));

// A table of rows; of its columns' names, "" is none. `kind` may have classes.
export function table(names, rows, kind = "table") {
  const head = names.map((name) => (name === "" ? h("td") : h("th", { scope: "col" }, name)));
  return h(kind, h("thead", h("tr", head)), h("tbody", rows));
}

// region("scroll.tall", { named: "key" }, children)
export const region = (classes, attributes, ...children) =>
  h(`div.${classes}`, { tabindex: 0, role: "region", ...attributes }, ...children);
