// One number: where it is from, its formula and operands, the same computed here, and the line of Python.

import { h, fill } from "../core/dom.js";
import { difference } from "../core/math.js";
import { pythonLine } from "../core/python.js";
import { number } from "../core/text.js";

export const id = "number";

// The value that the page computes from the operands; null where there is nothing to compute.
export function recomputed({ compute, operands = [] }) {
  return compute ? compute(...operands.map(([, value]) => value)) : null;
}

const isVector = (value) => typeof value === "object";
const at = ({ address, index }) => `${address}${index?.length ? `[${index.join(", ")}]` : ""}`;

function scalars(operands) {
  const rows = operands.filter(([, value]) => !isVector(value));
  return rows.length > 0 && h("table", null, h("tbody", null, rows.map(([name, value, address, index]) =>
    h("tr", null, h("th", { scope: "row" }, name), h("td", { class: "num" }, number(value, 7)),
      h("td", { class: "quiet" }, address ? at({ address, index }) : "")))));
}

function vectors(operands, app) {
  const columns = operands.filter(([, value]) => isVector(value));
  if (!columns.length) return null;
  const size = Math.max(...columns.map(([, value]) => value.length));
  const rows = Array.from({ length: size }, (_, i) => h("tr", null, h("th", { scope: "row" }, i),
    columns.map(([, value]) => h("td", { class: "num" }, number(value[i], 6))),
    columns.length === 2 && h("td", { class: "num" }, number(columns[0][1][i] * columns[1][1][i], 6))));
  return h("details", { open: size <= 64 }, h("summary", null, app.t("number.vectors", { size })),
    h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": app.t("number.operands") },
      h("table", null, h("thead", null, h("tr", null, h("th", null, "i"), columns.map(([name]) => h("th", { scope: "col" }, name)),
        columns.length === 2 && h("th", { scope: "col" }, app.t("number.product")))), h("tbody", null, rows))));
}

export function mount(root, app) {
  function update() {
    const cell = app.explained;
    if (!cell) return;
    const { value, formula, operands = [] } = cell;
    const again = recomputed(cell);
    const line = pythonLine(app, cell.address, cell.index);
    const copy = h("button", { type: "button", onclick: async () => {
      try {
        await navigator.clipboard.writeText(line);
        copy.textContent = app.t("copied");
      } catch { getSelection().selectAllChildren(code); }
    } }, app.t("copy"));
    const code = h("pre", { tabindex: 0 }, line);
    fill(root,
      h("p", { class: "quiet" }, app.t(cell.derived ? "number.derived" : "number.model")),
      h("p", { class: "big num" }, number(value, 7)), h("p", null, h("code", null, at(cell))),
      formula && h("p", { class: "formula" }, formula),
      again !== null && !cell.derived && h("dl", { class: "pairs" },
        h("dt", null, app.t("number.again")), h("dd", { class: "num" }, number(again, 9)),
        h("dt", null, app.t("number.difference")), h("dd", { class: "num" }, number(difference(again, value), 2))),
      scalars(operands), vectors(operands, app),
      h("h3", null, app.t("number.python")), code, copy);
  }
  return { update };
}
