// Holds what the page shows, asks for runs and arrays, and calls who is to draw.

import { makeArrays } from "./arrays.js";
import { isLink, pack, unpack } from "./link.js";
import { say } from "./live.js";
import * as source from "./source.js";
import { number, textOf } from "./text.js";

const FIRST = {
  text: null,
  tokens: null,
  model: null,
  step: null,
  layer: 0,
  head: 0,
  query: null,
  key: null,
  pins: [],
  sampling: { temperature: 1, top_k: 0, top_p: 1, seed: 0 },
  interventions: {},
  language: null,
  theme: null,
  tour: null,
};
const OF_RUN = ["text", "tokens", "model", "step", "interventions"];

export function makeStore(onchange) {
  const first = { ...FIRST, ...source.lesson?.state };
  let texts = {},
    offered = null,
    turn = null,
    abort = null,
    waiting = false;
  const app = {
    state: structuredClone(first),
    run: null,
    asked: null, // the state that the run that is shown is of
    models: [],
    epoch: 0,
    error: "",
    wrong: null, // the field that the error is about
    busy: false,
    past: [],
    notice: "",
    damaged: false, // whether the link could not be read
    lesson: source.lesson,
  };
  // The tokens, and the chosen query and key as indices that the run has.
  app.tokens = () => app.run?.tokens ?? [];
  app.query = () => Math.min(app.state.query ?? Infinity, app.tokens().length - 1);
  app.key = () =>
    Math.min(app.state.key ?? 0, app.unmasked() ? app.tokens().length - 1 : app.query());
  app.layer = () => Math.min(app.state.layer, app.run.config.num_layers - 1);
  app.head = () => Math.min(app.state.head, app.run.config.num_heads - 1);
  app.unmasked = () => app.asked?.interventions?.unmasked?.includes(app.layer()) ?? false;
  app.model = (id = app.state.model) =>
    app.models.find((model) => model.id === id) ?? app.models[0];

  // What is shown where no text was given.
  app.example = () => {
    const { takes_text, tokenizer } = app.model() ?? {};
    if (takes_text === false) return "0";
    return app.t(tokenizer === "words" ? "example.music" : "example");
  };
  // Shows it, and remembers that nobody has typed it.
  app.offer = async () => {
    Object.assign(app.state, { text: (offered = app.example()), tokens: null });
    if (!(await app.start())) return;
    // A model of characters may lack some of the example; every model has a first token.
    app.state.tokens = [0];
    if (!(await app.start()) && app.state.tokens) offered = app.state.text;
  };

  app.t = (key, params = {}) =>
    (texts[key] ?? key).replace(/\{(\w+)\}/g, (_, name) => params[name] ?? "");
  app.say = say;

  app.changed = () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      app.epoch++;
      onchange(app);
    });
  };

  app.set = (patch) => {
    const before = app.state;
    app.state = { ...before, ...patch };
    if (OF_RUN.some((name) => JSON.stringify(before[name]) !== JSON.stringify(app.state[name])))
      app.start();
    if (before.language !== app.state.language) app.translate();
    app.changed();
    remember();
  };

  app.translate = async () => {
    const { language } = app.state,
      found = await source.getFile(`i18n/${language}.json`);
    if (language !== app.state.language) return;
    texts = found;
    app.language = language; // of the texts that are there
    app.changed();
  };

  // What a run is asked for with. Models without a tokenizer read a text as ids.
  app.request = (patch = {}) => {
    const { text, tokens, model, step, interventions } = { ...app.state, ...patch };
    const listed = app.model(model)?.takes_text === false && !/[^\d\s,]/.test(text);
    const ids = tokens ?? (listed ? (text.match(/\d+/g) ?? []).map(Number) : null);
    const request = ids ? { tokens: ids } : { text };
    if (model) request.model = model;
    if (step !== null) request.step = step;
    if (Object.values(interventions ?? {}).some((list) => list.length))
      request.interventions = {
        ...interventions,
        ...(interventions.swaps && { swaps: interventions.swaps.map(({ of, ...swap }) => swap) }),
      };
    return request;
  };

  // The state, as far as what is shown goes: a text that was refused is not.
  app.shown = () => ({
    ...app.state,
    ...Object.fromEntries(OF_RUN.map((name) => [name, app.asked[name]])),
  });

  // Asks for the run of a state. The texts that swaps are from may be gone from the server, as
  // behind a link: they are asked for again.
  async function ask(state, signal) {
    try {
      return await source.postJson("run", app.request(state), signal);
    } catch (error) {
      const { swaps } = state.interventions;
      if (error.status !== 410 || !swaps?.every(({ of }) => of)) throw error;
      const again = async ({ of, from, ...swap }) => {
        const { run } = await source.postJson("run", of, signal);
        return { ...swap, of, from: { ...from, run } };
      };
      const interventions = {
        ...state.interventions,
        swaps: await Promise.all(swaps.map(again)),
      };
      return source.postJson("run", app.request({ ...state, interventions }), signal);
    }
  }

  // Asks for the run of the state; what is shown stays until the answer is there. Returns whether
  // the state was refused.
  app.start = async () => {
    let refused = false;
    abort?.abort();
    abort = new AbortController();
    const mine = (turn = {});
    app.busy = true;
    app.changed();
    try {
      const { state } = app,
        run = await ask(state, abort.signal);
      if (mine !== turn) return false;
      const asked = state.tokens ? { ...state, text: written(run.tokens) } : state;
      if (run.run !== app.run?.run) arrays.forget();
      Object.assign(app, { run, asked, error: "", busy: false });
      app.epoch++; // what is being drawn is of another run
      app.state = { ...app.state, text: asked.text };
    } catch (error) {
      if (mine !== turn || error.name === "AbortError") return false;
      refused = error.status === 400;
      Object.assign(app, { error: app.sentence(error), wrong: error.param, busy: false });
      say(app.error);
    }
    app.changed();
    return refused;
  };

  const written = (tokens) =>
    app.model()?.takes_text === false ? tokens.map((token) => token.id).join(" ") : textOf(tokens);

  // Whether what is shown is not of the text, the model or the step that is chosen, as these were
  // refused.
  app.stale = () =>
    Boolean(app.error && app.run) &&
    ["text", "model", "step"].some((name) => app.state[name] !== app.asked[name]);

  // An error as a sentence.
  app.sentence = (error) => {
    if (error.param === "lesson") return app.t("error.lesson");
    if (error.status === 0) return app.t("error.offline");
    if (error.counts) {
      const { tokens, most, position } = error.counts;
      if (position) return app.t("error.beyond", { position });
      return app.t("error.long", { tokens: number(tokens), most: number(most) });
    }
    const said = String(error.message || error);
    return `${said[0]?.toUpperCase() ?? ""}${said.slice(1)}${/[.!?]$/.test(said) ? "" : "."}`;
  };

  const arrays = makeArrays((address) => {
    const { run } = app.run;
    return app.again(run, () => source.getArray(run, address));
  });
  // Returns {shape, data, address} of the run that is shown.
  app.get = arrays.get;
  app.arrays = arrays.all;

  // The same, or null where a lesson does not hold it.
  app.held = (address) =>
    app.get(address).catch((error) => {
      if (error.param === "lesson") return null;
      throw error;
    });

  // Does what needs the run that is shown; one that the server let go of is asked for again, and
  // has the same id.
  app.again = async (run, work) => {
    const { asked } = app;
    try {
      return await work();
    } catch (error) {
      if (error.status !== 410 || run !== app.run.run) throw error;
      await ask(asked);
      return work();
    }
  };

  app.post = (path, body, signal) => source.postJson(path, body, signal);
  app.lines = source.postLines;
  app.fetch = source.getJson;
  app.file = source.getFile;
  app.blob = source.getBlob;

  // Appends a token; undo takes it back.
  app.extend = (id) => {
    remembered();
    app.set({ tokens: [...app.tokens().map((token) => token.id), id], query: null, key: null });
  };
  let wrote = 0;
  app.write = (text) => {
    if (Date.now() - wrote > 2000) remembered();
    wrote = Date.now();
    app.set({ text, tokens: null, query: null, key: null });
  };
  // Another model reads the text anew, unless it is the page's own, and nothing that was changed or
  // chosen is of it.
  app.choose = (model) => {
    const { language, theme, sampling, text } = app.state,
      own = [offered, app.example()].includes(text);
    app.state = { ...first, language, theme, sampling, text, model };
    app.past = [];
    if (own) app.offer();
    else app.start();
    remember();
  };
  app.undo = () => {
    const last = app.past.pop();
    if (last) app.set({ ...last, query: null, key: null });
  };
  function remembered() {
    app.past = [...app.past.slice(-99), { text: app.state.text, tokens: app.state.tokens }];
  }

  // The state as a link, and back.
  app.link = async () => {
    const state = { ...app.state, fingerprint: app.run?.fingerprint };
    if (state.tokens) delete state.text;
    for (const [name, value] of Object.entries(first)) {
      if (JSON.stringify(state[name]) === JSON.stringify(value)) delete state[name];
    }
    return `${location.href.split("#")[0]}#${await pack(state)}`;
  };
  let timer = null;
  function remember() {
    clearTimeout(timer);
    timer = setTimeout(async () => {
      const address = await app.link();
      try {
        history.replaceState(null, "", address);
      } catch {
        /* a file:// page may not */
      }
    }, 300);
  }

  app.open = app.explain = () => {}; // main.js sets them
  app.restore = async (fragment) => {
    const found = isLink(fragment) ? await unpack(fragment) : {};
    app.damaged = !found;
    const { fingerprint, ...state } = found ?? {};
    if (!Object.keys(state).length) return app.damaged;
    app.expected = fingerprint ?? null;
    app.past = [];
    const { model, language, theme } = app.state;
    app.state = { ...first, model, language, theme, ...state };
    return true;
  };
  return app;
}
