import * as prompt from "./prompt.js";
import * as embedding from "./embedding.js";
import * as journey from "./journey.js";
import * as layernorm from "./layernorm.js";
import * as qkv from "./qkv.js";
import * as scores from "./scores.js";
import * as mask from "./mask.js";
import * as softmax from "./softmax.js";
import * as weighted from "./weighted.js";
import * as merged from "./merged.js";
import * as projection from "./projection.js";
import * as mlp from "./mlp.js";
import * as residual from "./residual.js";
import * as logits from "./logits.js";
import * as sampling from "./sampling.js";
import * as appended from "./appended.js";
import * as cache from "./cache.js";
import * as training from "./training.js";

// Top to bottom.
export const sections = [
  prompt, embedding, journey, layernorm, qkv, scores, mask, softmax, weighted,
  merged, projection, mlp, residual, logits, sampling, appended, cache, training,
];
