// The bar at the top: model, step, panels, language, colors and the link.

import { h, fill } from "./dom.js";
import { isDark } from "./colors.js";
import { number } from "./text.js";
import { buttons } from "../panels/index.js";

const LANGUAGES = { en: "English", zh: "中文" };

export function header(root, app) {
  const name = h("h1", { t: "title" });
  const model = h("select", {
    id: "model",
    onchange: () => app.choose(model.value),
  });
  const modelLabel = h("label", { for: "model", class: "away", t: "model" });
  const step = h("input", {
    type: "range",
    id: "step",
    min: 0,
    step: 1,
    oninput: () => app.set({ step: steps()[step.valueAsNumber] }),
  });
  const stepLabel = h("label", { for: "step", t: "step" }),
    stepText = h("output", { for: "step" });
  const scrub = h("span.scrub", stepLabel, step, stepText);
  const language = h(
    "select",
    { id: "language", onchange: () => app.set({ language: language.value }) },
    Object.entries(LANGUAGES).map(([code, text]) => h("option", { value: code, lang: code }, text)),
  );
  const languageLabel = h("label", { for: "language", class: "away", t: "language" });
  const theme = h("button.icon", {
    onclick: () => app.set({ theme: isDark() ? "light" : "dark" }),
  });
  const link = h("button", { onclick: copy, t: "link" });
  const tour = h("button", { id: "tour", onclick: () => app.tour(), t: "tour" });
  const opens = Object.keys(buttons).map((id) =>
    h("button", { "data-open": id, onclick: () => app.open(id), t: `${id}.title` }),
  );
  const notice = h("p.notice", { role: "status", hidden: true });
  root.append(
    h(
      "div.bar",
      name,
      h("span.group", modelLabel, model, scrub),
      h("span.group.panels", tour, opens),
      h("span.group", link, languageLabel, language, theme),
    ),
    h("div.busy", { role: "presentation" }),
    notice,
  );
  const steps = () => app.model()?.steps ?? [];

  async function copy() {
    const address = await app.link();
    try {
      history.replaceState(null, "", address);
      await navigator.clipboard.writeText(address);
      app.say(app.t("link.copied"));
      link.textContent = app.t("link.copied");
    } catch {
      link.textContent = app.t("link.address");
    }
    setTimeout(() => (link.textContent = app.t("link")), 2000);
  }

  let listed = null;
  function update() {
    const ids = app.models.map(({ id }) => id).join("\n");
    if (listed !== ids)
      fill(
        model,
        app.models.map(({ id }) => h("option", { value: id }, id)),
      );
    listed = ids;
    if (app.state.model) model.value = app.state.model;
    model.hidden = app.models.length < 1;
    const all = steps();
    scrub.hidden = all.length < 2 || Boolean(app.lesson);
    step.max = Math.max(0, all.length - 1);
    const now = app.state.step ?? app.run?.step ?? all.at(-1);
    step.value = Math.max(0, all.indexOf(now));
    step.setAttribute("aria-valuetext", app.t("step.value", { step: now }));
    stepText.textContent = number(now ?? NaN);
    language.value = app.state.language;
    theme.textContent = isDark() ? "☀" : "☾";
    theme.setAttribute("aria-label", app.t(isDark() ? "theme.light" : "theme.dark"));
    for (const button of opens) button.hidden = Boolean(app.lesson);
    opens.at(-1).hidden ||= app.model()?.tokenizer !== "words";
    root.classList.toggle("is-busy", app.busy);
    notice.textContent = [app.notice, !app.run && app.error, app.lesson && held(app.lesson)]
      .filter(Boolean)
      .join(" ");
    notice.hidden = !notice.textContent;
  }
  // Says what a lesson holds, and what it does not.
  function held({ arrays, left_out: left, state: { layer, head } }) {
    const params = { held: number(Object.keys(arrays).length), left: number(left), layer, head };
    return app.t("lesson.held", params) + (left ? ` ${app.t("lesson.left", params)}` : "");
  }
  return { update };
}
