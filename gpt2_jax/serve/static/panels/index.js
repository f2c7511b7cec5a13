import * as card from "./card.js";
import * as compare from "./compare.js";
import * as engine from "./engine.js";
import * as exports from "./export.js";
import * as interventions from "./interventions.js";
import * as number from "./number.js";
import * as steps from "./steps.js";

// Those with a button in the header, in its order.
export const buttons = [card, steps, compare, interventions, engine, exports];

// All of them; `number` is opened by the cells.
export const panels = [...buttons, number];
