// Changes inside of the model: parts off by a click, masks off, activations of another text.

import { fill, h } from "../core/dom.js";
import { addSwap, changed, factorOf, isChanged, removeSwap, unmask } from "../core/changes.js";
import { softmax, times } from "../core/math.js";
import { getArray } from "../core/source.js";
import { line, region, table } from "../core/tables.js";
import { percent, visible } from "../core/text.js";

const SITES = ["resid_post", "mlp", "z"],
  MOST_CHARACTERS = 40; // of another text, to name it

// The text, or the ids, of a request, cut if it is long.
function brief({ text, tokens } = {}) {
  const all = [...(text ?? tokens?.join(" ") ?? "…")],
    some = all.slice(0, MOST_CHARACTERS).join("");
  return all.length > MOST_CHARACTERS ? `${some}…` : some;
}

export function mount(root, app) {
  const text = h("p.small.quiet", { t: "interventions.text" }),
    grid = region("scroll", { named: "interventions.title" }),
    list = h("div", { id: "changes" }),
    range = h("p.error", { role: "alert" }),
    effect = h("div");
  const swapText = h("input", {
      id: "swap-text",
      type: "text",
      autocomplete: "off",
      required: true,
    }),
    swapLabel = h("label", { for: "swap-text", t: "swap.text" }),
    site = h("select", { id: "swap-site" }),
    siteLabel = h("label", { for: "swap-site", t: "swap.site" });
  const add = h("button", { onclick: swap, t: "swap.add" }),
    swapTitle = h("h3", { t: "swap.title" }),
    swapNote = h("p.small.quiet"),
    error = h("p.error", { role: "status" });
  root.append(
    text,
    grid,
    list,
    range,
    effect,
    swapTitle,
    h("p.wide", swapLabel, swapText),
    h("p.tools", siteLabel, site, add),
    swapNote,
    error,
  );
  let plain = null,
    of = null;

  // What the same text gives without changes, for the change of the next token.
  async function without() {
    const request = app.request({ ...app.asked, interventions: {} }),
      key = JSON.stringify(request);
    if (of !== key) {
      [of, plain] = [key, null];
      try {
        const found = await app.post("run", request),
          { data } = await getArray(found.run, "logits"); // the list has the ten best alone
        if (of === key) plain = { ...found, ...softmax(data) };
      } catch (problem) {
        if (of === key) of = null; // the next drawing asks again
        throw problem;
      }
    }
  }

  async function swap() {
    if (!swapText.reportValidity()) return;
    const { layer, head, query } = { ...app.state, query: app.query() };
    error.textContent = "";
    try {
      const { run } = app,
        request = app.request({
          ...app.asked,
          interventions: {},
          tokens: null,
          text: swapText.value,
        }),
        other = await app.post("run", request);
      if (run !== app.run) return; // it was for another text
      const position = Math.min(query, other.tokens.length - 1);
      addSwap(app, {
        site: site.value,
        layer,
        ...(site.value === "z" && { head }),
        position: query,
        from: { run: other.run, position },
        of: request,
      });
    } catch (problem) {
      error.textContent = app.sentence(problem);
    }
  }

  function cells() {
    const { num_layers: L, num_heads: H } = app.run.config,
      { unmasked = [] } = app.state.interventions ?? {};
    const cell = (kind, key, name) => {
      const off = factorOf(app.state.interventions, kind, key) === 0;
      return h(
        "td",
        h(
          "button.cell",
          {
            "aria-pressed": String(off),
            "aria-label": `${name}: ${app.t(off ? "off" : "on")}`,
            "data-focus": `${kind} ${key}`,
            onclick: () => changed(app, kind, key, off ? null : 0),
          },
          off ? "×" : "",
        ),
      );
    };
    const mask = (l) =>
      h(
        "td",
        h(
          "button.cell",
          {
            "aria-pressed": String(unmasked.includes(l)),
            "aria-label": app.t("change.unmasked", { layer: l }),
            "data-focus": `mask ${l}`,
            onclick: () => unmask(app, l, !unmasked.includes(l)),
          },
          unmasked.includes(l) ? "×" : "",
        ),
      );
    const row = (l) =>
      h(
        "tr",
        h("th", { scope: "row" }, l),
        times(H, (n) => cell("heads", [l, n], app.t("head.of", { layer: l, head: n }))),
        cell("mlps", [l], app.t("row.mlp", { layer: l })),
        mask(l),
      );
    const head = [app.t("layer"), ...times(H, (n) => n), "MLP", app.t("change.mask")];
    return table(head, times(L, row), "table.cells");
  }

  function named() {
    const {
      heads = [],
      mlps = [],
      neurons = [],
      unmasked = [],
      swaps = [],
    } = app.state.interventions ?? {};
    const factor = (kind, key, value, name) =>
      h(
        "li",
        name,
        " × ",
        h("input", {
          type: "number",
          step: "any",
          required: true,
          min: -100,
          max: 100,
          value,
          "aria-label": app.t("change.factor", { name }),
          "data-focus": `factor ${kind} ${key}`,
          onchange: ({ target }) => {
            const good = target.checkValidity();
            target.setAttribute("aria-invalid", String(!good));
            range.textContent = good ? "" : app.t("change.range");
            if (good) changed(app, kind, key, target.valueAsNumber);
          },
        }),
        remove(() => changed(app, kind, key, null), name),
      );
    const remove = (onclick, name) =>
      h(
        "button.close",
        {
          "aria-label": app.t("change.remove", { name }),
          "data-focus": `remove ${name}`, // a drawing between the focus and Enter keeps it
          onclick,
        },
        "×",
      );
    const plainly = (name, onclick) => h("li", name, remove(onclick, name));
    return [
      ...heads.map(([l, n, f]) =>
        factor("heads", [l, n], f, app.t("head.of", { layer: l, head: n })),
      ),
      ...mlps.map(([l, f]) => factor("mlps", [l], f, app.t("row.mlp", { layer: l }))),
      ...neurons.map(([l, n, f]) =>
        factor("neurons", [l, n], f, app.t("mlp.neuron", { neuron: n, layer: l })),
      ),
      ...unmasked.map((l) =>
        plainly(app.t("change.unmasked", { layer: l }), () => unmask(app, l, false)),
      ),
      ...swaps.map((swap, i) =>
        plainly(
          app.t(`swap.${swap.site}`, {
            layer: swap.layer,
            head: swap.head ?? 0,
            position: swap.position,
            text: brief(swap.of),
            from: swap.from.position,
          }),
          () => removeSwap(app, i),
        ),
      ),
    ];
  }

  function difference() {
    if (!plain || plain.tokens.length !== app.tokens().length) return null;
    const rows = app.run.next.map(([token, text, share]) =>
      line(h("code", visible(text)), percent(plain.probs[token]), percent(share)),
    );
    return [
      h("h3", app.t("prompt.next")),
      table(["", app.t("change.untouched"), app.t("change.now")], rows),
      plain.next.every(
        ([token, , share], i) => app.run.next[i][0] === token && app.run.next[i][2] === share,
      ) && h("p.small.check", { role: "status" }, app.t("change.equal")),
    ];
  }

  async function update() {
    fill(grid, cells());
    range.textContent = "";
    const all = named();
    fill(
      list,
      h("h3", app.t("change.list", { count: all.length })),
      all.length
        ? [
            h("ul.changes", all),
            h(
              "button",
              { id: "undo-all", onclick: () => app.set({ interventions: {} }) },
              app.t("change.all"),
            ),
          ]
        : h("p.quiet.small", app.t("none")),
    );
    const chosen = site.value || SITES[0];
    fill(
      site,
      SITES.map((name) =>
        h("option", { value: name, selected: name === chosen }, app.t(`site.${name}`)),
      ),
    );
    swapNote.textContent = app.t("swap.note", {
      layer: app.state.layer,
      head: app.state.head,
      position: app.query(),
    });
    if (isChanged(app)) await without();
    fill(effect, isChanged(app) && difference());
  }
  return { update };
}
