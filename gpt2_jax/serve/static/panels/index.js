// The panels with a button in the header, in its order; each is loaded when it is opened.
export const buttons = {
  card: () => import("./card.js"),
  steps: () => import("./steps.js"),
  compare: () => import("./compare.js"),
  interventions: () => import("./interventions.js"),
  engine: () => import("./engine.js"),
  export: () => import("./export.js"),
  music: () => import("./music.js"),
};

// All of them; `number` is opened by the cells.
export const panels = { ...buttons, number: () => import("./number.js") };
