// The loop: draw a token, append it, and read on.

import { fill, h } from "../core/dom.js";
import { draw, cut, prepare } from "../core/sampling.js";
import { words } from "../core/parts.js";
import { percent, visible } from "../core/text.js";

const PAUSE = 350,
  LAST = 60;

export function mount(root, app) {
  let playing = false,
    timer = null,
    grown = [],
    before = null,
    told = "";
  const steps = h("ol.loop"),
    text = h("p.grown.mono"),
    python = h("pre", { tabindex: 0 }),
    title = h("h3");
  const next = h("button", { id: "loop-next", onclick: () => step(), t: "appended.next" }),
    play = h("button", { id: "loop-play", onclick: () => (playing ? stop() : start()) });
  const undo = h("button", {
      onclick: () => {
        stop();
        app.undo();
      },
      t: "appended.undo",
    }),
    error = h("p.error", { role: "status" });
  root.append(steps, h("p.tools", next, play, undo), text, error, title, python);

  const ids = () => app.tokens().map((token) => token.id);
  const isGrown = () =>
    before &&
    [...before, ...grown.map(({ id }) => id)].every((id, i) =>
      i < before.length ? ids()[i] === id : i >= ids().length || ids()[i] === id,
    );

  // The token that `generate` draws here, as the n-th since the loop began.
  async function step() {
    if (app.busy) return;
    told = "";
    if (!isGrown() || ids().length !== before.length + grown.length) [before, grown] = [ids(), []];
    const ends = app.model()?.ends ?? [];
    if (ends.includes(grown.at(-1)?.id)) return end(app.t("appended.ended"));
    const most = app.run.max_tokens;
    if (ids().length >= most) return end(app.t("appended.full", { most }));
    const { run } = app.run,
      p = prepare((await app.get("logits")).data),
      options = app.state.sampling;
    const token = draw(p, options, grown.length),
      found = cut(p, options);
    const [name] = await words(app, [token]);
    if (app.busy || run !== app.run.run) return; // of another text
    grown = [...grown, { id: token, name, share: found.probs[found.ids.indexOf(token)] }];
    app.extend(token);
    app.say(name);
  }

  function start() {
    playing = true;
    again();
    app.changed();
  }
  function stop() {
    playing = false;
    clearTimeout(timer);
    app.changed();
  }
  function end(why) {
    told = why;
    stop();
  }
  async function again() {
    try {
      if (!app.busy) await step();
    } catch (problem) {
      end(app.sentence(problem));
    }
    if (playing && root.isConnected) timer = setTimeout(again, PAUSE);
  }

  function update() {
    if (app.error) playing = false;
    if (before && !isGrown()) [before, grown, told] = [null, [], ""];
    if (before)
      grown = grown.slice(0, Math.max(0, ids().length - before.length) + (app.busy ? 1 : 0));
    error.textContent = told;
    fill(
      steps,
      [1, 2, 3, 4].map((n) =>
        h("li", app.t(`appended.${n}`, { T: app.tokens().length, V: app.run.config.vocab_size })),
      ),
    );
    play.textContent = app.t(playing ? "appended.pause" : "appended.play");
    play.setAttribute("aria-pressed", String(playing));
    undo.disabled = !app.past.length;
    next.disabled = play.disabled = Boolean(app.lesson);
    const old = app
      .tokens()
      .slice(0, app.tokens().length - grown.length)
      .slice(-LAST);
    fill(
      text,
      app.tokens().length > LAST && "…",
      old.map((token) => visible(token)).join(""),
      grown.map(({ name, share }) => h("mark", { title: percent(share) }, name)),
    );
    const { temperature, top_k, top_p, seed } = app.state.sampling,
      count = Math.max(1, grown.length);
    title.textContent = app.t("appended.python", { count });
    const start = before ?? ids(),
      prompt = JSON.stringify(before ?? app.request(app.asked).text ?? ids());
    const options = `temperature=${temperature}, top_k=${top_k}, top_p=${top_p}`;
    python.textContent = [
      "from gpt2_jax.inference.sampling import SamplingOptions",
      "",
      `options = SamplingOptions(${options})`,
      `model.generate(${prompt}, max_new_tokens=${count}, options=options, seed=${seed})[0].tokens`,
    ].join("\n");
  }
  return { update };
}
