// The text, its tokens with the surprise of each, and the ten most probable next tokens.

import { tint, css } from "../core/colors.js";
import { h, fill } from "../core/dom.js";
import { note } from "../core/live.js";
import { softmax } from "../core/math.js";
import { number, percent, visible } from "../core/text.js";

export const id = "prompt";
const PAUSE = 120;
const MOST_SURPRISE = 8;

export function mount(root, app) {
  let timer = null;
  const box = h("textarea", { id: "text", rows: 3, spellcheck: "false", autocomplete: "off", "aria-describedby": "text-error", oninput: typed });
  const label = h("label", { for: "text", class: "away" });
  const error = h("p", { class: "error", id: "text-error", role: "status" });
  const undo = h("button", { type: "button", id: "undo", onclick: () => app.undo() });
  const count = h("span", { class: "quiet" });
  const strip = h("div", { class: "strip", role: "listbox", id: "tokens", onkeydown: moved });
  const about = h("p", { class: "about small", id: "about-token" });
  const bars = h("ol", { class: "bars", id: "next" });
  const nextTitle = h("h3"), stripTitle = h("h3");
  const legend = h("p", { class: "small quiet legend" });
  root.append(label, box, error, h("p", { class: "tools small" }, undo, count),
    h("div", { class: "split" }, h("div", null, stripTitle, strip, legend, about), h("div", null, nextTitle, bars)));

  function typed() {
    clearTimeout(timer);
    timer = setTimeout(() => app.write(box.value), PAUSE);
  }

  function moved(event) {
    const last = app.tokens().length - 1, at = app.query();
    const to = { ArrowLeft: at - 1, ArrowUp: at - 1, ArrowRight: at + 1, ArrowDown: at + 1, Home: 0, End: last }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    app.set({ query: Math.min(Math.max(to, 0), last) });
  }

  function tokens() {
    const query = app.query();
    const button = (token, i) => {
      const surprise = token.logprob === null ? 0 : -token.logprob;
      return h("button", {
        type: "button", class: "token", role: "option", "data-focus": "token" + (i === query ? "" : i), "aria-selected": String(i === query),
        tabindex: i === query ? 0 : -1, style: { background: css(tint(Math.min(1, surprise / MOST_SURPRISE))) },
        onclick: () => app.set({ query: i }),
      }, visible(token));
    };
    const focused = strip.contains(document.activeElement);
    fill(strip, app.tokens().map(button));
    if (focused) strip.children[query]?.focus({ preventScroll: true });
  }

  function update() {
    if (document.activeElement !== box || app.state.tokens) if (box.value !== app.state.text) box.value = app.state.text;
    tokens();
    fill(bars, app.run.next.map(([token, text, prob]) => h("li", null,
      h("button", { type: "button", disabled: Boolean(app.lesson), onclick: () => app.extend(token) }, h("code", null, visible(text))),
      h("span", { class: "num" }, percent(prob)))));
    box.readOnly = undo.hidden = Boolean(app.lesson); // a lesson has no model to ask
    undo.textContent = app.t("prompt.undo");
    error.textContent = app.error;
  }
  return { update };
}
