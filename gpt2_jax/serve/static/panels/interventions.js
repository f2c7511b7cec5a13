// Changes inside of the model: parts off by a click, masks off, activations of another text.

import { fill, h } from "../core/dom.js";
import { addSwap, changed, factorOf, isChanged, removeSwap, unmask } from "../core/changes.js";
import { toggle } from "../core/parts.js";
import { number, percent, visible } from "../core/text.js";

export const id = "interventions";
const SITES = ["resid_post", "mlp", "z"];

export function mount(root, app) {
  const text = h("p", { class: "small quiet" }), grid = h("div", { class: "scroll", tabindex: 0, role: "region" }), list = h("div", { id: "changes" }), effect = h("div");
  const swapText = h("input", { id: "swap-text", type: "text", autocomplete: "off" }), swapLabel = h("label", { for: "swap-text" }), site = h("select", { id: "swap-site" }), siteLabel = h("label", { for: "swap-site" });
  const add = h("button", { type: "button", onclick: swap }), swapTitle = h("h3"), swapNote = h("p", { class: "small quiet" }), error = h("p", { class: "error", role: "status" });
  root.append(text, grid, list, effect, swapTitle, h("p", { class: "wide" }, swapLabel, swapText), h("p", { class: "tools" }, siteLabel, site, add), swapNote, error);
  let plain = null, of = null;

  // What the same text gives without changes, for the change of the next token.
  async function without() {
    const request = app.request({ interventions: {} }), key = JSON.stringify(request);
    if (of !== key) {
      of = key;
      plain = null;
      const found = await app.post("run", request);
      if (of === key) plain = found;
    }
  }

  async function swap() {
    const { layer, head, query } = { ...app.state, query: app.query() };
    error.textContent = "";
    try {
      const ids = app.model()?.takes_text === false ? (swapText.value.match(/\d+/g) ?? []).map(Number) : null;
      const other = await app.post("run", app.request({ interventions: {}, tokens: ids, text: swapText.value }));
      const position = Math.min(query, other.tokens.length - 1);
      addSwap(app, { site: site.value, layer, ...(site.value === "z" && { head }), position: query, from: { run: other.run, position } });
    } catch (problem) {
      error.textContent = app.sentence(problem);
    }
  }

  function cells() {
    const { num_layers: L, num_heads: H } = app.run.config, { unmasked = [] } = app.state.interventions ?? {};
    const cell = (kind, key, name) => {
      const off = factorOf(app, kind, key) === 0;
      return h("td", null, h("button", { type: "button", class: "cell", "aria-pressed": String(off), "aria-label": `${name}: ${app.t(off ? "off" : "on")}`, "data-focus": `${kind} ${key}`, onclick: () => changed(app, kind, key, off ? null : 0) }, off ? "×" : ""));
    };
    const mask = (l) => h("td", null, h("button", { type: "button", class: "cell", "aria-pressed": String(unmasked.includes(l)), "aria-label": app.t("change.unmasked", { layer: l }), "data-focus": `mask ${l}`, onclick: () => unmask(app, l, !unmasked.includes(l)) }, unmasked.includes(l) ? "×" : ""));
    const line = (l) => h("tr", null, h("th", { scope: "row" }, l), Array.from({ length: H }, (_, n) => cell("heads", [l, n], app.t("head.of", { layer: l, head: n }))), cell("mlps", [l], app.t("row.mlp", { layer: l })), mask(l));
    const head = [app.t("layer"), ...Array.from({ length: H }, (_, n) => n), "MLP", app.t("change.mask")].map((name) => h("th", { scope: "col" }, name));
    return h("table", { class: "cells" }, h("thead", null, h("tr", null, head)), h("tbody", null, Array.from({ length: L }, (_, l) => line(l))));
  }

  function named() {
    const { heads = [], mlps = [], neurons = [], unmasked = [], swaps = [] } = app.state.interventions ?? {};
    const factor = (kind, key, value, name) => h("li", null, name, " × ", h("input", {
      type: "number", step: 0.1, min: -100, max: 100, value, "aria-label": app.t("change.factor", { name }), "data-focus": `factor ${kind} ${key}`,
      onchange: ({ target }) => Number.isFinite(target.valueAsNumber) && changed(app, kind, key, target.valueAsNumber),
    }), remove(() => changed(app, kind, key, null), name));
    const remove = (onclick, name) => h("button", { type: "button", class: "close", "aria-label": app.t("change.remove", { name }), onclick }, "×");
    const plainly = (name, onclick) => h("li", null, name, remove(onclick, name));
    return [...heads.map(([l, n, f]) => factor("heads", [l, n], f, app.t("head.of", { layer: l, head: n }))), ...mlps.map(([l, f]) => factor("mlps", [l], f, app.t("row.mlp", { layer: l }))),
      ...neurons.map(([l, n, f]) => factor("neurons", [l, n], f, app.t("mlp.neuron", { neuron: n, layer: l }))), ...unmasked.map((l) => plainly(app.t("change.unmasked", { layer: l }), () => unmask(app, l, false))),
      ...swaps.map((swap, i) => plainly(app.t(`swap.${swap.site}`, { layer: swap.layer, head: swap.head ?? 0, position: swap.position }), () => removeSwap(app, i)))];
  }

  function difference() {
    if (!plain || plain.tokens.length !== app.tokens().length) return null;
    const before = new Map(plain.next.map(([token, , share]) => [token, share]));
    const rows = app.run.next.map(([token, text, share]) => h("tr", null, h("th", { scope: "row" }, h("code", null, visible(text))), [before.has(token) ? percent(before.get(token)) : "–", percent(share)].map((said) => h("td", { class: "num" }, said))));
    return [h("h3", null, app.t("change.effect")), h("table", null, h("thead", null, h("tr", null, h("td"), ["untouched", "now"].map((name) => h("th", { scope: "col" }, app.t(`change.${name}`))))), h("tbody", null, rows)),
      plain.next.every(([token, , share], i) => app.run.next[i][0] === token && app.run.next[i][2] === share) && h("p", { class: "small check", role: "status" }, app.t("change.equal"))];
  }

  async function update() {
    text.textContent = app.t("interventions.text");
    grid.setAttribute("aria-label", app.t("interventions.title"));
    fill(grid, cells());
    const all = named();
    fill(list, h("h3", null, app.t("change.list", { count: all.length })), all.length ? [h("ul", { class: "changes" }, all), h("button", { type: "button", id: "undo-all", onclick: () => app.set({ interventions: {} }) }, app.t("change.all"))] : h("p", { class: "quiet small" }, app.t("none")));
    swapTitle.textContent = app.t("swap.title");
    swapLabel.textContent = app.t("swap.text");
    siteLabel.textContent = app.t("swap.site");
    const chosen = site.value || SITES[0];
    fill(site, SITES.map((name) => h("option", { value: name, selected: name === chosen }, app.t(`site.${name}`))));
    add.textContent = app.t("swap.add");
    swapNote.textContent = app.t("swap.note", { layer: app.state.layer, head: app.state.head, position: app.query() });
    if (isChanged(app)) await without();
    fill(effect, isChanged(app) && difference());
  }
  return { update };
}
