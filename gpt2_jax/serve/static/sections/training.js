// One training step on the text: every position predicts its next token at once, before and after.

import { fill, h } from "../core/dom.js";
import { amounts } from "../core/parts.js";
import { numbers, region, table } from "../core/tables.js";
import { number, percent, visible } from "../core/text.js";

export function mount(root, app) {
  const optimizer = h(
    "select",
    { id: "optimizer" },
    ["adamw", "sgd"].map((name) => h("option", { value: name }, name === "sgd" ? "SGD" : "AdamW")),
  );
  const rate = h(
    "select",
    { id: "rate" },
    ["1e-5", "1e-4", "1e-3", "1e-2", "1e-1", "1"].map((value) =>
      h("option", { value, selected: value === "1e-3" }, value),
    ),
  );
  const go = h("button", { id: "train", onclick: train }),
    error = h("p.error", { role: "status" });
  const passes = h("p.small.quiet.check"),
    result = h("div", { id: "trained" });
  root.append(
    h(
      "p.tools",
      h("label", { for: "optimizer", t: "training.optimizer" }),
      optimizer,
      h("label", { for: "rate", t: "training.rate" }),
      rate,
      go,
    ),
    passes,
    error,
    result,
  );
  let of = null,
    step = null,
    working = false;

  async function train() {
    const run = app.run.run;
    working = true;
    error.textContent = "";
    app.changed();
    try {
      const { interventions, ...request } = app.request(app.asked);
      const answer = await app.post("train_step", {
        ...request,
        optimizer: optimizer.value,
        learning_rate: Number(rate.value),
      });
      if (run !== app.run.run) return;
      [of, step] = [run, answer];
      app.say(
        app.t("training.done", { before: number(step.loss), after: number(step.loss_after) }),
      );
    } catch (problem) {
      error.textContent = app.sentence(problem);
    } finally {
      working = false;
      app.changed();
    }
  }

  function predictions() {
    const head = ["token", "label", "loss", "loss_after", "probability", "probability_after"];
    const line = (entry) =>
      h(
        "tr",
        [entry.token, entry.label].map((text) => h("td", h("code", visible(text)))),
        numbers([
          number(entry.loss),
          number(entry.loss_after),
          percent(entry.probability),
          percent(entry.probability_after),
        ]),
      );
    return region(
      "scroll.tall",
      { "aria-label": app.t("training.predictions") },
      table(
        head.map((name) => app.t(`training.${name}`)),
        step.predictions.map(line),
      ),
    );
  }

  const next = (name) =>
    h(
      "div",
      h("h3", app.t(`training.${name}`)),
      amounts(
        step[name].map(([, text, share]) => ({
          name: visible(text),
          value: share,
          text: percent(share),
        })),
        { most: 1 },
      ),
    );

  function update() {
    const T = app.tokens().length;
    go.textContent = app.t(working ? "training.working" : "training.go");
    go.disabled = working || T < 2 || Boolean(app.lesson);
    passes.textContent = app.t(T < 2 ? "training.short" : "training.passes", { T, count: T - 1 });
    if (of !== app.run.run) {
      step = null;
      fill(result);
      return;
    }
    fill(
      result,
      h("p.big.num", `${number(step.loss)} → ${number(step.loss_after)}`),
      h("p.small.quiet", app.t("training.mean", { norm: number(step.gradient_norm) })),
      predictions(),
      h("div.split.even", next("next"), next("next_after")),
      h("p.small.quiet", app.t("training.kept")),
    );
  }
  return { update };
}
