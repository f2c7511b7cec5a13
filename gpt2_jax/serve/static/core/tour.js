// The guided tour: stops from tour/{language}.json set the state, scroll to a section and mark it.

import { fill, h } from "./dom.js";

export function makeTour(app) {
  const box = h("aside", {
    id: "guide",
    role: "dialog",
    "aria-modal": "false",
    "aria-labelledby": "guide-title",
    hidden: true,
    onkeydown: keyed,
  });
  document.body.append(box);
  let stops = [],
    language = null,
    shown = null,
    before = null;

  function keyed(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (event.key === "Escape") end();
    else if (step) go(app.state.tour + step);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  function go(n) {
    if (n < 0) return;
    if (n >= stops.length) return end();
    app.set({ ...stops[n].set, tour: n });
  }

  function end() {
    app.set({ tour: null });
    before?.focus({ preventScroll: true });
  }

  function start() {
    before = document.activeElement;
    app.close();
    app.set({ tour: 0 });
  }

  async function update() {
    const { tour: n } = app.state;
    if (n !== null && language !== app.state.language) {
      const wanted = app.state.language;
      stops = await app.file(`tour/${wanted}.json`);
      if (wanted !== app.state.language) return;
      language = wanted;
      shown = null;
    }
    if (app.state.tour !== n) return;
    const stop = n === null ? null : stops[Math.min(n, stops.length - 1)];
    box.hidden = !stop;
    document.querySelector(".toured")?.classList.remove("toured");
    if (!stop) return void (shown = null);
    document.getElementById(stop.at).classList.add("toured");
    if (shown === n) return;
    shown = n;
    const button = (key, to) =>
      h(
        "button",
        { "data-focus": key, disabled: to < 0, onclick: () => (key === "end" ? end() : go(to)) },
        app.t(`tour.${key}`),
      );
    fill(
      box,
      h("p.small.quiet", app.t("tour.of", { n: n + 1, count: stops.length })),
      h("h2", { id: "guide-title", tabindex: -1 }, stop.title),
      h("p", stop.text),
      h(
        "p.tools",
        button("back", n - 1),
        n + 1 < stops.length && button("next", n + 1),
        button("end", n),
      ),
    );
    app.go(stop.at);
    box.querySelector("h2").focus({ preventScroll: true });
    app.say(`${stop.title}. ${stop.text}`);
  }
  return { start, end, update };
}
