// The token, layer and head that a section is about; chosen once, they hold for all sections.

import { h, fill } from "./dom.js";
import { times } from "./math.js";
import { visible } from "./text.js";

// controls(app, ["query", "layer", "head"]) -> {node, update}; other nodes are put behind.
export function controls(app, names, ...others) {
  const node = h("div.tools");
  const limits = () => ({ layer: app.run.config.num_layers, head: app.run.config.num_heads });
  const step = (by) =>
    app.set({ query: Math.min(Math.max(app.query() + by, 0), app.tokens().length - 1) });
  const arrow = (by, sign) =>
    h(
      "button",
      {
        class: "icon",
        "data-focus": `${by}`,
        "aria-label": app.t(by < 0 ? "token.before" : "token.after"),
        onclick: () => step(by),
      },
      sign,
    );
  const build = {
    query: () =>
      h(
        "span.group",
        app.t("token"),
        arrow(-1, "‹"),
        h("code.chip", visible(app.tokens()[app.query()])),
        h("span.quiet.num", app.query()),
        arrow(1, "›"),
      ),
    ...Object.fromEntries(
      ["layer", "head"].map((name) => [
        name,
        () =>
          h(
            "label.group",
            app.t(name),
            h(
              "select",
              {
                "data-focus": name,
                onchange: (event) => app.set({ [name]: Number(event.target.value) }),
              },
              times(limits()[name], (i) =>
                h("option", { value: i, selected: i === app[name]() }, i),
              ),
            ),
          ),
      ]),
    ),
  };
  const parts = names.map(() => h("span"));
  node.append(...parts, ...others);
  return { node, update: () => names.forEach((name, i) => fill(parts[i], build[name]())) };
}

// Tokens as buttons in a row, shaded by weights; the arrows move through it.
//   weights: of each token, 0..1; chosen: index; onpick(i), onover(i or null)
export function shaded(node, tokens, { weights, chosen, onpick, onover, title }) {
  const had = node.contains(document.activeElement);
  let now = chosen; // also while the next drawing is awaited
  const at = (event) => [...node.children].indexOf(event.target);
  node.onkeydown = (event) => {
    const to = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[event.key];
    if (!to) return;
    event.preventDefault();
    now = Math.min(Math.max(now + to, 0), tokens.length - 1);
    onpick(now);
  };
  node.onpointerover = node.onfocusin = (event) => onover?.(at(event) < 0 ? null : at(event));
  node.onpointerleave = () => onover?.(null);
  node.classList.add("strip");
  node.setAttribute("role", "listbox");
  fill(
    node,
    tokens.map((token, i) =>
      h(
        "button",
        {
          class: "token",
          role: "option",
          tabindex: i === chosen ? 0 : -1,
          "aria-selected": String(i === chosen),
          onclick: () => onpick((now = i)),
          title: title?.(i),
          style: {
            background: `color-mix(in srgb, var(--shade) ${100 * weights(i)}%, transparent)`,
          },
        },
        visible(token),
      ),
    ),
  );
  if (had) node.children[chosen]?.focus({ preventScroll: true });
}

// Changes only the shades of `shaded`.
export function shade(node, weights) {
  [...node.children].forEach((child, i) => {
    child.style.background = `color-mix(in srgb, var(--shade) ${100 * weights(i)}%, transparent)`;
  });
}
