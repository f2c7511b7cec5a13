// One number: where it is from, its formula and operands, the same computed here and in Python.

import { h, fill } from "../core/dom.js";
import { difference, times } from "../core/math.js";
import { pythonLine } from "../core/python.js";
import { numbers, region, table } from "../core/tables.js";
import { number } from "../core/text.js";

// The value that the page computes from the operands; null where there is nothing to compute.
export function recomputed({ compute, operands = [] }) {
  return compute ? compute(...operands.map(([, value]) => value)) : null;
}

const isVector = (value) => typeof value === "object";
const at = ({ address, index, call }) =>
  `${call ? `${call}(${address})` : address}${index?.length ? `[${index.join(", ")}]` : ""}`;

function scalars(operands) {
  const rows = operands.filter(([, value]) => !isVector(value));
  return (
    rows.length > 0 &&
    h(
      "table",
      h(
        "tbody",
        rows.map(([name, value, address, index]) =>
          h(
            "tr",
            h("th", { scope: "row" }, name),
            h("td.num", number(value, 7)),
            h("td.quiet", address ? at({ address, index }) : ""),
          ),
        ),
      ),
    )
  );
}

function vectors(operands, app) {
  const columns = operands.filter(([, value]) => isVector(value));
  if (!columns.length) return null;
  const size = Math.max(...columns.map(([, value]) => value.length));
  const rows = times(size, (i) =>
    h(
      "tr",
      h("th", { scope: "row" }, i),
      numbers(columns.map(([, value]) => number(value[i], 6))),
      columns.length === 2 && numbers([number(columns[0][1][i] * columns[1][1][i], 6)]),
    ),
  );
  const names = [
    "i",
    ...columns.map(([name]) => name),
    ...(columns.length === 2 ? [app.t("number.product")] : []),
  ];
  return h(
    "details",
    { open: size <= 64 },
    h("summary", app.t("number.vectors", { size })),
    region("scroll", { "aria-label": app.t("number.operands") }, table(names, rows)),
  );
}

export function mount(root, app) {
  function update() {
    const cell = app.explained;
    if (!cell) return;
    const { value, formula, operands = [] } = cell;
    const again = recomputed(cell);
    const line = pythonLine(cell);
    const copy = h(
      "button",
      {
        onclick: async () => {
          try {
            await navigator.clipboard.writeText(line);
            copy.textContent = app.t("copied");
          } catch {
            getSelection().selectAllChildren(code);
          }
        },
      },
      app.t("copy"),
    );
    const code = h("pre", { tabindex: 0 }, line);
    fill(
      root,
      h("p.quiet", app.t(cell.derived ? "number.derived" : "number.model")),
      h("p.big.num", number(value, 7)),
      h("p", h("code", at(cell))),
      formula && h("p.formula", formula),
      again !== null &&
        !cell.derived &&
        h(
          "dl.pairs",
          h("dt", app.t("number.again")),
          h("dd.num", number(again, 9)),
          h("dt", app.t("number.difference")),
          h("dd.num", number(difference(again, value), 2)),
        ),
      scalars(operands),
      vectors(operands, app),
      h("h3", app.t("number.python")),
      code,
      copy,
    );
  }
  return { update };
}
