// The engine that serves completions: its slots, queue, prefill and cache, while this is open.

import { fill, h } from "../core/dom.js";
import { number, percent } from "../core/text.js";

const EVERY = 500;

export function mount(root, app) {
  const text = h("p.small.quiet", { t: "engine.text" }),
    body = h("div", { id: "slots" }),
    error = h("p.error", { role: "status" });
  root.append(text, error, body);
  let timer = null,
    now = null;

  const meter = (share, label) =>
    h(
      "span.track",
      { role: "img", "aria-label": label },
      h("i", { style: { width: `${100 * Math.min(1, share)}%` } }),
    );
  function slot(slot, i) {
    const said = slot.busy
      ? app.t("engine.slot", { prompt: slot.prompt_tokens, drawn: slot.drawn, length: slot.length })
      : app.t("engine.free");
    return h(
      "li",
      { class: slot.busy ? null : "out" },
      h("span", i),
      meter(slot.busy ? slot.length / now.max_length : 0, said),
      h("span.small", said),
    );
  }

  async function poll() {
    clearTimeout(timer);
    if (root.hidden || !root.closest("aside") || root.closest("aside").hidden || document.hidden)
      return;
    try {
      now = await app.fetch(`engine?${new URLSearchParams({ model: app.run.model })}`);
      error.textContent = "";
      draw();
    } catch (problem) {
      error.textContent = app.sentence(problem);
    }
    timer = setTimeout(poll, EVERY);
  }

  function draw() {
    const { cache, slots, prefilling } = now,
      busy = slots.filter((slot) => slot.busy).length;
    const pairs = [
      ["state", now.state],
      ["busy", `${busy} / ${slots.length}`],
      ["queued", number(now.queued)],
      ["waiting", number(now.waiting)],
      [
        "cache",
        app.t("engine.used", {
          used: number(cache.used_bytes),
          total: number(cache.total_bytes),
          share: percent(cache.used_bytes / (cache.total_bytes || 1)),
        }),
      ],
    ];
    fill(
      body,
      h(
        "dl.pairs",
        pairs.map(([name, value]) => [h("dt", app.t(`engine.${name}`)), h("dd.num", value)]),
      ),
      meter(cache.used_bytes / (cache.total_bytes || 1), app.t("engine.cache")),
      h("h3", app.t("engine.slots")),
      h("ol.amounts.slots", slots.map(slot)),
      h("h3", app.t("engine.prefill", { chunk: now.chunk })),
      prefilling.length
        ? h(
            "ol.amounts.slots",
            prefilling.map(({ done, total }) =>
              h(
                "li",
                h("span", "·"),
                meter(done / total, `${done} / ${total}`),
                h("span.num.small", `${done} / ${total}`),
              ),
            ),
          )
        : h("p.quiet.small", app.t("none")),
    );
  }

  function update() {
    poll();
  }
  document.addEventListener("visibilitychange", poll);
  return { update };
}
