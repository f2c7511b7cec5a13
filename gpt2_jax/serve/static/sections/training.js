// One training step on the text: every position predicts its next token at once, before and after.

import { fill, h } from "../core/dom.js";
import { amounts } from "../core/parts.js";
import { number, percent, visible } from "../core/text.js";

export const id = "training";

export function mount(root, app) {
  const optimizer = h("select", { id: "optimizer" }, ["adamw", "sgd"].map((name) => h("option", { value: name }, name === "sgd" ? "SGD" : "AdamW")));
  const rate = h("select", { id: "rate" }, ["1e-5", "1e-4", "1e-3", "1e-2", "1e-1", "1"].map((value) => h("option", { value, selected: value === "1e-3" }, value)));
  const [byOptimizer, byRate] = [h("label", { for: "optimizer" }), h("label", { for: "rate" })];
  const go = h("button", { type: "button", id: "train", onclick: train }), error = h("p", { class: "error", role: "status" });
  const passes = h("p", { class: "small quiet check" }), result = h("div", { id: "trained" });
  root.append(h("p", { class: "tools" }, byOptimizer, optimizer, byRate, rate, go), passes, error, result);
  let of = null, step = null;

  async function train() {
    const run = app.run.run;
    go.disabled = true;
    error.textContent = "";
    go.textContent = app.t("training.working");
    try {
      const { interventions, ...request } = app.request();
      const answer = await app.post("train_step", { ...request, optimizer: optimizer.value, learning_rate: Number(rate.value) });
      if (run !== app.run.run) return;
      [of, step] = [run, answer];
      app.say(app.t("training.done", { before: number(step.loss), after: number(step.loss_after) }));
    } catch (problem) {
      error.textContent = app.sentence(problem);
    } finally {
      go.disabled = false;
      app.changed();
    }
  }

  function predictions() {
    const head = ["token", "label", "loss", "loss_after", "probability", "probability_after"];
    const line = (entry) => h("tr", null, [entry.token, entry.label].map((text) => h("td", null, h("code", null, visible(text)))),
      [entry.loss, entry.loss_after].map((loss) => h("td", { class: "num" }, number(loss, 4))),
      [entry.probability, entry.probability_after].map((share) => h("td", { class: "num" }, percent(share))));
    return h("div", { class: "scroll tall", tabindex: 0, role: "region", "aria-label": app.t("training.predictions") },
      h("table", null, h("thead", null, h("tr", null, head.map((name) => h("th", { scope: "col" }, app.t(`training.${name}`))))), h("tbody", null, step.predictions.map(line))));
  }

  const next = (name) => h("div", null, h("h3", null, app.t(`training.${name}`)),
    amounts(step[name].map(([, text, share]) => ({ name: visible(text), value: share, text: percent(share) })), { most: 1 }));

  function update() {
    const T = app.tokens().length;
    byOptimizer.textContent = app.t("training.optimizer");
    byRate.textContent = app.t("training.rate");
    if (!go.disabled || of) go.textContent = app.t("training.go");
    go.disabled = T < 2 || Boolean(app.lesson);
    passes.textContent = app.t(T < 2 ? "training.short" : "training.passes", { T, count: T - 1 });
    if (of !== app.run.run) {
      step = null;
      fill(result);
      return;
    }
    fill(result, h("p", { class: "big num" }, `${number(step.loss)} → ${number(step.loss_after)}`),
      h("p", { class: "small quiet" }, app.t("training.mean", { norm: number(step.gradient_norm) })),
      predictions(), h("div", { class: "split even" }, next("next"), next("next_after")), h("p", { class: "small quiet" }, app.t("training.kept")));
  }
  return { update };
}
