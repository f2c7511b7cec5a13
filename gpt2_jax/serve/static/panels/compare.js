// The same text in two models, two steps, or with and without changes.

import { matrix } from "../core/canvas.js";
import { fill, h } from "../core/dom.js";
import { times } from "../core/math.js";
import { line, numbers, region, table } from "../core/tables.js";
import { number, percent, textOf, visible } from "../core/text.js";
import { amounts, toggle } from "../core/parts.js";
import { isChanged } from "../core/changes.js";

const SCORES = ["previous", "first", "induction"];

export function mount(root, app) {
  const other = h("select", {
      id: "compare-model",
      onchange: () => {
        steps(chosen().step);
        compare();
      },
    }),
    step = h("select", { id: "compare-step", onchange: compare });
  const labels = [
      h("label", { for: other.id, t: "compare.with" }),
      h("label", { for: step.id, t: "step" }),
    ],
    error = h("p.error", { role: "status" });
  const result = h("div", { id: "compared" }),
    head = h("p");
  root.append(head, h("p.tools", labels[0], other, labels[1], step), error, result);
  let of = null,
    found = null,
    turn = null,
    score = 0;

  const chosen = () => app.models.find(({ id }) => id === other.value) ?? app.model();
  function steps(at) {
    const all = chosen()?.steps ?? [];
    fill(
      step,
      all.map((n) => h("option", { value: n, selected: n === at }, number(n))),
    );
    step.hidden = labels[1].hidden = all.length < 1;
  }

  async function compare() {
    const run = app.run;
    const request = {
      ...app.request({
        ...app.asked,
        model: other.value,
        step: step.value ? Number(step.value) : null,
        interventions: {},
      }),
    };
    if (other.value !== run.model && app.run.tokens.every((token) => token.bytes?.length)) {
      delete request.tokens;
      request.text = textOf(app.run.tokens);
    }
    const mine = {};
    [found, of, turn] = [null, run.run, mine];
    error.textContent = "";
    fill(result, h("p.quiet", app.t("working")));
    try {
      const b = await app.post("run", request);
      const answer = await app.again(run.run, () => app.post("compare", { a: run.run, b: b.run }));
      if (mine !== turn || run.run !== app.run.run) return;
      found = { ...answer, step: b.step, model: b.model };
      app.changed();
    } catch (problem) {
      if (mine !== turn) return;
      fill(result);
      error.textContent = app.sentence(problem);
    }
  }

  function ofBytes() {
    const rows = found.bytes.map(([at, a, b]) =>
      h("tr", numbers([at, number(a), number(b), number(b - a)])),
    );
    const names = ["byte", "a", "b", "difference"].map((name) => app.t(`compare.${name}`));
    return [
      h("p.small", app.t("compare.aligned")),
      region("scroll", { "aria-label": app.t("compare.title") }, table(names, rows)),
    ];
  }

  function ofTokens() {
    const tokens = app.tokens(),
      most = Math.max(...found.kl, 1e-12),
      canvas = h("canvas");
    const mean = found.kl.reduce((a, b) => a + b, 0) / found.kl.length;
    const list = found.next.map(([, text, a, b]) =>
      line(h("code", visible(text)), percent(a), percent(b), number(100 * (b - a), 2)),
    );
    const names = ["", "a", "b", "points"].map((name) => name && app.t(`compare.${name}`));
    const parts = [
      h("h3", app.t("compare.kl")),
      h("p.small.quiet", app.t("compare.mean", { mean: number(mean), most: number(most) })),
      region(
        "scroll",
        { "aria-label": app.t("compare.kl") },
        amounts(
          found.kl.map((value, t) => ({
            name: visible(tokens[t]),
            value,
            on: t === app.query(),
            onclick: () => app.set({ query: t }),
          })),
        ),
      ),
      h("h3", app.t("prompt.next")),
      table(names, list),
    ];
    if (!found.head_scores) return [...parts, h("p.small.quiet", app.t("compare.shapes"))];
    return [
      ...parts,
      h("h3", app.t("compare.heads")),
      h(
        "p.tools",
        { role: "group" },
        SCORES.map((name, i) =>
          toggle(
            i === score,
            () => {
              score = i;
              app.changed();
            },
            app.t(`score.${name}`),
          ),
        ),
      ),
      canvas,
    ];
  }

  function map() {
    const canvas = result.querySelector("canvas"),
      L = found.head_scores?.length;
    if (!canvas || !L) return;
    const H = found.head_scores[0].length,
      data = Float32Array.from(found.head_scores.flat().map((scores) => scores[score]));
    matrix(canvas, data, [L, H], {
      scale: "signed",
      cell: 26,
      label: app.t("compare.heads"),
      rows: times(L, (l) => String(l)),
      cols: times(H, (n) => String(n)),
      tip: (l, n, value) => `${app.t("head.of", { layer: l, head: n })}: ${number(value)}`,
      onCell: (layer, head) => app.set({ layer, head }),
    });
  }

  function update() {
    if (other.options.length !== app.models.length) {
      fill(
        other,
        app.models.map(({ id }) => h("option", { value: id, selected: id === app.run.model }, id)),
      );
      steps(chosen()?.steps?.[0]);
    }
    const { model, step: now } = app.run;
    head.textContent = app.t("compare.text", {
      model,
      step: now ?? "–",
      changed: isChanged(app) ? app.t("compare.changed") : "",
    });
    if (of !== app.run.run) compare();
    else if (found) {
      fill(
        result,
        h("p.small", app.t("compare.is", { model: found.model, step: found.step ?? "–" })),
        found.aligned === "tokens" ? ofTokens() : ofBytes(),
      );
      map();
    }
  }
  return { update };
}
