// Reads and writes the interventions of the state:
// {heads: [[l, h, factor]], mlps, neurons, unmasked, swaps}.

const same = (row, key) => key.every((value, i) => row[i] === value);

// The factor of a head, an MLP or a neuron; 1 where nothing is changed.
export function factorOf(interventions, kind, key) {
  return interventions?.[kind]?.find((row) => same(row, key))?.at(-1) ?? 1;
}

// Whether what a head gives at a position was put in from another text.
export const isSwapped = (interventions, layer, head, position) =>
  interventions?.swaps?.some(
    (swap) =>
      swap.site === "z" &&
      swap.layer === layer &&
      (swap.head ?? 0) === head &&
      swap.position === position,
  ) ?? false;

function put(app, kind, rows) {
  const { [kind]: _, ...others } = app.state.interventions ?? {};
  app.set({ interventions: rows.length ? { ...others, [kind]: rows } : others });
}

const of = (app, kind) => app.state.interventions?.[kind] ?? [];

// Sets a factor; null takes it from the list, which 1 does not.
export function changed(app, kind, key, factor) {
  const rows = of(app, kind).filter((row) => !same(row, key));
  put(app, kind, factor === null ? rows : [...rows, [...key, factor]]);
}

// Takes the mask off a layer, or puts it back.
export function unmask(app, layer, off) {
  put(
    app,
    "unmasked",
    [...of(app, "unmasked").filter((l) => l !== layer), ...(off ? [layer] : [])].sort(
      (a, b) => a - b,
    ),
  );
}

const place = ({ site, layer, head = 0, position }) => `${site} ${layer} ${head} ${position}`;

// Puts in an activation, in place of what was put in there before.
export const addSwap = (app, swap) =>
  put(app, "swaps", [...of(app, "swaps").filter((old) => place(old) !== place(swap)), swap]);
export const removeSwap = (app, i) =>
  put(
    app,
    "swaps",
    of(app, "swaps").filter((_, n) => n !== i),
  );
export const isChanged = (app) =>
  Object.values(app.state.interventions ?? {}).some((list) => list.length);
