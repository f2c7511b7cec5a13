// The text, its tokens with the surprise of each, and the ten most probable next tokens.

import { shaded } from "../core/controls.js";
import { h, fill } from "../core/dom.js";
import { max, sum } from "../core/math.js";
import { number, percent, visible } from "../core/text.js";

const PAUSE = 120;
const FULL = 8; // nats of surprise with the full color

export function mount(root, app) {
  let timer = null;
  const box = h("textarea", {
    id: "text",
    rows: 3,
    spellcheck: "false",
    autocomplete: "off",
    autocapitalize: "off",
    dir: "auto",
    "aria-describedby": "text-error",
    oninput: typed,
  });
  const label = h("label", { for: "text", class: "away", t: "prompt.label" });
  const error = h("p.error", { id: "text-error", role: "alert" });
  const undo = h("button", { id: "undo", onclick: app.undo, t: "prompt.undo" });
  const plain = h("button", {
    onclick: () => app.set({ interventions: {} }),
    t: "change.all",
    hidden: true,
  });
  const count = h("span.quiet.num");
  const strip = h("div", { id: "tokens", named: "prompt.tokens" }),
    legend = h("p.small.quiet.legend");
  const about = h("dl.pairs", { id: "about-token" }),
    empty = h("p.small", { id: "empty" });
  const bars = h("ol.bars", { id: "next" }),
    titles = [h("h3"), h("h3")];
  const read = h(
    "div.split",
    h("div", titles[0], strip, empty, legend, about),
    h("div", titles[1], bars),
  );
  root.append(label, box, error, plain, h("p.tools.small", count, undo), read);

  function typed() {
    clearTimeout(timer);
    timer = setTimeout(() => {
      timer = null;
      app.write(box.value);
    }, PAUSE);
  }

  const surprise = (token) => (token.logprob === null ? 0 : -token.logprob);

  async function explain(token, prob) {
    const { run } = app,
      { data } = await app.get("logits");
    if (run !== app.run) return; // another text
    const top = max(data),
      total = sum(Float64Array.from(data, (logit) => Math.exp(logit - top)));
    app.explain({
      address: "logits",
      index: [token],
      call: "jax.nn.softmax",
      value: prob,
      formula: app.t("prompt.formula"),
      operands: [
        [app.t("logit"), data[token], "logits", [token]],
        [app.t("prompt.most"), top],
        [app.t("prompt.total"), total],
      ],
      compute: (logit, most, all) => Math.exp(logit - most) / all,
    });
  }

  function next() {
    const list = app.run.next,
      best = list[0][2];
    fill(
      bars,
      list.map(([token, text, prob], i) =>
        h(
          "li",
          h(
            "button.word",
            {
              "data-focus": `w${i}`,
              "aria-label": app.t("prompt.append", { token: text }),
              title: text,
              disabled: Boolean(app.lesson),
              onclick: () => app.extend(token),
            },
            visible(text),
          ),
          h(
            "span.bar-room",
            { "aria-hidden": "true" },
            h("span.fill", { style: { width: `${(100 * prob) / best}%` } }),
          ),
          h(
            "button.value.num",
            { "data-focus": `p${i}`, onclick: () => explain(token, prob) },
            percent(prob),
          ),
        ),
      ),
    );
  }

  function tell() {
    const t = app.query(),
      token = app.tokens()[t];
    const bytes = token.bytes
      .map((byte) => byte.toString(16).toUpperCase().padStart(2, "0"))
      .join(" ");
    const rows = [
      [app.t("token"), `${visible(token)} (${t})`],
      [app.t("prompt.id"), token.id],
      [app.t("prompt.bytes"), bytes || "–"],
    ];
    if (token.logprob !== null) {
      rows.push([
        app.t("prompt.surprise"),
        app.t("prompt.nats", {
          nats: number(surprise(token), 3),
          share: percent(Math.exp(token.logprob)),
          rank: number(token.rank + 1),
        }),
      ]);
      const best = app
        .tokens()
        [t - 1].top.map(([, text, prob]) => `${visible(text)}\u00a0${percent(prob)}`)
        .join("   ");
      rows.push([app.t("prompt.expected"), best]);
    }
    fill(
      about,
      rows.map(([name, value]) => [h("dt", name), h("dd.mono", value)]),
    );
  }

  // An empty text has a token nevertheless.
  function begin() {
    const [first, more] = app.tokens(),
      ends = app.model()?.ends?.includes(first.id);
    empty.hidden = Boolean(app.asked.text || more);
    empty.textContent = app.t(ends ? "prompt.end" : "prompt.begin", { token: visible(first) });
  }

  // Of the run that is shown.
  function show() {
    shaded(strip, app.tokens(), {
      weights: (i) => Math.min(1, surprise(app.tokens()[i]) / FULL),
      chosen: app.query(),
      onpick: (i) => app.set({ query: i }),
    });
    next();
    tell();
    begin();
    titles[0].textContent = app.t("prompt.tokens");
    titles[1].textContent = app.t("prompt.next");
    fill(legend, app.t("prompt.sure"), h("span.ramp"), app.t("prompt.unsure"));
    count.textContent = app.t(app.stale() ? "prompt.stale" : "prompt.count", {
      count: app.tokens().length,
      most: number(app.run.max_tokens),
    });
  }

  function update() {
    const text = app.state.text ?? "";
    if (!timer && box.value !== text) box.value = text;
    read.hidden = !app.run;
    read.inert = app.stale();
    if (app.run) show();
    box.readOnly = undo.hidden = Boolean(app.lesson); // a lesson has no model to ask
    undo.disabled = !app.past.length;
    error.textContent = app.error;
    plain.hidden = !app.error || app.wrong !== "interventions";
    box.setAttribute("aria-invalid", String(Boolean(app.error)));
  }
  return { update };
}
