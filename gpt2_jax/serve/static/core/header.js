// The bar at the top: model, step, panels, language, colors and the link.

import { h, fill } from "./dom.js";
import { isDark } from "./colors.js";
import { buttons } from "../panels/index.js";

const LANGUAGES = { en: "English", zh: "中文" };

export function header(root, app) {
  const name = h("h1");
  const model = h("select", { id: "model", onchange: () => app.set({ model: model.value, step: null, layer: 0, head: 0 }) });
  const modelLabel = h("label", { for: "model", class: "away" });
  const step = h("input", { type: "range", id: "step", min: 0, step: 1, oninput: () => app.set({ step: steps()[step.valueAsNumber] }) });
  const stepLabel = h("label", { for: "step" }), stepText = h("output", { for: "step" });
  const scrub = h("span", { class: "scrub" }, stepLabel, step, stepText);
  const language = h("select", { id: "language", onchange: () => app.set({ language: language.value }) },
    Object.entries(LANGUAGES).map(([code, text]) => h("option", { value: code, lang: code }, text)));
  const languageLabel = h("label", { for: "language", class: "away" });
  const theme = h("button", { type: "button", class: "icon", onclick: () => app.set({ theme: isDark() ? "light" : "dark" }) });
  const link = h("button", { type: "button", onclick: copy });
  const tour = h("button", { type: "button", id: "tour", hidden: true, onclick: () => app.tour?.start() });
  const opens = buttons.map(({ id }) => h("button", { type: "button", "data-open": id, onclick: () => app.open(id) }));
  const notice = h("p", { class: "notice", role: "status", hidden: true });
  root.append(
    h("div", { class: "bar" }, name, h("span", { class: "group" }, modelLabel, model, scrub),
      h("span", { class: "group panels" }, tour, opens),
      h("span", { class: "group" }, link, languageLabel, language, theme)),
    h("div", { class: "busy", role: "presentation" }), notice,
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
    name.textContent = app.t("title");
    const ids = app.models.map(({ id }) => id).join("\n");
    if (listed !== ids) fill(model, app.models.map(({ id }) => h("option", { value: id }, id)));
    listed = ids;
    if (app.state.model) model.value = app.state.model;
    model.hidden = app.models.length < 1;
    modelLabel.textContent = app.t("model");
    const all = steps();
    scrub.hidden = all.length < 2 || Boolean(app.lesson);
    step.max = Math.max(0, all.length - 1);
    const now = app.state.step ?? app.run?.step ?? all.at(-1);
    step.value = Math.max(0, all.indexOf(now));
    step.setAttribute("aria-valuetext", app.t("step.value", { step: now }));
    stepLabel.textContent = app.t("step");
    stepText.textContent = (now ?? "").toLocaleString("en-US");
    language.value = app.state.language;
    languageLabel.textContent = app.t("language");
    theme.textContent = isDark() ? "☀" : "☾";
    theme.setAttribute("aria-label", app.t(isDark() ? "theme.light" : "theme.dark"));
    if (![app.t("link.copied"), app.t("link.address")].includes(link.textContent)) link.textContent = app.t("link");
    tour.textContent = app.t("tour");
    tour.hidden = !app.tour;
    for (const button of opens) {
      button.textContent = app.t(`${button.dataset.open}.title`);
      button.hidden = Boolean(app.lesson);
    }
    root.classList.toggle("is-busy", app.busy);
    notice.textContent = [app.notice, app.lesson && held(app.lesson)].filter(Boolean).join(" ");
    notice.hidden = !notice.textContent;
  }
  // Says what a lesson holds, and what it does not.
  function held({ arrays, left_out: left, state: { layer, head } }) {
    const held = Object.keys(arrays).length.toLocaleString("en-US");
    const params = { held, left: left.toLocaleString("en-US"), layer, head };
    return app.t("lesson.held", params) + (left ? ` ${app.t("lesson.left", params)}` : "");
  }
  return { update };
}
