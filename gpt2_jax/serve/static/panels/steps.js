// The saved steps of a run: scrub them, and see what this text was to the model at each.

import { fill, h, s } from "../core/dom.js";
import { times } from "../core/math.js";
import { number } from "../core/text.js";

const W = 340,
  H = 130,
  LEFT = 44;

// One curve over the steps: [{name, values, chosen}].
function plot(title, steps, lines, now) {
  const values = lines.flatMap(({ values }) => values).filter(Number.isFinite),
    low = Math.min(0, ...values),
    high = Math.max(...values, low + 1e-9);
  const [first, last] = [steps[0], steps.at(-1)];
  const x = (step) => LEFT + ((step - first) / (last - first || 1)) * (W - LEFT - 8),
    y = (value) => 8 + (1 - (value - low) / (high - low)) * (H - 30);
  const point = (value, i, values) => {
    const pen = i && Number.isFinite(values[i - 1]) ? "L" : "M";
    return Number.isFinite(value) ? `${pen}${x(steps[i]).toFixed(1)} ${y(value).toFixed(1)}` : "";
  };
  const path = (values) => values.map(point).join("");
  const said = lines
    .filter(({ chosen }) => chosen)
    .map(({ values }) => values.map((value) => number(value, 3)).join(", "));
  const ordered = lines.toSorted((a, b) => Boolean(a.chosen) - Boolean(b.chosen));
  return h(
    "figure",
    h("figcaption", title),
    s(
      "svg",
      { viewBox: `0 0 ${W} ${H}`, class: "plot", role: "img", "aria-label": `${title}: ${said}` },
      s("line", { x1: LEFT, x2: W - 8, y1: y(low), y2: y(low), class: "axis" }),
      now !== null &&
        now >= first &&
        now <= last &&
        s("line", { x1: x(now), x2: x(now), y1: 8, y2: y(low), class: "now" }),
      ordered.map(({ values, chosen }) => [
        s("path", { d: path(values), class: chosen ? "curve" : "curve faint" }),
        chosen &&
          values.map(
            (value, i) =>
              Number.isFinite(value) &&
              s("circle", { cx: x(steps[i]), cy: y(value), r: 2.5, class: "point" }),
          ),
      ]),
      [low, high].map((value) =>
        s(
          "text",
          { x: LEFT - 5, y: y(value) + 4, "text-anchor": "end", class: "tick" },
          number(value, 3),
        ),
      ),
      [first, last]
        .filter((step, i, all) => all.indexOf(step) === i)
        .map((step) =>
          s(
            "text",
            {
              x: x(step),
              y: H - 4,
              "text-anchor": step === first ? "start" : "end",
              class: "tick",
            },
            number(step),
          ),
        ),
    ),
  );
}

export function mount(root, app) {
  const slider = h("input", {
    type: "range",
    min: 0,
    step: 1,
    id: "steps-slider",
    oninput: () => app.set({ step: all()[slider.valueAsNumber] }),
  });
  const label = h("label", { for: slider.id, t: "steps.slider" }),
    value = h("output", { for: slider.id, class: "big num" }),
    text = h("p.small.quiet");
  const follow = h("button", { id: "curves", onclick: stream }),
    error = h("p.error", { role: "status" }),
    plots = h("div"),
    chosen = h("p.small.quiet");
  root.append(text, h("p.wide", label, value, slider), h("p", follow), error, plots, chosen);
  let lines = [],
    of = null,
    abort = null;
  const all = () => app.model()?.steps ?? [];
  const key = () => JSON.stringify([app.run.model, app.tokens().map(({ id }) => id)]);

  async function stream() {
    abort?.abort();
    abort = new AbortController();
    [of, lines] = [key(), []];
    const mine = of;
    error.textContent = "";
    app.changed();
    try {
      const { step, interventions, ...request } = app.request(app.asked);
      await app.lines(
        "curves",
        request,
        (line) => {
          if (mine !== of) return;
          if (line.error) throw Object.assign(new Error(line.error.message), { status: 500 });
          lines.push(line);
          app.changed();
        },
        abort.signal,
      );
      app.say(app.t("steps.done"));
    } catch (problem) {
      if (problem.name !== "AbortError") error.textContent = app.sentence(problem);
    }
    abort = null;
    app.changed();
  }

  function update() {
    const steps = all(),
      now = app.state.step ?? app.run.step,
      { layer, head } = app.state;
    text.textContent = app.t(steps.length > 1 ? "steps.text" : "steps.none");
    slider.parentElement.hidden = follow.hidden = steps.length < 2;
    slider.max = Math.max(0, steps.length - 1);
    slider.value = Math.max(0, steps.indexOf(now));
    slider.setAttribute("aria-valuetext", app.t("step.value", { step: now }));
    value.textContent = number(now ?? NaN);
    if (of !== null && of !== key()) {
      abort?.abort();
      [of, lines] = [null, []];
    }
    follow.textContent = app.t(abort ? "steps.reading" : "steps.follow", {
      done: lines.length,
      count: steps.length,
    });
    follow.disabled = Boolean(abort);
    chosen.textContent = lines.length ? app.t("steps.chosen", { layer, head }) : "";
    if (!lines.length) return void fill(plots);
    const at = lines.map((line) => line.step),
      L = app.run.config.num_layers,
      heads = app.run.config.num_heads;
    const scores = (i) =>
      times(L * heads, (n) => ({
        values: lines.map((line) => line.head_scores[Math.floor(n / heads)][n % heads][i]),
        chosen: n === layer * heads + head,
      }));
    fill(
      plots,
      plot(
        app.t("steps.loss"),
        at,
        [{ values: lines.map(({ loss }) => loss ?? NaN), chosen: true }],
        now,
      ),
      plot(app.t("steps.kl"), at, [{ values: lines.map(({ kl }) => kl), chosen: true }], now),
      plot(app.t("score.previous"), at, scores(0), now),
      plot(app.t("score.induction"), at, scores(2), now),
    );
  }
  return { update };
}
